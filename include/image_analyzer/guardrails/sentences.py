"""Counts sentences. What is quoted or bracketed is masked first; then every terminator is looked at in its place."""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Sequence

import regex

from image_analyzer.guardrails.policy import Policy, policy
from image_analyzer.guardrails.quotations import Quotation, find_quotations, wrapped_inside

# Marks that end a sentence wherever they stand: they have no other use.
_HARD = "。｡．！？؟۔।॥။។៕።፧፨։"
_NEUTRAL = "\ue000"  # private use: stands for a mark that cannot end a sentence here
_COUNTED = regex.compile(r"(?<![\p{L}\p{M}\p{N}_#＃])[\p{L}\p{N}]")  # tags such as #kite make no sentence
_URL = regex.compile(r"(?:https?://|www\.)\S*[\w/]|\b[\w.+-]+@[\w-]+\.[\w.-]*\w")
_MARKS = regex.compile(rf"(?:[{_HARD}.!?…;:．]+)(?P<close>[\"'”’»«“)\]」』》）]*)")
_LIST_ITEM = regex.compile(r"(?m)^[ \t]*(?:[-*•·▪–]|\p{Nd}{1,2}[.)])[ \t]+")
_LINE_BREAK = regex.compile(r"[ \t]*(?:\r\n|[\n\r\v\f\x85\u2028\u2029])[\s]*")
_TOKEN_BEFORE = regex.compile(r"[^\s(\[“„«‹‘「『\"'’/-]+\Z")
_TOKEN_AFTER = regex.compile(r"(?:['’‘][nstk]\s+)?[¿¡\"“„«»‹‘'’(\[「『*_]*(?P<word>[^\s]*)")
# "And so on" of Khmer, and initials of Urdu: their full stops end nothing.
_HARMLESS_HARD = regex.compile(r"។ល។|(?:(?<!\p{L})\p{L}{1,3}۔){2,}|(?<=\d)[。．](?=\d)")
_ROMAN = regex.compile(r"[IVXLCDM]{2,}")
_LOWER_WORD_END = regex.compile(r"[\p{Ll}\p{Lo}]{2,}\Z")
_CAPITAL_WORD = regex.compile(r"\p{Lu}\p{Ll}+[\s,]|[AI]\s|À\s")
_THAI_ABBREVIATION_LENGTH = 6


def count_sentences(text: str, language: str) -> int:
    """Return how many sentences the text holds; 0 if it has no letter or digit.

    A full stop ends none in an abbreviation, an ordinal, a decimal, an address of the web, nor inside a quotation
    unless a new sentence plainly begins after it. Thai and Lao write no mark between sentences: there, only a line
    break, `!` and `?` are seen.
    """
    content = unicodedata.normalize("NFC", text).strip()
    content = wrapped_inside(content) or content
    rules = policy(language)
    spans = find_quotations(content)
    masked = _neutralise(content, spans)
    ends = sorted({0, len(masked), *_line_ends(masked, rules), *_mark_ends(masked, spans, rules)})
    return sum(1 for start, end in itertools.pairwise(ends) if _COUNTED.search(masked, start, end))


def _neutralise(text: str, spans: Sequence[Quotation]) -> str:
    """Return the text, of the same length, with every mark inside quotations and web addresses made harmless."""
    characters = list(text)
    harmless = [(span.start + 1, span.end - 1) for span in spans if span.closed]
    harmless += [match.span() for pattern in (_URL, _HARMLESS_HARD) for match in pattern.finditer(text)]
    for start, end in harmless:
        for position in range(start, end):
            if characters[position] in f"{_HARD}.!?…;:．\n\r":
                characters[position] = _NEUTRAL
    return "".join(characters)


def _line_ends(text: str, rules: Policy) -> list[int]:
    """Return where a line break parts sentences: at an empty line, before a list item, before a capital."""
    ends = [match.start() for match in _LIST_ITEM.finditer(text)]
    for match in _LINE_BREAK.finditer(text):
        after = text[match.end() : match.end() + 1]
        empty_line = len(regex.findall(r"\r\n|[\n\r\x85\u2028\u2029]", match.group())) > 1
        if empty_line or after.isupper() or not rules.terminators:
            ends.append(match.end())
    return ends


