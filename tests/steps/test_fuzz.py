"""The fuzz run in a small form; `make fuzz` runs it whole."""

from __future__ import annotations

import os

import pytest
from fuzz import broken_rows, fuzz, make_hostile
from rich.console import Console

from image_analyzer.evaluation import read_cases
from image_analyzer.local.stack import Stack
from image_analyzer.settings import PROJECT_ROOT


def test_hostile_answers_publish_nothing_that_breaks_the_contract(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two hundred answers of all kinds: what is stored as published passes every check anew."""
    for name in stack.environment():
        monkeypatch.setenv(name, os.environ.get(name, ""))  # what the run sets is undone

    assert [] == fuzz(stack, 200, Console(quiet=True))


def test_a_broken_row_would_be_seen() -> None:
    """The check of the fuzz run is no ornament: each way to be wrong is named."""
    row = {"FILE_NAME": "a", "LANGUAGE": "en", "STATUS": "ok", "GPT_SUMMARY": "A dog runs.", "SENTENCES": 1, "WORDS": 3}
    wrong = [{"GPT_SUMMARY": "A dog runs. A cat sits."}, {"SENTENCES": 2}, {"WORDS": 26}, {"GPT_SUMMARY": ""},
             {"STATUS": "needs_review"}, {"STATUS": "decorative"}]  # fmt: skip

    assert [] == list(broken_rows([row]))
    assert len(wrong) == len(list(broken_rows([{**row, **change} for change in wrong])))


def test_the_answers_are_always_the_same() -> None:
    """A run can be repeated: same count, same answers."""
    cases = read_cases(PROJECT_ROOT / "evaluation/golden")

    assert make_hostile(50, cases) == make_hostile(50, cases)
