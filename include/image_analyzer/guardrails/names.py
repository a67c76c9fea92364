"""Finds who a caption says somebody is: a name beside what only people do. Places, brands and figures have names, too."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import regex

from image_analyzer.guardrails.policy import Policy

_NAME = r"\p{Lu}[\p{Ll}\p{M}]+(?:['’-]\p{Lu}?[\p{Ll}\p{M}]+)*"
_PAIR = regex.compile(
    rf"(?<![\p{{L}}\p{{M}}’'-])(?P<first>{_NAME})\s+(?:\p{{Lu}}\.\s+|(?:van|von|de|da|del|di|bin|al|el|la|der|den)\s+)*(?P<last>(?:Mc|Mac|O['’])?{_NAME})(?![\p{{L}}\p{{M}}])(?P<rest>['’]s)?(?P<next>\s+[\p{{L}}\p{{M}}’'-]+)?"
)
_SINGLE = regex.compile(rf"(?<![\p{{L}}\p{{M}}’'-])(?P<first>{_NAME})(?P<next>\s+[\p{{L}}\p{{M}}’'-]+)")


# Letters on each side of a name in which a statue or a street makes it a thing's.
_BESIDE = 14
_CLAUSE_END = r"[.,;:!?،؛۔。，、；：！？।]"
_ARTICLE = regex.compile(r"\b(?:an?|the)\s+\Z", regex.IGNORECASE)
_SHOWING = frozenset(("shows", "depicts", "advertises", "paints", "portrays", "features", "honours", "honors"))
_OF = frozenset(("of", "to", "for", "by", "von", "für", "de", "du", "à", "di", "a", "van", "af", "av"))


@cache
def _words(name: str) -> frozenset[str]:
    text = (files("image_analyzer") / "data" / "names" / f"{name}.txt").read_text(encoding="utf-8")
    lines = (line.partition("#")[0] for line in text.splitlines())
    return frozenset(word for line in lines for word in line.split())


def find_name(outside: str, rules: Policy) -> tuple[int, int] | None:
    """Find the name of a person in a caption whose quotations are blanked."""
    for match in _PAIR.finditer(outside, overlapped=True):
        if _is_person(match, rules) and not _is_shown(outside[: match.start()], rules):
            return match.span()
    for match in _SINGLE.finditer(outside):
        following = match["next"].strip().lower()
        if (
            match["first"] in _words("given")
            and match["first"] not in _words("given_or_not")
            and following in _words("doing")
        ):
            return match.span()
    for match in rules.persons.finditer(outside):
        if not rules.named_things.search(_around(outside, match)):
            return match.span()
    if named := rules.naming.search(outside):
        return named.span()
    if rules.titles:
        titled = regex.search(
            rf"(?:{rules.titles})\s+(?!Jr|Sr)({_NAME})(?:\s+{_NAME})?(?!['’]s)(?P<next>\s+[\p{{L}}’'-]+)?", outside
        )
        thing = titled and (titled["next"] or "").strip().lower() in _words("things")
        if titled and not thing and not _is_shown(outside[: titled.start()], rules):
            return titled.span()
    return None


def _around(outside: str, match: regex.Match[str]) -> str:
    """Return a name and what stands beside it in its clause."""
    before = regex.split(_CLAUSE_END, outside[max(0, match.start() - _BESIDE) : match.start()])[-1]
    after = regex.split(_CLAUSE_END, outside[match.end() : match.end() + _BESIDE])[0]
    return f"{before} {match.group()} {after}"


def _is_shown(before: str, rules: Policy) -> bool:
    """Tell whether the name is a thing's: a memorial to somebody, a poster of somebody, the Mona Lisa, a John Deere."""
    if rules.code == "en" and _ARTICLE.search(before):
        return True
    without_names = regex.sub(rf"(?:{_NAME}\s+)+\Z", "", before)
    words = regex.findall(r"\p{L}+", without_names.lower())[-3:]
    if not words:
        return False
    if words[-1] in _words("things") or words[-1] in _SHOWING:
        return True
    return words[-1] in _OF and (words[-1] == "by" or any(word in _words("things") for word in words[:-1]))


def _is_person(match: regex.Match[str], rules: Policy) -> bool:
    first, last, following = match["first"], match["last"], (match["next"] or "").strip()
    things = _words("things")
    if rules.is_starter(first) or last.lower() in things or first.lower() in things or following.lower() in things:
        return False
    given = first in _words("given")
    if rules.capital_nouns and not given:
        return False
    if match["rest"]:
        return given and first not in _words("given_or_not")
    doing = following.lower() in _words("doing")
    return (given and (first not in _words("given_or_not") or doing)) or doing
