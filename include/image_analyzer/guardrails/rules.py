"""The rules of content: each looks at the model's own wording and returns where it is broken."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import regex

from image_analyzer.guardrails.detection import is_language
from image_analyzer.guardrails.names import find_name
from image_analyzer.guardrails.personal import find_personal_data
from image_analyzer.guardrails.policy import Policy
from image_analyzer.guardrails.quotations import find_quotations, mask_quotations
from image_analyzer.guardrails.violations import Action, Code

Span = tuple[int, int]

_COUNTED = regex.compile(r"[\p{L}\p{N}]")
_TYPES = "jpe?g|png|webp|gif|hei[cf]|bmp|tiff?|avif|svg|raw|dng|nef|cr2|jfif|ico|pdf|mp4|mov|psd"
_FILE_NAME = regex.compile(rf"[^\s\"“”«»]*[\w)\]-]\.(?:{_TYPES})(?![\w])", regex.IGNORECASE)
_CAMERA_NAME = regex.compile(
    r"(?:IMG|DSC[NF]?|PXL|MVIMG|DJI|GOPR|VID|SAM|WP|PANO|BURST|CIMG|IMAG|PICT|FB_IMG|DCIM|HPIM|KIMG|P\d{2})[_-]?\d{2,}[\w-]*"
    r"|IMG-\d+-WA\d+"
    r"|(?:screen ?shot|whatsapp image|scan|image|photo|picture|pic|img|file|untitled|figure|slide)[ _-]*\(?\d[\d .:_-]*"
    r"(?: at [\d.: ]+(?:[AP]M)?)?\)?"
    r"|\d{3,}(?:[_-]\w+)*|[0-9a-f]{16,}|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{20,}"
    r"|\w+(?:[-_]\w+)*[-_](?:final|copy|edit(?:ed)?|small|large|thumb|\d+x\d+|v?\d+)",
    regex.IGNORECASE,
)
_LIST_SEPARATOR = regex.compile(r"\s*[,;|/•·،、，；؛]\s*|\s+[-–—]\s+")
# Languages without articles bind a list by its verb.
_PREDICATE = regex.compile(r"(?:다|る|た|です|ます|var|yor|yorlar|[dt][ıiuü]r)\W*\Z|[有是在着放摆]")
_FEWEST_KEYWORDS = 4
_LONGEST_KEYWORD_WORDS = 3
_MEAN_KEYWORD_WORDS = 2.0
_URL = regex.compile(
    r"(?:https?://|ftp://|www\.)\S+|(?<![@\w.-])(?:[a-z0-9-]+\.)+(?:com|org|net|io|ly|co|me|info|biz|gl)/\S+",
    regex.IGNORECASE,
)
# After one of these another clause begins: "a photo of a dog that lies on a rug" is no photo on a rug.
_RELATIVE = regex.compile(
    r"[,;:]|\b(?:who|that|which|where|while|as|qui|que|où|che|dove|quien|donde|die|der|das|wo|waar|dat|som|där|der"
    r"|któr\w+|kter\w+|ktor\w+|koji|koja|koje|ki|котор\w+|як\w+|що|който|която|което|кој\w*)\b",
    regex.IGNORECASE,
)
_SNAKE = regex.compile(r"(?<![\w./@-])\p{L}+(?:_\p{L}+)+(?![\w./@-])")
_WNID = regex.compile(r"(?<!\w)n\d{8}(?!\w)")
_SCORE_IN_BRACKETS = regex.compile(
    r"[(\[][^()\[\]]*(?<![\d$€£])0?[.,]\d{2,}(?!\d*\s?(?:%|\p{L}))[^()\[\]]*[)\]]"
    r"|[(\[]\s*\p{L}+(?: \p{L}+)*,?\s+\d{1,3}(?:[.,]\d+)?\s?%\s*[)\]]"
)
_TERMINATOR_AT_END = regex.compile(r"[.!?…。！？।։።។။۔؟]+[\"'”’»“)\]」』》]*\s*\Z")
_LAST_WORD = regex.compile(r"([\p{L}\p{M}’']+)\W*\Z")
_CUT_AT_END = regex.compile(r"[,;:،、，；：&+/(–—-]\s*\Z")


class Wording(NamedTuple):
    """A caption in its plain form.

    Attributes:
        text: NFC, without what `repair_caption` takes off.
        outside: The same with quotations blanked, of equal length: the model's own wording.
        original: As the model wrote it.
        hints: Labels that were sent along.
    """

    text: str
    outside: str
    original: str
    rules: Policy
    language: str
    hints: Sequence[str]


class Rule(NamedTuple):
    """One rule of content."""

    code: Code
    message: str
    find: Callable[[Wording], Span | None]
    action: Action = Action.REASK


def is_file_name(text: str) -> bool:
    """Tell whether the whole caption is the name of a file or of a camera's picture."""
    bare = text.strip().rstrip(".")
    name = regex.fullmatch(rf"[^\n]{{1,120}}\.(?:{_TYPES})", bare, regex.IGNORECASE)
    return bool(name and len(bare.split()) <= 6) or bool(_CAMERA_NAME.fullmatch(bare))


