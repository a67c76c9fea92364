"""Errors named by what to do about them.

ImageAnalyzerError
├── ConfigurationError   stop; the message names the setting and the mend
├── FatalError           stop at once: credentials, quota, schema, a retired model
│   └── FolderGoneError
├── RetryableError       try again later; `retry_after_s` says when, if the other side said so
│   └── AnswersGoneError
├── ItemError            this picture only: it becomes a row with `code`
├── BudgetExceededError  finish cleanly; what was not asked waits for the next run
├── ReviewError          a person's decision cannot be stored as it is: decide anew
├── ChangedMeanwhileError  look again: the row is no longer what the person saw
└── QualityError         the data stay, the run is red
"""

from __future__ import annotations


class ImageAnalyzerError(Exception):
    """Root of every error that the core raises on purpose."""


class ConfigurationError(ImageAnalyzerError):
    """A setting is missing or wrong; nothing was done."""


class FatalError(ImageAnalyzerError):
    """No retry can help until a person acts."""


class RetryableError(ImageAnalyzerError):
    """The same call may succeed later.

    Attributes:
        retry_after_s: Seconds the other side asked to wait; None if it did not say.
        perhaps_billed: For how many requests the other side may have done the work although no answer arrived.
    """

    def __init__(self, message: str, *, retry_after_s: float | None = None, perhaps_billed: int = 0) -> None:
        super().__init__(message)
        self.retry_after_s, self.perhaps_billed = retry_after_s, perhaps_billed


class FolderGoneError(FatalError):
    """The files of a run were deleted; no retry brings them back."""


class AnswersGoneError(RetryableError):
    """The answers of a batch job are no longer at OpenAI: another task has read them, or somebody deleted them."""


class ItemError(ImageAnalyzerError):
    """One picture cannot be processed; the others go on.

    Attributes:
        code: A value of `records.ErrorCode`.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class BudgetExceededError(ImageAnalyzerError):
    """A cap on cost leaves too little for the next request. Nothing was asked."""


class ReviewError(ImageAnalyzerError):
    """A person's decision lacks something, or its text breaks the caption contract. Nothing was stored."""


class ChangedMeanwhileError(ImageAnalyzerError):
    """Somebody else, or a run, changed the row since the person looked at it. Nothing was stored."""


class QualityError(ImageAnalyzerError):
    """A check found rows that break a promise, or part of the run was lost."""
