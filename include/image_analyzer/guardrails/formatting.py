"""The form of a caption: plain text, on one line, nothing around it. Each step finds one fault and mends it."""

from __future__ import annotations

import html
import json
import unicodedata
from collections.abc import Callable
from typing import NamedTuple

import regex

from image_analyzer.guardrails.policy import Policy
from image_analyzer.guardrails.quotations import mask_quotations, wrapped_inside
from image_analyzer.guardrails.violations import Code

# Persian and the Indic scripts need the joiners, Khmer and its like the zero-width space, between letters only.
_JOINED = (
    r"\p{Arabic}\p{Syriac}\p{Devanagari}\p{Bengali}\p{Gurmukhi}\p{Gujarati}\p{Oriya}\p{Tamil}\p{Telugu}\p{Kannada}"
    r"\p{Malayalam}\p{Sinhala}\p{M}"
)
_UNSPACED = r"[\p{Khmer}\p{Myanmar}\p{Lao}\p{Thai}]"
_JOINER = regex.compile(
    rf"(?<=[{_JOINED}])[\u200c\u200d](?=[\p{{L}}\p{{M}}\s]|\Z)|(?<={_UNSPACED})\u200b(?={_UNSPACED})"
    r"|(?<=\p{Extended_Pictographic}\ufe0f?)\u200d(?=\p{Extended_Pictographic})"
)
_DIRECTION_MARK = regex.compile(r"[\u200e\u200f\u061c]")
_RIGHT_TO_LEFT = regex.compile(r"[\p{Hebrew}\p{Arabic}]")
_CONTROL = regex.compile(r"(?![\n\r\t\v\f\x85\u2028\u2029])[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Cn}\ufffd\ufff9-\ufffb]")
_LINE_BREAK = regex.compile(r"[ \t]*(?:\r\n|[\n\r\v\f\x85\u2028\u2029])\s*")
_EMOJI = regex.compile(
    r"(?:[\p{Emoji_Presentation}\p{Regional_Indicator}]|(?![©®™‼⁉〰〽㊗㊙ℹ↔-↪])[\p{Extended_Pictographic}]|\p{Extended_Pictographic}\ufe0f|[#*0-9]\ufe0f?\u20e3)"
    r"(?:[\ufe0e\ufe0f\u200d\u20e3\p{Emoji_Modifier}\U000e0020-\U000e007f]|\p{Extended_Pictographic})*"
    r"|(?<!\S)(?::-?[)(DPp*]|;-?\)|<3|\^_\^|:'\()(?!\S)"
)
_TAGS = (
    "a|abbr|alt|answer|article|b|big|blockquote|body|br|button|caption|center|code|dd|description|div|dl|dt|em|embed|"
    "figcaption|figure|font|footer|form|h[1-6]|head|header|hr|html|i|iframe|img|input|ins|label|li|link|main|mark|meta|"
    "nav|object|ol|option|output|p|pre|q|response|s|script|section|select|sentence|small|span|strike|strong|style|sub|"
    "summary|sup|svg|table|tbody|td|text|th|thead|title|tr|tt|u|ul|video"
)
_HTML = regex.compile(rf"</?(?:{_TAGS})(?:\s[^<>]*)?/?>|<!--.*?-->|<!doctype[^>]*>", regex.IGNORECASE | regex.DOTALL)
_ENTITY = regex.compile(r"&(?:[a-zA-Z]{2,8}|#\d{1,6}|#x[0-9a-fA-F]{1,6});")
_FENCE = regex.compile(r"\A\s*```[\w-]*[ \t]*\n?|\n?[ \t]*```\s*\Z")
_MARKDOWN = [
    (regex.compile(r"(?m)^\s*#{1,6}[ \t]+"), ""),
    (regex.compile(r"(?m)^\s*>[ \t]+"), ""),
    (regex.compile(r"(?m)^[ \t]*[-*•·▪][ \t]+"), ""),
    (regex.compile(r"(\*\*\*|\*\*|__|~~)(?=\S)(.+?)(?<=\S)\1"), r"\2"),
    (regex.compile(r"(?<![\w*])([*_])(?=[^\s*_])([^*_\n]*?[^\s*_])\1(?![\w*])"), r"\2"),
    (regex.compile(r"!?\[([^\]\n]*)\]\([^)\s]*\)"), r"\1"),
    (regex.compile(r"(?<![\p{L}\p{N}])`+([^`]*)`+(?!\p{L})"), r"\1"),
]
_NUMBERED = regex.compile(r"(?m)^[ \t]*\d{1,2}[.)][ \t]+")
_HASHTAG = regex.compile(r"(?<![\w&#])[#＃](?=[\p{L}_])[\p{L}\p{M}\p{N}_]+")
_EDGE_OR_DOUBLE = regex.compile(
    r"\A\s+|\s+\Z|\t|[ \u00a0]{2,}|[\u2000-\u2008\u200a\u205f\u1680]|(?<![\p{Han}\p{Hiragana}\p{Katakana}。、！？])\u3000"
)
_BEFORE_MARK = regex.compile(r"(?<=\S)[ \u00a0]+(?=[,.;:!?،؛؟۔](?:[\s\"'”’»)\]]|\Z))")
_BEFORE_MARK_FRENCH = regex.compile(r"(?<=\S)[ \u00a0]+(?=[,.](?:[\s\"'”’)\]]|\Z))")


