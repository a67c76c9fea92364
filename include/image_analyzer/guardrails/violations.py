"""What the contract's rules are called, and what is done about each."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum, StrEnum

from image_analyzer.records import Record


class Action(StrEnum):
    """What becomes of a caption."""

    ACCEPT = "accept"
    REPAIR = "repair"
    REASK = "reask"
    QUARANTINE = "quarantine"


class _Severity(IntEnum):
    ACCEPT = 0
    REPAIR = 1
    REASK = 2
    QUARANTINE = 3


class Code(StrEnum):
    """Why a caption may not be published as it is. The values are stable: people query them."""

    EMPTY = "empty"
    MULTI_SENTENCE = "multi_sentence"
    TOO_LONG = "too_long"
    NO_TERMINAL = "no_terminal"
    TRUNCATED = "truncated"
    UNINFORMATIVE = "uninformative"
    FILENAME = "filename"
    KEYWORD_STUFFING = "keyword_stuffing"
    FIRST_PERSON = "first_person"
    HEDGE = "hedge"
    REDUNDANT_PREFIX = "redundant_prefix"
    CHATTER = "chatter"
    WRAPPING_QUOTES = "wrapping_quotes"
    MARKDOWN = "markdown"
    HTML = "html"
    JSON = "json"
    NEWLINE = "newline"
    WHITESPACE = "whitespace"
    CONTROL_CHARS = "control_chars"
    NOT_NFC = "not_nfc"
    EMOJI = "emoji"
    HASHTAG = "hashtag"
    URL = "url"
    WRONG_LANGUAGE = "wrong_language"
    REFUSAL = "refusal"
    INJECTION = "injection"
    IDENTITY = "identity"
    AGE = "age"
    PRIVATE_ATTRIBUTE = "private_attribute"
    PII = "pii"
    LABEL_LEAK = "label_leak"


class Violation(Record):
    """One broken rule.

    Attributes:
        code: Stable word.
        message: In English, for people.
        span: Offsets of the offending text in the caption's NFC form.
        action: What is done about it; `repair` only where `repair_caption` mends it.
    """

    code: Code
    message: str
    span: tuple[int, int] = (0, 0)
    action: Action = Action.REASK


def decide(violations: Iterable[Violation]) -> Action:
    """Return the worst of the actions; `accept` if nothing is broken."""
    severities = (_Severity[violation.action.name] for violation in violations)
    return Action[max(severities, default=_Severity.ACCEPT).name]
