"""What a person decides on a caption, and what a row says afterwards. Pure."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

from image_analyzer.errors import ReviewError
from image_analyzer.guardrails import Code, Violation, check_caption, count_sentences, count_words, policy_version
from image_analyzer.records import ErrorCode, Record, Status

# Rules that judge the meaning of words by lists, and so may be wrong. Form and length are facts: nobody overrules them.
OVERRULABLE = frozenset(
    {Code.IDENTITY, Code.AGE, Code.PRIVATE_ATTRIBUTE, Code.HEDGE, Code.FIRST_PERSON, Code.WRONG_LANGUAGE, Code.UNINFORMATIVE,
     Code.KEYWORD_STUFFING, Code.FILENAME, Code.TRUNCATED, Code.REDUNDANT_PREFIX, Code.CHATTER, Code.REFUSAL, Code.INJECTION}
)  # fmt: skip


class Choice(StrEnum):
    """What a person does with a caption. The value is stable: people query it."""

    APPROVED = "approved"
    EDITED = "edited"
    REJECTED = "rejected"
    DECORATIVE = "decorative"


class Sight(Record):
    """What a person saw of a row when they decided: it is stored only if the row still says so.

    Attributes:
        sha256: The picture.
        text: GPT_SUMMARY.
        rejected, proposed: REJECTED_CAPTION, PROPOSED_CAPTION.
        review: REVIEW_STATUS.
    """

    image_uri: str
    language: str
    sha256: str | None
    text: str | None
    rejected: str | None
    proposed: str | None
    review: str | None

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> Sight:
        """Return the sight of a row of IMAGE_RESULTS."""
        return cls(
            image_uri=row["IMAGE_URI"],
            language=row["LANGUAGE"],
            sha256=row["SHA256"],
            text=row["GPT_SUMMARY"],
            rejected=row["REJECTED_CAPTION"],
            proposed=row["PROPOSED_CAPTION"],
            review=row["REVIEW_STATUS"],
        )

    @property
    def candidate(self) -> str | None:
        """Return the text to decide on: the proposed one where the picture changed, else what is published or was rejected."""
        if self.review == "picture_changed":
            return self.proposed
        return self.rejected if self.text is None else self.text


class Review(Record):
    """One decision.

    Attributes:
        text: Of an edited caption.
        note: Why it is rejected or decorative, or why a broken rule does not apply.
        overrule: The person says that rules of wording which the text breaks do not apply; `note` says why.
    """

    sight: Sight
    choice: Choice
    reviewed_by: str
    text: str | None = None
    note: str | None = None
    overrule: bool = False


class Decided(Record):
    """What the row says afterwards. Field names are the binds of `stage_review.sql`."""

    decision: Choice
    text: str | None
    rejected: str | None = None
    status: Status
    error_code: ErrorCode | None = None
    error_message: str | None = None
    decorative_reason: str | None = None
    words: int | None = None
    sentences: int | None = None
    policy_version: str | None = None
    overruled: tuple[Code, ...] = ()


def clean_text(text: str) -> str:
    """Return a typed text as it is stored: composed letters, no blank around it, one blank between words."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def check_text(text: str, language: str) -> list[Violation]:
    """Return what is wrong with a text that a person typed, as `clean_text` would store it."""
    return check_caption(clean_text(text), language)


def may_be_overruled(violations: Sequence[Violation]) -> bool:
    """Tell whether a person may say that these rules do not apply; form and length always do."""
    return all(violation.code in OVERRULABLE for violation in violations)


def decide(review: Review) -> Decided:
    """Return what a decision makes of a row.

    Raises:
        ReviewError: A reason or a text is missing, or the text breaks the contract.
    """
    note = (review.note or "").strip()
    if not review.reviewed_by.strip():
        raise ReviewError("say who you are: a decision carries a name")
    if review.choice is Choice.REJECTED:
        if not note:
            raise ReviewError("say why the caption is rejected")
        return Decided(
            decision=review.choice,
            text=None,
            rejected=review.sight.candidate,
            status=Status.NEEDS_REVIEW,
            error_code=ErrorCode.REJECTED_BY_PERSON,
            error_message=note,
        )
    if review.choice is Choice.DECORATIVE:
        if not note:
            raise ReviewError("say why the picture needs no caption")
        return Decided(decision=review.choice, text="", status=Status.DECORATIVE, decorative_reason=note)
    return _decide_text(review, note)


def _decide_text(review: Review, note: str) -> Decided:
    language, shown = review.sight.language, review.sight.candidate
    text = clean_text((review.text if review.choice is Choice.EDITED else shown) or "")
    if not text:
        raise ReviewError("there is no caption to approve: write one, or mark the picture as decorative")
    violations = check_text(text, language)
    if violations and not (review.overrule and may_be_overruled(violations)):
        raise ReviewError("; ".join(f"{v.code}: {v.message}" for v in violations))
    if violations and not note:
        raise ReviewError("say why the rule does not apply here")
    return Decided(
        decision=Choice.APPROVED if text == shown else Choice.EDITED,
        text=text,
        status=Status.OK,
        words=count_words(text, language),
        sentences=count_sentences(text, language),
        policy_version=policy_version(language),
        overruled=tuple(dict.fromkeys(violation.code for violation in violations)),
    )
