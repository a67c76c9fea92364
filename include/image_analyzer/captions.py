"""How a captioner's answer is read, judged and billed, and what is stored of it. Pure."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from typing import Any, NamedTuple

from pydantic import Field

from image_analyzer.errors import ItemError
from image_analyzer.guardrails import (
    Action,
    Code,
    Violation,
    check_caption,
    count_sentences,
    count_words,
    decide,
    policy_version,
    repair_caption,
)
from image_analyzer.records import CaptionFlags, ContentKey, ErrorCode, Origin, Receipt, Record, Usage

_LONGEST_STORED = 2_000


class CaptionAnswer(Record):
    """What a captioner said.

    Attributes:
        text: The caption; None when refused or incomplete.
        also: Captions in the further languages that were asked for.
        refusal: The model's refusal.
        incomplete: Why the answer stopped early, such as `max_output_tokens`.
        usage: Of all requests this answer took, failed ones included where the server billed them.
        unseen: The bill shows that the picture did not reach the model: whatever it says is invented.
        perhaps_billed: Requests before this answer that may have been worked off although no answer arrived.
        asked: How many answers were asked for, this one included.
        broken: Rules that the answers before this one broke.
    """

    text: str | None = None
    also: dict[str, str | None] = Field(default_factory=dict)
    refusal: str | None = None
    incomplete: str | None = None
    flags: CaptionFlags = CaptionFlags()
    usage: Usage
    unseen: bool = False
    perhaps_billed: int = 0
    asked: int = 1
    broken: tuple[Code, ...] = ()


class Judgement(NamedTuple):
    """What becomes of an answer.

    Attributes:
        caption: What may be published, repaired where that was all that was wrong; empty for a decorative picture; None if
            nothing may.
        violations: What was wrong with the answer as it came; nothing if the model did not see the picture.
    """

    caption: str | None
    violations: tuple[Violation, ...]

    @property
    def codes(self) -> tuple[Code, ...]:
        """Return the codes, each once, in order."""
        return tuple(dict.fromkeys(violation.code for violation in self.violations))

    def asks_again(self, asked: int) -> bool:
        """Tell whether one more answer is asked for: one more, two for the language, none where a picture gives orders."""
        if self.caption is not None or not self.violations or Code.INJECTION in self.codes:
            return False
        return asked <= (2 if Code.WRONG_LANGUAGE in self.codes else 1)


def read_answer(output: str, languages: Sequence[str] = ("",)) -> tuple[list[str | None], CaptionFlags]:
    """Return the captions, in the order of the languages, and the flags out of the model's JSON.

    A caption that is not there is None; so are all if it is no such JSON. Servers that do not know strict schemas may leave
    the flags out.
    """
    try:
        found = json.loads(output)
        captions = found["captions"] if len(languages) > 1 else {languages[0]: found["caption"]}
        texts = [captions.get(language) for language in languages]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return [None] * len(languages), CaptionFlags()
    if not any(isinstance(text, str) for text in texts):
        return [None] * len(languages), CaptionFlags()
    said = {name: value for name, value in found.items() if isinstance(value, bool)}
    reason = found.get("decorative_reason")
    decorative = said.get("is_decorative") and isinstance(reason, str) and reason.strip()
    flags = CaptionFlags(
        decorative_reason=_storable(reason.strip()) if decorative else None,
        contains_person=said.get("contains_person"),
        visible_text=said.get("visible_text"),
        uncertain=said.get("uncertain"),
    )
    return [_encodable(text).strip() if isinstance(text, str) else None for text in texts], flags


def _encodable(text: str) -> str:
    """Return the text without halves of surrogate pairs: they cannot be encoded, what they stood for is lost."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def share_answer(answer: CaptionAnswer, languages: Sequence[str]) -> list[CaptionAnswer]:
    """Return the answer for each language of one request. Shares of tokens and cost add up to the bill.

    The requests themselves are counted with the first.
    """
    texts = [answer.text, *(answer.also.get(language) for language in languages[1:])]
    usages = _share_usage(answer.usage, len(languages))
    return [
        answer.model_copy(update={"text": text, "also": {}, "usage": usage})
        for text, usage in zip(texts, usages, strict=True)
    ]


def _share_usage(usage: Usage, parts: int) -> list[Usage]:
    def tokens(total: int | None, part: int) -> int | None:
        return None if total is None else total // parts + (part < total % parts)

    cost = usage.cost_usd
    each = None if cost is None else round(cost / parts, 8)
    first = None if cost is None or each is None else round(cost - each * (parts - 1), 8)
    return [
        Usage(
            input_tokens=tokens(usage.input_tokens, part),
            output_tokens=tokens(usage.output_tokens, part),
            cost_usd=each if part else first,
            attempts=0 if part else usage.attempts,
            latency_s=usage.latency_s,
        )
        for part in range(parts)
    ]


def add_usage(first: Usage, second: Usage) -> Usage:
    """Return the sum of two usages; tokens unknown on one side stay as known on the other."""

    def add(a: float | None, b: float | None) -> Any:
        return b if a is None else a if b is None else a + b

    cost = add(first.cost_usd, second.cost_usd)
    return Usage(
        input_tokens=add(first.input_tokens, second.input_tokens),
        output_tokens=add(first.output_tokens, second.output_tokens),
        cost_usd=None if cost is None else round(cost, 8),
        attempts=first.attempts + second.attempts,
        latency_s=round(first.latency_s + second.latency_s, 3),
    )