def is_uninformative(wording: Wording) -> bool:
    """Tell whether the caption is a placeholder or one generic word."""
    bare = regex.sub(r"[^\p{L}\p{M}\p{N}/ ]+", " ", wording.text).strip().lower()
    bare = regex.sub(r"\s+", " ", bare)
    return bare in wording.rules.uninformative or bool(regex.fullmatch(r"(\p{L})\1*|(?:lorem ipsum.*)|x+|\?+", bare))


def is_truncated(wording: Wording) -> bool:
    """Tell whether the sentence breaks off: after a comma, an article, a conjunction, inside a quotation."""
    text = wording.text.rstrip()
    if any(not span.closed and text[span.start] not in "'’‘\"" for span in find_quotations(text)) or _odd_quotes(text):
        return True
    if _CUT_AT_END.search(text) and text[-1] not in wording.rules.terminators:
        return True
    last = _LAST_WORD.search(wording.outside.rstrip())
    if last is None or last.end(1) < len(text) - 4:
        return False
    word = last[1] if last.start() else last[1].lower()
    if word not in wording.rules.functions:
        return False
    ended = bool(_TERMINATOR_AT_END.search(text)) and not text.endswith(("...", "…"))
    return not ((ended or wording.rules.verb_final) and word in wording.rules.may_close)


def _odd_quotes(text: str) -> bool:
    marks = [s for s in find_quotations(text) if not s.closed and text[s.start] == '"']
    return bool(marks) and not regex.search(r'\d"', text)


def find_list(wording: Wording) -> Span | None:
    """Find a list of keywords: short pieces between commas without a word that binds them, or one word over and over."""
    bare = _TERMINATOR_AT_END.sub("", wording.outside).strip()
    pieces = [piece.strip() for piece in _LIST_SEPARATOR.split(bare.lower()) if piece.strip()]
    words = regex.findall(r"[\p{L}\p{M}\p{N}'’-]+", bare.lower())
    whole = (0, len(wording.text))
    if _is_variations(pieces):
        return whole
    if _PREDICATE.search(bare) or any(word in wording.rules.functions for word in words):
        return None
    return whole if _is_enumeration(pieces) or _is_repetition(words) else None


def _is_variations(pieces: Sequence[str]) -> bool:
    """Tell whether most pieces say the same word: "red car, fast car, old car, car sale"."""
    common = Counter(word for piece in pieces for word in set(piece.split()) if len(word) > 2)
    longest = max((len(piece.split()) for piece in pieces), default=0)
    return max(common.values(), default=0) >= _FEWEST_KEYWORDS and longest <= _LONGEST_KEYWORD_WORDS + 1


def _is_enumeration(pieces: Sequence[str]) -> bool:
    """Tell whether there are only short pieces; where words are not spaced, by their letters."""
    lengths = [len(piece.split()) for piece in pieces]
    if len(pieces) < _FEWEST_KEYWORDS or max(lengths) > _LONGEST_KEYWORD_WORDS:
        return False
    unspaced = any(regex.search(r"\p{Han}|\p{Thai}", piece) for piece in pieces)
    return sum(lengths) <= _MEAN_KEYWORD_WORDS * len(lengths) and not (unspaced and max(map(len, pieces)) > 6)


def _is_repetition(words: Sequence[str]) -> bool:
    """Tell whether one word is a quarter of them, three times at least."""
    repeated = max(Counter(word for word in words if len(word) > 2).values(), default=0)
    return repeated >= 3 and repeated * 4 >= len(words)


def _find_file_name(wording: Wording) -> Span | None:
    return _span(_FILE_NAME.search(wording.outside))


def _find_first_person(wording: Wording) -> Span | None:
    return _first(wording.outside, wording.rules.first_person)


