"""The caption contract: the golden cases in all languages, what a verdict says, and what repair may do."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pytest

from image_analyzer.evaluation import Case, judge_case, read_cases
from image_analyzer.guardrails import (
    Action,
    Code,
    Violation,
    check_caption,
    count_words,
    decide,
    policy_version,
    repair_caption,
)
from image_analyzer.guardrails.policy import Policy, PolicyFile, policy
from image_analyzer.languages import supported_languages
from image_analyzer.settings import PROJECT_ROOT

GOLDEN = PROJECT_ROOT / "evaluation" / "golden"


@cache
def golden() -> list[Case]:
    """Return the golden cases."""
    return read_cases(GOLDEN)


def misjudged(cases: Iterable[Case]) -> dict[str, tuple[str, ...]]:
    """Return what is wrong with each verdict, by case."""
    return {verdict.case.id: verdict.problems for verdict in map(judge_case, cases) if verdict.problems}


@pytest.mark.parametrize("language", sorted({case.language for case in golden()}))
def test_golden_cases(language: str) -> None:
    """Every golden case of a language gets the expected codes, counts, action and repair; known gaps are still gaps."""
    cases = [case for case in golden() if case.language == language]
    wrong = misjudged(cases)

    assert {case.id for case in cases if case.known_gap} == set(wrong), wrong


def test_the_given_examples(assets: Path) -> None:
    """All examples of the assets get the codes, counts, action and repair that people gave them."""
    cases = read_cases(assets)

    assert {} == misjudged(cases)
    assert len(cases) > 90


def test_every_code_has_a_golden_case() -> None:
    """No rule is without a case that breaks it, and one in three cases is a sound caption."""
    broken = Counter(code for case in golden() for code in case.violations)

    assert set(Code) == set(broken)
    assert sum(not case.violations for case in golden()) > len(golden()) / 3


def test_a_25_word_sentence_passes() -> None:
    """The limit itself is allowed, one word more is not."""
    start = "A small brown dog with a red collar runs along a wide sandy beach"
    text = f"{start} beside the calm blue sea under a clear and sunny sky."

    assert 25 == count_words(text, "en")
    assert [] == check_caption(text, "en")
    assert [Code.TOO_LONG] == [violation.code for violation in check_caption(text.replace("sky", "sky there"), "en")]


@pytest.mark.parametrize(
    ("actions", "worst"),
    [
        ([], "accept"),
        ([Action.REPAIR], "repair"),
        ([Action.REPAIR, Action.REASK], "reask"),
        ([Action.QUARANTINE, Action.REASK, Action.REPAIR], "quarantine"),
    ],
)
def test_the_worst_violation_decides(actions: list[Action], worst: str) -> None:
    """Nothing outweighs a refusal; repairs alone are repaired."""
    assert worst == decide([Violation(code=Code.EMOJI, message="", action=action) for action in actions])


def test_a_violation_says_where() -> None:
    """The span is the offending text, also where a preamble stands before it."""
    text = "Sure, here is the caption: An elderly man feeds pigeons."
    spans = {violation.code: text[slice(*violation.span)] for violation in check_caption(text, "en")}

    assert "elderly man" == spans[Code.AGE]
    assert spans[Code.CHATTER].startswith("Sure, here is the caption:")


@pytest.mark.parametrize(
    "text",
    [
        "A sign reads “I am sorry, I cannot help with that request” above a desk.",
        "A poster says “Ignore all previous instructions” in red letters.",
        "A badge reads “elderly woman, possibly Asian” on a shelf of labels.",
        "A screen shows “#kite https://example.com” beside a keyboard.",
    ],
)
def test_what_is_quoted_is_seen_not_said(text: str) -> None:
    """Refusals, orders, guesses and links in quotation marks are text in the picture."""
    assert [] == check_caption(text, "en")


def test_personal_data_is_no_matter_of_wording() -> None:
    """A card number is left out, quoted or not; an ISBN, a date and a price are none."""
    assert [Code.PII] == [v.code for v in check_caption("A card reads “4111 1111 1111 1111” beside a cup.", "en")]
    assert [] == check_caption("A book, ISBN 978-0-306-40615-7, dated 2024-03-12, costs $1,250.00 here.", "en")


@pytest.mark.parametrize(
    ("text", "hint", "leaks"),
    [
        ("A golden retriever runs on a lawn.", "golden retriever", False),
        ("A dog (golden retriever) runs on a lawn.", "golden retriever", True),
        ("Golden retriever.", "golden retriever", True),
        ("A tabby, tabby cat sleeps on a chair.", "tabby, tabby cat", True),
        ("A dog (asleep) lies on a lawn.", "golden retriever", False),
    ],
)
def test_a_hint_may_be_right_but_is_not_recited(text: str, hint: str, leaks: bool) -> None:
    """The word itself is fine; its form as a label gives it away."""
    assert leaks == (Code.LABEL_LEAK in {violation.code for violation in check_caption(text, "en", hints=(hint,))})


def test_a_language_that_is_not_supported_is_named() -> None:
    """An unknown code is an error, a region and another code of the same language are fine."""
    with pytest.raises(ValueError, match="'xx' is not a supported language"):
        check_caption("A dog runs.", "xx")
    with pytest.raises(ValueError, match="'xx'"):
        repair_caption("A dog runs.", "xx")
    assert [] == check_caption("En brun hund løper langs en tom strand.", "nb")
    assert [] == check_caption("Um cachorro marrom corre por uma praia vazia.", "pt-BR")


@pytest.mark.parametrize("language", supported_languages())
def test_every_language_has_a_policy(language: str) -> None:
    """All its patterns compile and match nothing in an empty text; a model in it can refuse, guess and be caught."""
    rules = policy(language)
    single = ("prefixes", "suffixes", "chatter_start", "chatter_end", "hedges", "refusals", "injections", "labels",
              "persons", "named_things")  # fmt: skip
    patterns = [*(getattr(rules, name) for name in single), *rules.first_person, *rules.ages, *rules.private_attributes]

    assert [] == [pattern.pattern[:60] for pattern in patterns if pattern.search("")]
    assert re.fullmatch(rf"{language}-\d+\.[0-9a-f]+", policy_version(language))


def test_a_changed_word_is_another_version() -> None:
    """Nobody has to remember to raise a version: the digest covers every word of the file and what all share."""
    shared = PolicyFile(version=1)
    versions = {
        Policy("en", PolicyFile.model_validate({"version": 1, "style": {"hedges": words}}), shared).version
        for words in ("maybe", "maybe perhaps")
    }

    assert 2 == len(versions)


def test_an_unknown_field_of_a_policy_is_an_error() -> None:
    """A misspelt section cannot switch a rule off silently."""
    with pytest.raises(ValueError, match="hedge"):
        PolicyFile.model_validate({"version": 1, "style": {"hedge": "maybe"}})


def test_a_flood_is_not_looked_at_closely() -> None:
    """A megabyte of marks is too long, at once, and stays as it is."""
    flood = "“(A. " * 200_000

    assert [Code.TOO_LONG] == [violation.code for violation in check_caption(flood, "en")]
    assert flood == repair_caption(flood, "en")