def _mark_ends(text: str, spans: Sequence[Quotation], rules: Policy) -> list[int]:
    ends = [match.end() for match in _MARKS.finditer(text) if _ends_sentence(text, match, rules)]
    quotations = (span for span in spans if span.closed and not span.bracket)
    return ends + [span.end for span in quotations if _quotation_ends_sentence(text, span, rules)]


def _ends_sentence(  # noqa: PLR0911 - one return for each rule
    text: str, match: regex.Match[str], rules: Policy
) -> bool:
    marks = match.group().removesuffix(match["close"])
    if any(mark in _HARD for mark in marks):
        return True
    rest = text[match.end() :]
    following = rest.lstrip()
    if not following:
        return False
    spaced = rest[0].isspace()
    before, after = _token_before(text, match.start()), _token_after(following)
    if all(mark in ";:" for mark in marks):
        return spaced and marks[-1] in rules.extra_terminators and not _is_lower(after[:1])
    if not spaced:
        glued = marks == "." and not match["close"] and _LOWER_WORD_END.search(before) and _CAPITAL_WORD.match(rest)
        return bool(glued) and not rules.is_abbreviation(before)
    if _is_lower(after[:1]):
        return False
    if "!" in marks or "?" in marks:
        return not rules.is_brand(before + marks) and not _foreign_brand(before, after)
    if marks != ".":
        return bool(after[:1].strip(_NEUTRAL))
    return _full_stop_ends(text, match.start(), before, after, rules)


def _full_stop_ends(  # noqa: PLR0911 - one return for each rule
    text: str, position: int, before: str, after: str, rules: Policy
) -> bool:
    """Decide on a single full stop before a space and something that is not in lower case."""
    starts_sentence = rules.is_starter(after)
    if rules.is_abbreviation(before):
        return False
    if before.isnumeric():
        if regex.match(r"\p{Lu}{2,3}\b", after):  # the club 1. FC Köln
            return False
        at_line_start = not text[: position - len(before)].rpartition("\n")[2].strip()
        return starts_sentence if rules.ordinals and not at_line_start else not at_line_start
    if rules.ordinals and _ROMAN.fullmatch(before):
        return starts_sentence
    short = sum(1 for c in before if unicodedata.category(c)[0] == "L") == 1
    if short or "." in before or rules.may_end(before):
        return starts_sentence
    if regex.search(r"\p{Thai}|\p{Lao}", before):
        return len(before) > _THAI_ABBREVIATION_LENGTH
    return True


def _quotation_ends_sentence(text: str, span: Quotation, rules: Policy) -> bool:
    """Decide whether a full stop inside a quotation ends the sentence around it, too: “Closed.” A cat sits there."""
    if not text[span.start : span.end - 1].rstrip().endswith(_NEUTRAL):
        return False
    rest = text[span.end :]
    if not rest[:1].isspace():
        return False
    after = _token_after(rest.lstrip())
    if rules.capital_nouns:
        return rules.is_starter(after)
    return (len(after) > 1 and after[0].isupper() and after[1:2].islower()) or (after in ("A", "I", "O", "Y"))


def _is_lower(character: str) -> bool:
    """Tell whether a letter is a small one of a script that begins sentences with capitals, which Georgian does not."""
    return character.islower() and not regex.match(r"\p{Georgian}", character)


def _foreign_brand(before: str, after: str) -> bool:
    """Tell whether a Latin word with `!` stands in a script without capitals: a brand name such as Yahoo!."""
    return bool(regex.search(r"\p{Latin}\Z", before)) and bool(regex.match(r"\p{Lo}", after))


def _token_before(text: str, position: int) -> str:
    found = _TOKEN_BEFORE.search(text, 0, position)
    return found.group() if found else ""


def _token_after(text: str) -> str:
    found = _TOKEN_AFTER.match(text)
    return found["word"] if found else ""
