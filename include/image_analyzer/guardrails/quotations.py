"""Where a caption quotes text that is visible in the picture, and where it brackets. Outside is the model's wording."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

import regex

# What closes what opens. German and Georgian close „ by “, Polish and Dutch by ”; Danish turns the guillemets round.
_CLOSERS = {
    "“": '”“"',
    "„": '“”"',
    "«": "»",
    "»": "«»",
    "‹": "›",
    "›": "‹",
    "‘": "’",
    "‚": "‘’",
    "”": "”",
    "’": "’",
    "'": "'",
    '"': '"”“',
    "「": "」",
    "『": "』",
    "《": "》",
    "〈": "〉",
    "〝": "〞〟",
    "＂": "＂",
    "(": ")",
    "[": "]",
    "（": "）",
    "［": "］",
    "【": "】",
}
BRACKETS = frozenset("([（［【")
# These marks serve as apostrophe, as inch or as Hebrew gershayim, too.
_AMBIGUOUS = frozenset("\"'’”‘＂")
_UNSPACED = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Hangul}]")
# 'n hond, 's avonds, '90s, 'tis: something was left out.
_LEADING_APOSTROPHE = regex.compile(r"['’‘](?:[nstkm]|ns|em|tis|twas|til|cause|bout|round|\d0s)\b", regex.IGNORECASE)
_LETTER = regex.compile(r"[\p{L}\p{M}\p{N}]")
_HEBREW_WORD_REST = regex.compile(r"\p{Hebrew}+")


class Quotation(NamedTuple):
    """A quoted or bracketed span, marks included.

    Attributes:
        closed: False where the closing mark is missing; the span then has only the opening mark.
    """

    start: int
    end: int
    bracket: bool
    closed: bool = True


@lru_cache(maxsize=64)
def find_quotations(text: str) -> tuple[Quotation, ...]:
    """Return the outermost quotations and brackets, in order, never overlapping."""
    found: list[Quotation] = []
    position = 0
    while position < len(text):
        mark = text[position]
        if mark in _CLOSERS and _opens(text, position):
            end = _find_end(text, position)
            found.append(Quotation(position, end or position + 1, mark in BRACKETS, end is not None))
            position = end or position + 1
        else:
            position += 1
    return tuple(found)


def mask(text: str, spans: Iterable[Quotation], filler: str = " ") -> str:
    """Return the text with closed spans blanked, of the same length, so that offsets stay."""
    pieces, position = [], 0
    for span in spans:
        if span.closed:
            pieces += [text[position : span.start], filler * (span.end - span.start)]
            position = span.end
    return "".join([*pieces, text[position:]])


def mask_quotations(text: str, filler: str = " ") -> str:
    """Return the text with what is quoted blanked, of the same length; what is bracketed is the writer's own wording."""
    return mask(text, [span for span in find_quotations(text) if not span.bracket], filler)


def wrapped_inside(text: str) -> str | None:
    """Return what is inside if one quotation spans the whole text, but for a full stop after it; else None."""
    stripped = text.strip()
    spans = find_quotations(stripped)
    if not spans or spans[0].bracket or not spans[0].closed or spans[0].start != 0:
        return None
    rest = stripped[spans[0].end :]
    if rest.strip(" .。!?…"):
        return None
    inside = stripped[1 : spans[0].end - 1].strip()
    return inside + rest.strip() if inside and inside[-1] not in ".。!?…！？" else inside


def _find_end(text: str, start: int) -> int | None:
    opener, closers = text[start], _CLOSERS[text[start]]
    if closers[0] in text[start + 1 :]:
        closers = closers[0]
    depth = 0
    for position in range(start + 1, len(text)):
        mark = text[position]
        if mark in closers and _closes(text, position, opener):
            if depth == 0:
                return position + 1
            depth -= 1
        elif mark == opener and opener not in closers:
            depth += 1
    return None


def _opens(text: str, position: int) -> bool:  # noqa: PLR0911 - one return for each use of a mark
    """Tell whether a mark begins a quotation: not an apostrophe, an inch, a gershayim."""
    mark, before, after = text[position], text[position - 1 : position], text[position + 1 : position + 2]
    if mark in BRACKETS:
        return True
    if mark in "»”’›" and (not before or before.isspace()):
        return bool(after) and not after.isspace()
    if mark in "»”’›":
        return False
    if mark not in _AMBIGUOUS:
        return True
    if not after or after.isspace() or _LEADING_APOSTROPHE.match(text, position):
        return False
    if not before or not _LETTER.match(before) or _UNSPACED.match(before):
        return True
    # Hebrew glues its prepositions to the mark: ב"הארץ"; an abbreviation has its mark before the last letter: ד"ר.
    rest = _HEBREW_WORD_REST.match(text, position + 1) if mark == '"' else None
    return bool(rest and len(rest.group()) > 1 and text.find('"', rest.end()) >= 0)


def _closes(text: str, position: int, opener: str) -> bool:
    mark, before, after = text[position], text[position - 1 : position], text[position + 1 : position + 2]
    if mark == "“" and opener in '“"':  # Swedish and hurried hands close with the opening mark
        return not before.isspace()
    if mark not in _AMBIGUOUS:
        return True
    if mark in "'’" and (not before or before.isspace()):
        return False
    inside_word = bool(_LETTER.match(before)) and bool(_LETTER.match(after)) if before and after else False
    if not inside_word:
        return True
    if mark == '"' and regex.match(r"\p{Hebrew}", after):
        return False
    # 「"멈춤"이라고」: Korean particles and unspaced scripts go on right after the mark; an apostrophe is inside a word.
    return mark in '"”＂' or bool(_UNSPACED.match(after))
