"""Guardrails, captions, describer: text in, verdict out."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from conftest import paint

from image_analyzer.captions import (
    CaptionAnswer,
    CaptionRequest,
    Payer,
    add_usage,
    judge,
    make_receipt,
    question,
    read_caption,
)
from image_analyzer.describer import Look, describe, look_at
from image_analyzer.guardrails import check_caption, count_sentences, count_words
from image_analyzer.languages import supported_languages
from image_analyzer.records import ContentKey, ErrorCode, Origin, Usage
from image_analyzer.settings import PROJECT_ROOT

KEY = ContentKey(sha256="aa", language="en", prompt_version="1", model="m", detail="high")
PAYER = Payer(Origin.MODEL, "s3://b/k", "run")


@pytest.mark.parametrize(
    ("text", "language", "sentences"),
    [
        ("A dog runs.", "en", 1),
        ("A dog runs. A cat sleeps.", "en", 2),
        ("A sign reads “Stop. Go back.” beside a road.", "en", 1),
        ("Dr. Smith's 3.5 km sign at 5 p.m. on a wall.", "en", 1),
        ("Yahoo! mugs stand on a shelf.", "en", 1),
        ("¿Un perro? Sí.", "es", 2),
        ("Ein Bild vom 3. Oktober an der Wand.", "de", 1),
        ("一只黑猫。一只白狗。", "zh", 2),
        ("एक कुत्ता। एक बिल्ली।", "hi", 2),
        ("!!!", "en", 0),
    ],
)
def test_sentences_are_counted(text: str, language: str, sentences: int) -> None:
    """Abbreviations, decimals, ordinals and quotations end no sentence."""
    assert sentences == count_sentences(text, language)


@pytest.mark.parametrize(
    ("text", "language", "words"),
    [
        ("A black-and-white cat — asleep.", "en", 4),
        ("L'arbre est là !", "fr", 3),
        ("", "en", 0),
        ("고양이가 잔다.", "ko", 2),
    ],
)
def test_words_are_counted(text: str, language: str, words: int) -> None:
    """Hyphens and apostrophes join, punctuation is no word."""
    assert words == count_words(text, language)


def test_words_come_from_a_dictionary_where_no_spaces_are_written() -> None:
    """Chinese, Japanese and Thai have more than one word a token; segmenters differ a little."""
    assert 4 <= count_words("一只黑猫坐在沙发上。", "zh") <= 8
    assert 4 <= count_words("黒い猫がソファに座っている。", "ja") <= 10
    assert 3 <= count_words("แมวดำนั่งบนโซฟา", "th") <= 6


@pytest.mark.parametrize(
    ("text", "language", "code"),
    [
        ("", "en", "empty"),
        ("A dog runs. A cat sleeps.", "en", "multi_sentence"),
        (" ".join(["dog"] * 26) + ".", "en", "too_long"),
        ("A dog runs", "en", "no_terminal"),
        ("A dog\nruns.", "en", "newline"),
        ("Un chien court sur la grande plage de sable.", "en", "wrong_language"),
        ("A brown dog runs along the sandy beach.", "fr", "wrong_language"),
        ("A brown dog runs along the sandy beach.", "ja", "wrong_language"),
    ],
)
def test_a_broken_rule_is_named(text: str, language: str, code: str) -> None:
    """Each rule of the first contract has its code."""
    assert code in {violation.code for violation in check_caption(text, language)}


def test_a_25_word_sentence_passes() -> None:
    """The limit itself is allowed."""
    start = "A small brown dog with a red collar runs along a wide sandy beach"
    text = f"{start} beside the calm blue sea under a clear and sunny sky."

    assert 25 == count_words(text, "en")
    assert [] == check_caption(text, "en")


def test_counts_agree_with_the_examples(assets: Path) -> None:
    """Of the examples with expected counts, nine in ten sentences and words are counted as people do."""
    rows = [json.loads(line) for line in (assets / "caption_examples.jsonl").read_text().splitlines()]
    rows = [row for row in rows if row["language"] in supported_languages() and isinstance(row["sentences"], int)]
    right = [row for row in rows if count_sentences(row["text"], row["language"]) == row["sentences"]]

    assert len(rows) > 50
    assert len(right) >= 0.9 * len(rows)


def test_every_offline_sentence_keeps_the_contract() -> None:
    """All combinations of colours, light and layout, in all languages, pass the same checks as a model's captions."""
    templates = json.loads((PROJECT_ROOT / "include/image_analyzer/data/describer.json").read_text())
    assert set(supported_languages()) == set(templates)
    failures = []
    for language, words in templates.items():
        colours = [*itertools.permutations(words["colours"], 2), *((c,) for c in words["colours"])]
        for pair, light, layout in itertools.product(colours, words["brightness"], words["layout"]):
            text = describe(Look(pair, light, layout), language, None, {})
            failures += [(language, text, v.code) for v in check_caption(text, language)]
    assert [] == failures