class Step(NamedTuple):
    """One rule of form.

    Attributes:
        find: Returns where the fault is, None if there is none.
        fix: Returns the text without it.
        unless: Tells that it cannot be mended without harm.
    """

    code: Code
    message: str
    find: Callable[[str, Policy], tuple[int, int] | None]
    fix: Callable[[str, Policy], str]
    unless: Callable[[str, Policy], bool] = lambda _text, _policy: False


def _outside(text: str) -> str:
    """Return the text with quotations replaced by a letter-like filler, so that offsets stay and no gap appears."""
    return mask_quotations(text, filler="\ue000")


def _span(match: regex.Match[str] | None) -> tuple[int, int] | None:
    return match.span() if match else None


def _first_control(text: str, _: Policy) -> tuple[int, int] | None:
    for match in _CONTROL.finditer(text):
        if _JOINER.match(text, match.start()) or (_in_emoji(text, match.start())):
            continue
        if _DIRECTION_MARK.match(match.group()) and _RIGHT_TO_LEFT.search(text):
            continue
        return match.span()
    return None


def _in_emoji(text: str, position: int) -> bool:
    return any(match.start() < position < match.end() for match in _EMOJI.finditer(text))


def _drop_controls(text: str, rules: Policy) -> str:
    while span := _first_control(text, rules):
        text = text[: span[0]] + text[span[1] :]
    return text


def _lost_characters(text: str, _: Policy) -> bool:
    """Tell whether something stood there that nobody can bring back."""
    return regex.search(r"[\ufffd\p{Cs}\p{Co}\p{Cn}]", text) is not None


def _json_caption(text: str) -> str | None:
    """Return the one caption that a JSON text holds."""
    stripped = _FENCE.sub("", text.strip())
    try:
        value = json.loads(stripped, strict=False)
    except (ValueError, RecursionError):
        return None
    for _ in range(3):
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        elif isinstance(value, dict):
            texts = [v for v in value.values() if isinstance(v, str | dict | list)]
            named = [
                v for k, v in value.items() if regex.search("alt|caption|text|description|sentence", str(k), regex.I)
            ]
            value = named[0] if len(named) == 1 else texts[0] if len(texts) == 1 else None
    return value if isinstance(value, str) and value.strip() else None


def _find_json(text: str, _: Policy) -> tuple[int, int] | None:
    stripped = _FENCE.sub("", text.strip())
    looks = regex.match(r"""[\[{]\s*(?:["'{\[]|[}\]]\Z)""", stripped) or regex.search(
        r"""["']\w+["']\s*:\s*["'\[{]""", stripped
    )
    return (0, len(text)) if looks else None


def _find_html(text: str, _: Policy) -> tuple[int, int] | None:
    outside = _outside(text) if not _HTML.match(text.strip()) else text
    entity = next((match for match in _ENTITY.finditer(outside) if html.unescape(match.group()) != match.group()), None)
    return _span(_HTML.search(outside) or entity)


def _fix_html(text: str, _: Policy) -> str:
    return regex.sub(r"[ \t]{2,}", " ", html.unescape(_HTML.sub(" ", text))).strip()


def _find_fence(text: str, _: Policy) -> tuple[int, int] | None:
    return _span(_FENCE.search(text))


def _drop_fence(text: str, _: Policy) -> str:
    return _FENCE.sub("", _FENCE.sub("", text)).strip()


def _find_markdown(text: str, rules: Policy) -> tuple[int, int] | None:
    outside = _outside(text)
    for pattern, _ in _MARKDOWN:
        if match := pattern.search(outside if "[" not in pattern.pattern[:4] else text):
            return match.span()
    numbers = list(_NUMBERED.finditer(outside))
    listed = len(numbers) > 1 or (numbers and numbers[0].start() == 0 and not rules.ordinals)
    return numbers[0].span() if listed else None


def _fix_markdown(text: str, rules: Policy) -> str:
    fixed = text
    for pattern, replacement in _MARKDOWN:
        fixed = pattern.sub(replacement, fixed)
    if _find_markdown(fixed, rules):
        fixed = _NUMBERED.sub("", fixed)
    return fixed.strip()


def _find_emoji(text: str, _: Policy) -> tuple[int, int] | None:
    return _span(_EMOJI.search(_outside(text)))


def _cut(pattern: regex.Pattern[str], text: str) -> str:
    """Cut every match outside quotations, and one of the two spaces around it."""
    for match in reversed(list(pattern.finditer(_outside(text)))):
        before, after = text[: match.start()], text[match.end() :]
        glue = " " if before[-1:].isspace() and after[:1].isspace() else ""
        text = (before.rstrip() + glue + after.lstrip()) if glue else before + after
    return text.strip()


