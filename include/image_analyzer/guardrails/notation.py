"""The small notation in which policies list words, and the regular expressions it stands for.

Words stand between spaces; `_` is a space inside a phrase, `*` any letters, `#` a number of years, `~` up to a few words,
`(a|b)` a choice, a straight apostrophe stands for both. A `*` at the beginning is what Arabic and Hebrew glue before a word.
"""

from __future__ import annotations

import regex

NEVER = regex.compile(r"(?!)")
_LETTER = r"[\p{L}\p{M}\p{N}\u200c]"
EDGELESS = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]")
# Up to 119, so that an age can be told from the years of an oak or a church.
_NUMBER = r"(?<!\p{Nd})(?:1[01]\p{Nd}|\p{Nd}{1,2})(?!\p{Nd})"
_NOTATION = {
    "_": r"\s+",
    "*": r"[\p{L}\p{M}]*",
    "#": _NUMBER,
    "~": r"[^.!?。！？।]{0,60}?",
    "'": "['’ʼ]",
    "(": "(?:",
    ")": ")",
    "|": "|",
}


# What is written together with the word that follows.
_GLUED = (
    (r"\p{Arabic}", "[وف]?(?:بال|كال|لل|ال|[بلك])?"),
    (r"\p{Hebrew}", "[והבלכשמ]{0,3}"),
)


def _phrase(notation: str) -> str:
    """Return the regular expression of one phrase; edges are word edges where the script has such.

    A `*` at the beginning stands for what Arabic and Hebrew glue before a word: and, in, to, the.
    """
    first, last = notation.lstrip("*")[:1], notation[-1]
    glued = ""
    if notation.startswith("*"):
        glued = next((glue for script, glue in _GLUED if regex.match(script, first)), r"[\p{L}\p{M}]{0,12}")
        notation = notation[1:]
    body = "".join(_NOTATION.get(character) or regex.escape(character) for character in notation)
    bare_left = EDGELESS.match(first) or not regex.match(_LETTER, first)
    left = "" if bare_left and not glued else f"(?<!{_LETTER})"
    bound = regex.match(_LETTER, last) and not regex.match(r"\p{Hangul}", last)
    # Scripts without spaces have no word edge, but a mark still belongs to the letter before it.
    right = r"(?!\p{M})" if EDGELESS.match(last) else f"(?!{_LETTER})"
    return f"{left}{glued}{body}" + (right if bound else "")


def phrases(notation: str, endings: str = "") -> str:
    """Return one regular expression for a list of phrases, the longest first.

    Args:
        endings: What a `*` at the end of a phrase stands for; any letters if empty.
    """
    choice = f"({'|'.join(endings.split())}|)" if endings.split() else "*"
    words = (f"{word[:-1]}{choice}" if word.endswith("*") else word for word in notation.split())
    return "|".join(_edged(word) for word in sorted(words, key=len, reverse=True))


def _edged(notation: str) -> str:
    """Return a phrase; one that ends with a choice of endings ends at a word edge, too."""
    return _phrase(notation) + (f"(?!{_LETTER})" if notation.endswith("|)") else "")


def compile_phrases(notation: str, *, exact: bool = False) -> regex.Pattern[str]:
    """Return a pattern that finds any phrase of a list; one that finds nothing for an empty list."""
    return regex.compile(phrases(notation), 0 if exact else regex.IGNORECASE) if notation.split() else NEVER


def compile_any(patterns: tuple[str, ...], before: str = "", after: str = "") -> regex.Pattern[str]:
    """Return a pattern that finds any of several regular expressions between two others."""
    joined = "|".join(f"(?:{pattern})" for pattern in patterns)
    return regex.compile(f"{before}(?:{joined}){after}", regex.IGNORECASE) if patterns else NEVER