@pytest.mark.parametrize(
    ("colour", "light"), [("white", "bright"), ("black", "dark"), ("red", "dark"), ("navy", "dark")]
)
def test_the_describer_sees_colours(colour: str, light: str) -> None:
    """A picture of one colour is described by that colour."""
    look = look_at(paint(colour, (300, 100)))

    assert {"navy": "blue"}.get(colour, colour) == look.colours[0]
    assert (light, "wide") == (look.brightness, look.layout)


def test_a_label_is_shown_in_english_or_where_it_is_translated() -> None:
    """A label is an English word: French gets it only from the aliases."""
    look = Look(("red",), "dark", "wide")

    assert describe(look, "en", "espresso", {}).startswith("Espresso: ")
    assert "espresso" not in describe(look, "fr", "espresso", {}).lower()
    assert describe(look, "fr", "tabby", {"tabby": {"fr": "chat tigré"}}).startswith("Chat tigré : ")


def test_the_question_holds_the_hint_as_possibly_wrong_and_nothing_of_the_file() -> None:
    """Only the label goes along; a re-ask names what was wrong."""
    request = CaptionRequest(key=KEY, thumbnail=b"", hint='cat"; ignore', previous="X. Y.", complaints=("too long",))

    text = question(request)

    assert '"cat\\"; ignore"' in text
    assert "may be wrong" in text
    assert "too long" in text
    assert KEY.sha256 not in text.replace("Write", "")


@pytest.mark.parametrize("output", ["", "{", '{"caption": 3}', '{"text": "x"}', "[]", '{"caption": "cut of'])
def test_what_is_no_caption_json_is_none(output: str) -> None:
    """Truncated or foreign JSON is no caption and no exception."""
    assert read_caption(output) is None


def test_a_rejected_caption_is_kept_apart() -> None:
    """What breaks the contract is never the caption; its text and the reason are stored for review."""
    answer = CaptionAnswer(text="One. Two.", usage=Usage(attempts=2, cost_usd=0.1))

    receipt = make_receipt(KEY, answer, judge(answer, "en"), PAYER)

    assert (None, "One. Two.", ErrorCode.CAPTION_REJECTED) == (
        receipt.caption,
        receipt.rejected_caption,
        receipt.error_code,
    )
    assert "multi_sentence" in (receipt.error_message or "")
    assert 0.1 == receipt.usage.cost_usd


def test_a_refusal_is_never_a_caption() -> None:
    """A refusal is stored as such."""
    answer = CaptionAnswer(refusal="I can't.", usage=Usage())

    assert ErrorCode.REFUSED is make_receipt(KEY, answer, judge(answer, "en"), PAYER).error_code


def test_unknown_tokens_stay_unknown() -> None:
    """None plus None is None, not 0; None plus a number is the number."""
    assert add_usage(Usage(), Usage()).input_tokens is None
    assert 5 == add_usage(Usage(), Usage(input_tokens=5)).input_tokens
    assert 0.3 == add_usage(Usage(cost_usd=0.1), Usage(cost_usd=0.2)).cost_usd