def follow(first: CaptionAnswer, broken: Sequence[Code], second: CaptionAnswer) -> CaptionAnswer:
    """Return the later of two answers to one question, which carries the bill and the faults of both."""
    return second.model_copy(
        update={
            "usage": add_usage(first.usage, second.usage),
            "asked": first.asked + 1,
            "broken": (*first.broken, *broken),
        }
    )


def judge(answer: CaptionAnswer, language: str, hint: str | None = None) -> Judgement:
    """Decide on an answer: first what the server says of it, then a refusal, then repair, then the rules.

    Args:
        hint: The label that was sent along; the caption may not give it away.
    """
    if answer.unseen:
        return Judgement(None, ())
    if answer.refusal is not None:
        return Judgement(None, (Violation(code=Code.REFUSAL, message="the model refused", action=Action.QUARANTINE),))
    if answer.text is None or answer.incomplete:
        why = f"was cut off ({answer.incomplete})" if answer.incomplete else "was not the JSON that was asked for"
        return Judgement(None, (Violation(code=Code.TRUNCATED, message=f"the answer {why}"),))
    if not answer.text and answer.flags.decorative_reason:
        return Judgement("", ())
    hints = (hint,) if hint else ()
    violations = tuple(check_caption(answer.text, language, hints=hints))
    if decide(violations) not in (Action.ACCEPT, Action.REPAIR):
        return Judgement(None, violations)
    repaired = repair_caption(answer.text, language)
    left = tuple(check_caption(repaired, language, hints=hints))
    return Judgement(None if left else repaired, left or violations)


class Payer(NamedTuple):
    """Whose row carries the cost of an answer, and who gave it."""

    origin: Origin
    paid_by_uri: str
    run_id: str


def make_receipt(key: ContentKey, answer: CaptionAnswer, judgement: Judgement, payer: Payer) -> Receipt:
    """Return what is stored of the last answer: a publishable caption, or what was wrong with it."""
    broken = tuple(dict.fromkeys(str(code) for code in (*answer.broken, *judgement.codes)))
    common: dict[str, Any] = {
        "key": key,
        "policy_version": policy_version(key.language),
        "violations": broken,
        "usage": answer.usage,
        **payer._asdict(),
    }
    caption = judgement.caption
    if caption is not None:
        flags = answer.flags if not caption else answer.flags.model_copy(update={"decorative_reason": None})
        counts = {
            "words": count_words(caption, key.language),
            "sentences": count_sentences(caption, key.language),
        }
        return Receipt(caption=caption, flags=flags, **counts, **common)
    if answer.unseen:
        tokens = answer.usage.input_tokens
        message = f"{tokens} input tokens were billed, fewer than a picture takes: the model did not see it"
        return Receipt(caption=None, error_code=ErrorCode.IMAGE_NOT_SEEN, error_message=message, **common)
    refused = Code.REFUSAL in judgement.codes
    rejected = answer.refusal if answer.refusal is not None else answer.text
    return Receipt(
        caption=None,
        rejected_caption=_storable(rejected) if rejected else None,
        error_code=ErrorCode.REFUSED if refused else ErrorCode.CAPTION_REJECTED,
        error_message="; ".join(f"{v.code}: {v.message}" for v in judgement.violations),
        flags=answer.flags,
        **common,
    )


def renew(receipt: Receipt) -> Receipt | None:
    """Judge a stored answer by the policy of today, which may not be the one it was judged by.

    Returns:
        The receipt, checked anew and perhaps published where it was rejected before; None if its caption breaks a rule now
        and is to be asked for again. What a person decided no rule judges.
    """
    if receipt.origin is Origin.PERSON:
        return receipt
    today = policy_version(receipt.key.language)
    text = receipt.caption if receipt.caption is not None else receipt.rejected_caption
    if receipt.policy_version == today:
        return receipt
    renewed = receipt.model_copy(update={"policy_version": today})
    if not text or (receipt.caption is None and not _may_be_forgiven(receipt)):
        return renewed
    broken = tuple(code for code in Code if code in receipt.violations)
    answer = CaptionAnswer(text=text, flags=receipt.flags, usage=receipt.usage, broken=broken)
    judgement = judge(answer, receipt.key.language)
    if judgement.caption is not None:
        return make_receipt(receipt.key, answer, judgement, Payer(receipt.origin, receipt.paid_by_uri, receipt.run_id))
    return None if receipt.caption is not None else renewed


def _may_be_forgiven(receipt: Receipt) -> bool:
    """Tell whether a rejected text can be judged anew by its words alone: not if it was cut, or if it gave away a hint."""
    told = {Code.TRUNCATED, Code.LABEL_LEAK} & set(receipt.violations)
    return receipt.error_code is ErrorCode.CAPTION_REJECTED and not told


def rejected_receipt(key: ContentKey, error: ItemError, first: CaptionAnswer | None, payer: Payer) -> Receipt:
    """Return the receipt of a request that the server will never answer, such as a picture its policy forbids.

    Args:
        first: An answer that was paid for before that.
    """
    asked = Usage(input_tokens=0, output_tokens=0, cost_usd=0.0, attempts=1)
    return Receipt(
        key=key,
        caption=None,
        error_code=ErrorCode(error.code),
        error_message=str(error),
        policy_version=policy_version(key.language),
        usage=add_usage(first.usage, asked) if first else asked,
        **payer._asdict(),
    )


def _storable(text: str) -> str:
    """Return a text that any database takes: what nobody can see becomes visible, and a flood is cut.

    Only texts that are not published come here.
    """
    shown = (
        "\ufffd" if unicodedata.category(character) in ("Cc", "Cs") and character not in "\n\t" else character
        for character in text[:_LONGEST_STORED]
    )
    return "".join(shown)
