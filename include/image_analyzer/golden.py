"""The gate on quality: recorded answers to golden pictures, what they come to today, and who must not be fallen behind. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from image_analyzer.captions import CaptionAnswer
from image_analyzer.errors import ConfigurationError
from image_analyzer.evaluation import Evaluation
from image_analyzer.guardrails import Code, policy_version
from image_analyzer.prompts import CaptionRequest, request_texts
from image_analyzer.records import ContentKey, Record, Status
from image_analyzer.table import ResultRow

_Kept = TypeVar("_Kept", bound=Record)
PUBLISHED = frozenset({Status.OK, Status.DECORATIVE})


class Exchange(Record):
    """One request and what came back.

    Attributes:
        languages: Asked for in this one request.
        complaints: Rules that the answer before it broke; empty at first asking.
    """

    sha256: str
    languages: tuple[str, ...]
    complaints: tuple[Code, ...] = ()
    answer: CaptionAnswer


class Expectation(Record):
    """What one caption came to when it was recorded, and a person agreed."""

    picture: str
    language: str
    status: Status
    violations: tuple[Code, ...] = ()


class Recording(Record):
    """Answers of one model to one prompt.

    Attributes:
        endpoint: Who answered: a model's server, or the test server.
        prompt_digest: Of every text that may be sent.
    """

    model: str
    detail: str
    endpoint: str
    recorded_on: date
    prompt_version: str
    prompt_digest: str
    languages: tuple[str, ...]
    languages_per_call: int
    exchanges: tuple[Exchange, ...]
    expected: tuple[Expectation, ...]


class Quality(Record):
    """What captions came to.

    Attributes:
        policies: Digest of the wording policies of all languages that were judged.
        captions: Golden pictures times languages.
        published: Share of them, after a second try where the contract asks for one.
        at_once: Share whose first answer broke no rule.
        refused_without_cause: Share of sound captions, golden cases and recorded answers, that the contract refuses.
        passed_without_cause: Share of broken ones that it lets pass.
        usd_per_1000: Price of 1,000 captions.
    """

    model: str
    prompt_version: str
    policies: str
    captions: int
    published: float
    at_once: float
    refused_without_cause: float
    passed_without_cause: float
    usd_per_1000: float

    def metrics(self) -> dict[str, float]:
        """Return the figures by flat names, as an experiment tracker takes them."""
        return {
            name: float(value)
            for name, value in self.model_dump(exclude={"model", "prompt_version", "policies"}).items()
        }


class Margins(Record):
    """How much worse than the champion is still no step back. Shares but for `usd`, which is a share of the price."""

    published: float = 0.01
    at_once: float = 0.02
    refused_without_cause: float = 0.001
    passed_without_cause: float = 0.001
    usd: float = 0.05


def prompt_digest(languages: Sequence[str]) -> str:
    """Return a digest of every text that a request may send in these languages: alone, together, again, with a hint."""
    digest = hashlib.sha256()
    for language in languages:
        key = ContentKey(sha256="", language=language, prompt_version="", model="", detail="")
        others = tuple(other for other in languages if other != language)
        for more in ({}, {"also": others}, {"complaints": tuple(Code), "previous": "."}, {"hint": "hint"}):
            request = CaptionRequest.model_validate({"key": key, "thumbnail": b"", **more})
            digest.update("\0".join(request_texts(request)).encode())
    return digest.hexdigest()[:16]


def policies_digest(languages: Iterable[str]) -> str:
    """Return a digest of the wording policies."""
    versions = "\n".join(f"{language} {policy_version(language)}" for language in sorted(set(languages)))
    return hashlib.sha256(versions.encode()).hexdigest()[:16]


def expectations(rows: Iterable[ResultRow]) -> tuple[Expectation, ...]:
    """Return what captions came to, to be expected from now on."""
    found = [
        Expectation(picture=row.file_name, language=row.language, status=row.status, violations=_codes(row.violations))
        for row in rows
    ]
    return tuple(sorted(found, key=lambda one: (one.picture, one.language)))


def _codes(found: Sequence[str] | None) -> tuple[Code, ...]:
    return tuple(Code(code) for code in found or ())


def differences(expected: Sequence[Expectation], found: Sequence[Expectation]) -> list[str]:
    """Return in words where recorded answers come to something else than they did."""
    now = {(one.picture, one.language): one for one in found}
    lines = []
    for one in expected:
        other = now.get((one.picture, one.language))
        if other is None:
            lines.append(f"{one.picture} [{one.language}]: no caption any more, expected {one.status}")
        elif other != one:
            lines.append(f"{one.picture} [{one.language}]: {_words(other)}, expected {_words(one)}")
    return lines


def _words(one: Expectation) -> str:
    return f"{one.status} ({', '.join(one.violations) or 'no rule broken'})"


def measure(
    contract: Evaluation,
    rows: Sequence[ResultRow],
    *,
    asked: int,
    recording: Recording,
    expected: Mapping[tuple[str, str], Expectation] | None,
) -> Quality:
    """Return the figures.

    Args:
        asked: Captions that were wanted; what has no row was not published.
        recording: Whose answers the rows are.
        expected: What recorded answers came to when a person agreed; None for answers that nobody has looked at yet.
    """
    published = [row for row in rows if row.status in PUBLISHED]
    sound = [one for one in (expected or {}).values() if one.status in PUBLISHED]
    broken = [one for one in (expected or {}).values() if one.status not in PUBLISHED]
    passed = {(row.file_name, row.language) for row in published}
    refused = sum((one.picture, one.language) not in passed for one in sound)
    let_pass = sum((one.picture, one.language) in passed for one in broken)
    return Quality(
        model=recording.model,
        prompt_version=recording.prompt_version,
        policies=policies_digest({*contract.policies, *recording.languages}),
        captions=asked,
        published=_share(len(published), asked),
        at_once=_share(sum(not row.violations for row in published), asked),
        refused_without_cause=_share(contract.refused_without_cause + refused, contract.cases + len(sound)),
        passed_without_cause=_share(contract.passed_without_cause + let_pass, contract.cases + len(broken)),
        usd_per_1000=round(_share(sum(row.cost_usd or 0.0 for row in rows), asked) * 1_000, 6),
    )


def _share(part: float, whole: int) -> float:
    return round(part / whole, 6) if whole else 0.0


def compare(new: Quality, champion: Quality, margins: Margins) -> list[str]:
    """Return in words what is worse than the champion beyond the margins."""
    falls = {
        "published": champion.published - new.published,
        "at_once": champion.at_once - new.at_once,
        "refused_without_cause": new.refused_without_cause - champion.refused_without_cause,
        "passed_without_cause": new.passed_without_cause - champion.passed_without_cause,
    }
    problems = [
        f"{name} {getattr(new, name):.2%}, champion {getattr(champion, name):.2%}: at most {getattr(margins, name):.2%} worse"
        for name, fall in falls.items()
        if fall > getattr(margins, name)
    ]
    if new.usd_per_1000 > champion.usd_per_1000 * (1 + margins.usd):
        problems.append(
            f"usd_per_1000 ${new.usd_per_1000:.4f}, champion ${champion.usd_per_1000:.4f}: at most {margins.usd:.0%} dearer"
        )
    return problems


def read_recording(file: Path) -> Recording | None:
    """Return the recorded answers; None if there are none.

    Raises:
        ConfigurationError: It is no recording.
    """
    return _read(file, Recording)


def read_champion(file: Path) -> Quality | None:
    """Return the champion's figures; None if there is none yet.

    Raises:
        ConfigurationError: It holds something else.
    """
    return _read(file, Quality)


def _read(file: Path, kind: type[_Kept]) -> _Kept | None:
    try:
        return kind.model_validate_json(file.read_text(encoding="utf-8")) if file.exists() else None
    except ValidationError as error:
        raise ConfigurationError(f"{file} is no {kind.__name__.lower()}: {error.errors()[0]['msg']}") from None
