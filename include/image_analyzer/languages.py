"""The languages a caption can be written in: BCP 47 codes over a table of base languages."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from functools import cache
from importlib.resources import files

from pydantic import BaseModel, ConfigDict

# Other codes of the same language.
_SAME = {"nb": "no", "nn": "no", "iw": "he", "in": "id", "fil": "tl"}
_TAG = re.compile(r"[a-z]{2,3}(-[a-z]{4})?(-([a-z]{2}|\d{3}))?", re.IGNORECASE)


class Language(BaseModel):
    """What the code must know of one base language.

    Attributes:
        name: In English, for prompts.
        detector: Label of the language detector; one label may serve several languages that it cannot tell apart.
        terminators: Characters that may end a sentence; empty where the language writes none.
        script: Unicode script of most letters.
        foreign: Characters of neighbouring languages that its own words do not have.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    script: str
    detector: tuple[str, ...]
    terminators: str = ".!?…"
    foreign: str = ""


@cache
def _table() -> dict[str, Language]:
    text = (files("image_analyzer") / "data" / "languages.json").read_text(encoding="utf-8")
    return {code: Language(**row) for code, row in json.loads(text).items()}


def supported_languages() -> tuple[str, ...]:
    """Return the base codes, sorted."""
    return tuple(sorted(_table()))


def code_pattern() -> str:
    """Return a regular expression that every supported code fits, for descriptions of interfaces."""
    bases = "|".join(sorted({*supported_languages(), *_SAME}))
    return f"^(?:{bases})(?:-[A-Za-z]{{4}})?(?:-(?:[A-Za-z]{{2}}|[0-9]{{3}}))?$"


def base_code(code: str) -> str:
    """Return the base language of a BCP 47 code: `pt` of `pt-BR`, `no` of the Norwegian `nb` and `nn`."""
    base = code.split("-", maxsplit=1)[0].lower()
    return _SAME.get(base, base)


def language(code: str) -> Language:
    """Return what is known of the base language of a BCP 47 code.

    Raises:
        ValueError: It is not supported.
    """
    base = base_code(code)
    if base not in _table():
        raise ValueError(f"{code!r} is not a supported language; choose from {', '.join(supported_languages())}")
    return _table()[base]


def display_name(code: str) -> str:
    """Return the name for a prompt, with the region or script: `Portuguese (pt-BR)`."""
    return language(code).name if "-" not in code else f"{language(code).name} ({code})"


def _canonical(code: str) -> str:
    base, *rest = code.split("-")
    return "-".join([base.lower(), *(part.title() if len(part) == 4 else part.upper() for part in rest)])


def parse_languages(codes: Iterable[str]) -> tuple[str, ...]:
    """Return codes in canonical case, each once, in the given order.

    Raises:
        ValueError: None was given, or one is not a BCP 47 code of a supported language.
    """
    chosen: dict[str, None] = {}
    for code in codes:
        if not _TAG.fullmatch(code) or base_code(code) not in _table():
            raise ValueError(f"{code!r} is not a supported language; choose from {', '.join(supported_languages())}")
        chosen[_canonical(code)] = None
    if not chosen:
        raise ValueError("no language given; use for example en,fr")
    return tuple(chosen)