def _fix_hashtags(text: str, _: Policy) -> str:
    """Cut the tags that trail after the sentence; within it drop their sign only, since they are words of it."""
    trailing = regex.sub(r"(?<=[.!?。！？।]\s*)(?:\s*[#＃][\p{L}\p{M}\p{N}_]+)+\s*\Z", "", text)
    for match in reversed(list(_HASHTAG.finditer(_outside(trailing)))):
        trailing = trailing[: match.start()] + trailing[match.start() + 1 :]
    return trailing


def _find_whitespace(text: str, rules: Policy) -> tuple[int, int] | None:
    if match := _EDGE_OR_DOUBLE.search(text):
        return match.span()
    pattern = _BEFORE_MARK_FRENCH if rules.code == "fr" else _BEFORE_MARK
    return _span(pattern.search(_outside(text)))


def _fix_whitespace(text: str, rules: Policy) -> str:
    fixed = regex.sub(r"[\t \u2000-\u2008\u200a\u205f\u1680\u3000]+|[ \u00a0]{2,}", _one_space, text).strip()
    pattern = _BEFORE_MARK_FRENCH if rules.code == "fr" else _BEFORE_MARK
    for match in reversed(list(pattern.finditer(_outside(fixed)))):
        fixed = fixed[: match.start()] + fixed[match.end() :]
    return fixed


def _one_space(match: regex.Match[str]) -> str:
    return "\u3000" if match.group() == "\u3000" else " "


def _strip_chatter(text: str, rules: Policy) -> str:
    for _ in range(3):
        begun = rules.chatter_start.sub("", text, count=1)
        shorter = rules.chatter_end.sub("", begun, count=1).strip()
        if shorter == text:
            break
        text = shorter[:1].upper() + shorter[1:] if begun != text else shorter
    return text


def _find_chatter(text: str, rules: Policy) -> tuple[int, int] | None:
    return _span(rules.chatter_start.match(text) or rules.chatter_end.search(_outside(text)))


def _find_wrapping(text: str, _: Policy) -> tuple[int, int] | None:
    return (0, len(text)) if wrapped_inside(text) is not None else None


def _find_denormalised(text: str, _: Policy) -> tuple[int, int] | None:
    return None if unicodedata.is_normalized("NFC", text) else (0, len(text))


def _normalise(text: str, _: Policy) -> str:
    return unicodedata.normalize("NFC", text)


def _unwrap_json(text: str, _: Policy) -> str:
    return (_json_caption(text) or text).strip()


def _is_stuck_json(text: str, _: Policy) -> bool:
    return _json_caption(text) is None


def _find_line_break(text: str, _: Policy) -> tuple[int, int] | None:
    return _span(_LINE_BREAK.search(text.strip(" \t")))


def _join_lines(text: str, _: Policy) -> str:
    return _LINE_BREAK.sub(" ", text.strip())


def _keep(text: str, _: Policy) -> str:
    return text


def _is_chatter_only(text: str, rules: Policy) -> bool:
    return not _strip_chatter(text, rules)


def _find_hashtag(text: str, _: Policy) -> tuple[int, int] | None:
    return _span(_HASHTAG.search(_outside(text)))


def _drop_emoji(text: str, _: Policy) -> str:
    return _cut(_EMOJI, text)


def _unwrap_quotes(text: str, _: Policy) -> str:
    return wrapped_inside(text) or text


# In this order each step sees what the ones before it left. Line breaks are seen first and joined last: a preamble or a
# fence of Markdown goes with its line.
STEPS = (
    Step(Code.NOT_NFC, "the text is not in Unicode's form NFC", _find_denormalised, _normalise),
    Step(Code.CONTROL_CHARS, "the text has invisible characters", _first_control, _drop_controls, _lost_characters),
    Step(Code.NEWLINE, "the text has a line break", _find_line_break, _keep),
    Step(Code.MARKDOWN, "the text has Markdown marks", _find_fence, _drop_fence),
    Step(Code.JSON, "the text is JSON", _find_json, _unwrap_json, _is_stuck_json),
    Step(Code.MARKDOWN, "the text has Markdown marks", _find_markdown, _fix_markdown),
    Step(Code.HTML, "the text has HTML", _find_html, _fix_html),
    Step(Code.CHATTER, "words to the reader stand around the caption", _find_chatter, _strip_chatter, _is_chatter_only),
    Step(Code.EMOJI, "the text has emoji", _find_emoji, _drop_emoji),
    Step(Code.HASHTAG, "the text has hashtags", _find_hashtag, _fix_hashtags),
    Step(Code.WRAPPING_QUOTES, "the whole caption stands in quotation marks", _find_wrapping, _unwrap_quotes),
    Step(Code.NEWLINE, "the text has a line break", _find_line_break, _join_lines),
    Step(Code.WHITESPACE, "the spaces are wrong", _find_whitespace, _fix_whitespace),
)