def find_prefix(wording: Wording) -> Span | None:
    """Find "image of", unless the sentence says where that image is: then it is a thing in the picture."""
    match = wording.rules.prefixes.match(wording.text) or wording.rules.suffixes.search(wording.text)
    if match is None:
        return None
    rest = wording.outside[match.end() :].strip(" .。")
    placed = wording.rules.placed.search(wording.outside, match.end() if rest else 0)
    is_thing = placed and not _RELATIVE.search(wording.outside, match.end(), placed.start())
    return None if is_thing else match.span()


def _find_label(wording: Wording) -> Span | None:
    found = _first(wording.outside, (wording.rules.labels, _SNAKE, _WNID, _SCORE_IN_BRACKETS))
    if found:
        return found
    bare = _TERMINATOR_AT_END.sub("", wording.text).strip().casefold()
    for hint in wording.hints:
        plain = hint.strip().replace("_", " ").casefold()
        if not plain:
            continue
        if bare == plain or (
            len(hint) > 2 and regex.search(r"[_,]", hint) and hint.casefold() in wording.text.casefold()
        ):
            return (0, len(wording.text))
        if match := regex.search(rf"[(\[]\s*{regex.escape(plain)}\s*[)\]]", wording.outside, regex.IGNORECASE):
            return match.span()
    return None


def _first(text: str, patterns: Sequence[regex.Pattern[str]]) -> Span | None:
    return next((match.span() for pattern in patterns if (match := pattern.search(text))), None)


def _span(match: regex.Match[str] | None) -> Span | None:
    return match.span() if match else None


def _find_people(name: str) -> Callable[[Wording], Span | None]:
    """Return a search that passes over proper names: the Old Man of Storr is a rock."""

    def find(wording: Wording) -> Span | None:
        patterns: tuple[regex.Pattern[str], ...] = getattr(wording.rules, name)
        for pattern in patterns:
            for match in pattern.finditer(wording.outside):
                noun_last = wording.rules.adjectives_first and not wording.rules.capital_nouns and " " in match.group()
                named = match.group().split()[-1][:1].isupper() and match.start() > 0
                if not noun_last or not named or wording.outside.isupper():
                    return match.span()
        return None

    return find


def _pattern(name: str) -> Callable[[Wording], Span | None]:
    def find(wording: Wording) -> Span | None:
        pattern: regex.Pattern[str] = getattr(wording.rules, name)
        return _span(pattern.search(wording.outside))

    return find


def _find_injection(wording: Wording) -> Span | None:
    """Search what is published and what `repair_caption` would take off, such as a comment of HTML."""
    found = wording.rules.injections.search(wording.outside)
    if found:
        return found.span()
    dropped = wording.rules.injections.search(mask_quotations(wording.original))
    return (0, len(wording.text)) if dropped else None


RULES = (
    Rule(Code.REFUSAL, "the model refuses or apologises", _pattern("refusals"), Action.QUARANTINE),
    Rule(Code.INJECTION, "the text gives instructions to a program", _find_injection, Action.QUARANTINE),
    Rule(Code.WRONG_LANGUAGE, "the caption is not written in the asked language",
         lambda w: None if is_language(w.outside, w.language) else (0, len(w.text))),
    Rule(Code.FILENAME, "the caption has a file name", _find_file_name),
    Rule(Code.KEYWORD_STUFFING, "the caption is a list of keywords", find_list),
    Rule(Code.FIRST_PERSON, "the writer speaks of itself", _find_first_person),
    Rule(Code.HEDGE, "the caption guesses", _pattern("hedges")),
    Rule(Code.URL, "the caption has a web address", lambda w: _span(_URL.search(w.outside))),
    Rule(Code.IDENTITY, "the caption says who somebody is", lambda w: find_name(w.outside, w.rules)),
    Rule(Code.AGE, "the caption says how old somebody is", _find_people("ages")),
    Rule(Code.PRIVATE_ATTRIBUTE, "the caption says something private of somebody", _find_people("private_attributes")),
    Rule(Code.PII, "the caption holds personal data", lambda w: find_personal_data(w.text)),
    Rule(Code.LABEL_LEAK, "the caption speaks of a label or a score", _find_label),
)  # fmt: skip


def find_all(wording: Wording) -> Iterator[tuple[Rule, Span]]:
    """Return every broken rule of content and where. That a refusal speaks of itself goes without saying."""
    refused = False
    for rule in RULES:
        span = None if refused and rule.code in (Code.FIRST_PERSON, Code.HEDGE) else rule.find(wording)
        if span is not None:
            refused |= rule.action is Action.QUARANTINE
            yield rule, span


def has_content(text: str) -> bool:
    """Tell whether a text has a letter or a digit."""
    return _COUNTED.search(text) is not None
