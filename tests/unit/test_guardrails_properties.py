"""What holds for every text there is, sought by hypothesis among hostile ones."""

from __future__ import annotations

import unicodedata

from hypothesis import given, settings
from hypothesis import strategies as st

from image_analyzer.guardrails import check_caption, count_sentences, count_words, repair_caption
from image_analyzer.languages import supported_languages

# Pieces that rules look for, glued together in ways nobody thought of.
_PIECES = st.sampled_from(
    [
        *(
            "A dog runs.",
            "A ",
            "the ",
            ", ",
            "Dr. ",
            "p.m. ",
            "3.5",
            " I ",
            "elderly man",
            "I'm sorry",
            "n/a",
            "IMG_1234.jpg",
        ),
        *("image of ", "Photo de ", "写真：", "の写真", "赤い電車の写真。", "صورة ", "Sure, ", "Here is the caption: "),
        *("“", "”", "„", "«", "»", '"', "'", "(", ")", "...", "…", "!", "?", "。", "؟", "।", ";", "."),
        *("**", "_", "`", "```", "\n", "# ", "- ", "1. ", "[", "](x)", "<p>", "</p>", '{"caption": "', '"}'),
        *("👍🏽", "🇫🇷", ":)", "#tag", "https://a.b/c", "é", "e\u0301", "\u0301", "가", "แมวนอน"),
        *("\u200b", "\u200d", "\u202e", "\u00a0", "\u3000", "  ", "\t", "\ufffd", "\ue000", "\ud800"),
    ]
)
TEXTS = st.one_of(st.text(max_size=60), st.lists(st.one_of(_PIECES, st.text(max_size=6)), max_size=10).map("".join))
LANGUAGES = st.sampled_from(supported_languages())
MANY = settings(max_examples=300, deadline=None)


def letters(text: str) -> str:
    """Return the letters and digits in order, case folded."""
    return "".join(c for c in unicodedata.normalize("NFC", text).casefold() if c.isalnum())


def is_within(part: str, whole: str) -> bool:
    """Tell whether all characters of `part` come in `whole` in the same order."""
    rest = iter(whole)
    return all(character in rest for character in part)


@MANY
@given(TEXTS, LANGUAGES)
def test_nothing_makes_a_check_raise(text: str, language: str) -> None:
    """Any string is judged; a span lies within the text."""
    length = max(len(text), len(unicodedata.normalize("NFC", text)))
    for violation in check_caption(text, language):
        assert 0 <= violation.span[0] <= violation.span[1] <= length


@MANY
@given(TEXTS, LANGUAGES)
def test_counts_do_not_depend_on_the_unicode_form(text: str, language: str) -> None:
    """Composed and decomposed text have the same words and sentences."""
    composed, decomposed = unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text)

    assert count_words(composed, language) == count_words(text, language) == count_words(decomposed, language)
    assert count_sentences(composed, language) == count_sentences(decomposed, language)


@MANY
@given(TEXTS, LANGUAGES)
def test_repairing_twice_is_repairing_once(text: str, language: str) -> None:
    """What repair leaves, repair leaves alone."""
    once = repair_caption(text, language)

    assert once == repair_caption(once, language)


@MANY
@given(TEXTS, LANGUAGES)
def test_repair_makes_nothing_worse(text: str, language: str) -> None:
    """No code appears that was not there."""
    before = {violation.code for violation in check_caption(text, language)}

    assert {violation.code for violation in check_caption(repair_caption(text, language), language)} <= before


@MANY
@given(TEXTS.filter(lambda text: "&" not in text and "\\" not in text), LANGUAGES)
def test_repair_invents_no_letter(text: str, language: str) -> None:
    """Letters and digits of the repaired text come from the text, in order; only entities and escapes are decoded."""
    assert is_within(letters(repair_caption(text, language)), letters(text))
