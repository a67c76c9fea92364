"""The caption contract: exactly one plain sentence of at most 25 words in the asked language, that names nobody.

`check_caption` says what is wrong with a text, `repair_caption` mends what can be mended without changing what is said,
`decide` says what becomes of it. Wording inside quotation marks is text seen in the picture: the rules of wording do
not look there.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import regex

from image_analyzer.guardrails.formatting import STEPS
from image_analyzer.guardrails.policy import Policy, policy
from image_analyzer.guardrails.quotations import mask_quotations
from image_analyzer.guardrails.rules import (
    Wording,
    find_all,
    find_prefix,
    has_content,
    is_file_name,
    is_truncated,
    is_uninformative,
)
from image_analyzer.guardrails.sentences import count_sentences
from image_analyzer.guardrails.violations import Action, Code, Violation, decide
from image_analyzer.guardrails.words import count_words
from image_analyzer.languages import language as find_language

__all__ = [
    "MAX_WORDS",
    "Action",
    "Code",
    "Violation",
    "check_caption",
    "count_sentences",
    "count_words",
    "decide",
    "policy_version",
    "repair_caption",
]

MAX_WORDS = 25
# No sentence of 25 words comes near it; beyond, looking closer would only cost time.
_LONGEST_CHECKED = 2_000
_CLOSING_MARKS = r"[\"'”’»“«)\]」』》）]*"


def check_caption(text: str, language: str, *, hints: Sequence[str] = ()) -> list[Violation]:
    """Return the broken rules, none if the caption may be published.

    What can be taken off without harm, such as a preamble or Markdown, is named; the rules of content look at the rest.

    Args:
        language: BCP 47 code of a supported language.
        hints: Labels that were sent to the model, as they were sent.

    Raises:
        ValueError: The language is not supported.
    """
    find_language(language)
    if not has_content(text):
        return [Violation(code=Code.EMPTY, message="the caption is empty", span=(0, len(text)))]
    if len(text) > _LONGEST_CHECKED:
        message = f"the caption has {len(text)} characters"
        return [Violation(code=Code.TOO_LONG, message=message, span=(0, len(text)))]
    rules = policy(language)
    found: list[Violation] = []
    core, original = text, unicodedata.normalize("NFC", text)
    for step in STEPS:
        span = step.find(core, rules)
        if span is not None:
            stuck = step.unless(core, rules)
            action = Action.REASK if stuck else Action.REPAIR
            if step.code not in {violation.code for violation in found}:
                where = _locate(original, core, span)
                found.append(Violation(code=step.code, message=step.message, span=where, action=action))
            core = core if stuck else step.fix(core, rules)
    if not has_content(core):
        return [*found, Violation(code=Code.EMPTY, message="nothing is left of the caption", span=(0, len(original)))]
    return found + _check_content(core, original, language, rules, hints)


def _check_content(core: str, original: str, language: str, rules: Policy, hints: Sequence[str]) -> list[Violation]:
    whole = (0, len(original))
    if is_file_name(core):
        return [Violation(code=Code.FILENAME, message="the caption is a file name", span=whole)]
    outside = mask_quotations(core)
    wording = Wording(core, outside, original, rules, language, hints)
    found: list[Violation] = []
    if is_uninformative(wording):
        found.append(Violation(code=Code.UNINFORMATIVE, message="the caption says nothing of the picture", span=whole))
    else:
        found += [
            Violation(code=rule.code, message=rule.message, span=_locate(original, core, span), action=rule.action)
            for rule, span in find_all(wording)
        ]
        found += _check_prefix(wording, original)
    sentences, words = count_sentences(core, language), count_words(core, language)
    if sentences > 1:
        message = f"the caption has {sentences} sentences instead of one"
        found.append(Violation(code=Code.MULTI_SENTENCE, message=message, span=whole))
    if words > MAX_WORDS:
        message = f"the caption has {words} words instead of at most {MAX_WORDS}"
        found.append(Violation(code=Code.TOO_LONG, message=message, span=whole))
    truncated = is_truncated(wording) and not any(v.code is Code.UNINFORMATIVE for v in found)
    if truncated:
        found.append(Violation(code=Code.TRUNCATED, message="the sentence breaks off", span=whole))
    if not _has_terminal(core, rules):
        action = Action.REASK if truncated else Action.REPAIR
        message = "the sentence does not end with its full stop"
        found.append(Violation(code=Code.NO_TERMINAL, message=message, span=whole, action=action))
    return found


def _check_prefix(wording: Wording, original: str) -> list[Violation]:
    span = find_prefix(wording)
    if span is None:
        return []
    action = Action.REPAIR if _without_prefix(wording.text, wording.rules) else Action.REASK
    message = "the caption begins with words such as “image of”"
    where = _locate(original, wording.text, span)
    return [Violation(code=Code.REDUNDANT_PREFIX, message=message, span=where, action=action)]


def _has_terminal(core: str, rules: Policy) -> bool:
    if not rules.terminators:
        return True
    return regex.search(rf"[{regex.escape(rules.terminators)}]{_CLOSING_MARKS}\s*\Z", core) is not None


def _without_prefix(text: str, rules: Policy) -> str | None:
    """Return the caption without its prefix, with a capital; None where that leaves no sound sentence."""
    if not rules.prefix_repair:
        return None
    match = rules.prefixes.match(text)
    if match:
        rest = text[match.end() :].lstrip()
        sound = bool(rest) and rest[:1].isalpha()
        return rest[:1].upper() + rest[1:] if sound else None
    if match := rules.suffixes.search(text):
        return text[: match.start()] + (match["end"] or rules.terminators[:1])
    return None


def _locate(original: str, core: str, span: tuple[int, int]) -> tuple[int, int]:
    """Return where a span of the plain form lies in the original; the whole of it if that cannot be told."""
    if core == original:
        return span
    start = original.find(core[slice(*span)])
    return (start, start + span[1] - span[0]) if start >= 0 and span[1] > span[0] else (0, len(original))


def repair_caption(text: str, language: str) -> str:
    """Return the caption with everything mended that can be without a change of what it says. No word is cut.

    Wrapping quotation marks, Markdown, HTML, JSON around one caption, preambles, "image of" where the grammar allows it,
    emoji, control characters, spaces, line breaks, Unicode form and the full stop. What is still wrong is asked anew.

    Raises:
        ValueError: The language is not supported.
    """
    find_language(language)
    if len(text) > _LONGEST_CHECKED:
        return text
    rules = policy(language)
    before = {violation.code for violation in check_caption(text, language)}
    for _ in range(4):
        repaired = _repair_once(text, rules)
        if repaired == text:
            break
        after = {violation.code for violation in check_caption(repaired, language)}
        if not after <= before:
            break
        text, before = repaired, after
    return text


def _repair_once(text: str, rules: Policy) -> str:
    core = text
    for step in STEPS:
        if step.find(core, rules) is not None and not step.unless(core, rules):
            fixed = step.fix(core, rules)
            core = fixed if has_content(fixed) else core
    if not has_content(core) or is_file_name(core):
        return core
    outside = mask_quotations(core)
    wording = Wording(core, outside, text, rules, rules.code, ())
    if is_uninformative(wording):
        return core
    if find_prefix(wording):
        core = _without_prefix(core, rules) or core
    if not _has_terminal(core, rules) and not is_truncated(wording):
        core = core.rstrip() + rules.terminators[:1]
    return core


def policy_version(language: str) -> str:
    """Return the version of the wording policy of a language, which is stored with every caption it let pass."""
    return policy(language).version
