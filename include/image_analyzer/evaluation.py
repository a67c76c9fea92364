"""Measures the caption contract on a folder of judged answers: what it found, missed and refused without cause. Pure."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from markupsafe import Markup

from image_analyzer.errors import ConfigurationError
from image_analyzer.guardrails import (
    Action,
    Code,
    check_caption,
    count_sentences,
    count_words,
    decide,
    policy_version,
    repair_caption,
)
from image_analyzer.jsonl import load_lines
from image_analyzer.pages import load_template
from image_analyzer.records import Record, Status
from image_analyzer.table import ResultRow


class Case(Record):
    """One answer of a model, and what is expected of the contract.

    Attributes:
        sentences, words, words_range: Expected counts; None where people differ.
        violations: Codes that must be found.
        also_allowed: Codes that may be found.
        repaired: What `repair_caption` must return; None if nothing is expected.
        tier: Kind of evidence that the rule needs: `rule`, `lexicon` or `judge`.
        subtype: What kind of personal thing is named, such as `plate`; for readers.
        known_gap: Why it is misjudged for now.
    """

    id: str
    text: str
    language: str
    sentences: int | None = None
    words: int | None = None
    words_range: tuple[int, int] | None = None
    violations: tuple[Code, ...] = ()
    action: Action = Action.ACCEPT
    tier: str = "rule"
    subtype: str = ""
    repaired: str | None = None
    also_allowed: tuple[Code, ...] = ()
    text_language: str | None = None
    note: str = ""
    known_gap: str = ""


class Verdict(Record):
    """What the contract said of one case.

    Attributes:
        problems: Where that differs from what was expected.
    """

    case: Case
    codes: tuple[Code, ...]
    action: Action
    problems: tuple[str, ...]


class Score(Record):
    """How often a word was expected, rightly found, missed, and found without cause."""

    name: str
    expected: int
    found: int
    missed: int
    false_alarms: int

    @property
    def share(self) -> float:
        """Return the share of the expected that was found, 1 if none was expected."""
        return self.found / self.expected if self.expected else 1.0


class LiveScore(Record):
    """What a live captioner's answers came to.

    Attributes:
        accepted: Captions that were published, after repair or a re-ask where that was needed.
        at_once: Those whose first answer broke no rule.
    """

    model: str
    captions: int
    accepted: int
    at_once: int
    requests: int
    cost_usd: float
    violations: dict[str, int]


class Gate(Record):
    """What golden captions came to beside the champion's.

    Attributes:
        source: Who answered, and when.
        new, champion: Figures by name; None where there is no champion yet.
        problems: What is worse beyond the margins, or cannot be told; none: it may pass.
    """

    source: str
    new: dict[str, str | int | float]
    champion: dict[str, str | int | float] | None
    problems: tuple[str, ...]


class Evaluation(Record):
    """The figures of one evaluation.

    Attributes:
        languages, tiers: Cases and how many were judged as expected.
        confusion: Rows: what is to be done; columns: what the contract does.
        captions_per_second: On one core, check and decision.
        policies: Version of the policy by language.
    """

    cases: int
    right: int
    known_gaps: int
    refused_without_cause: int
    passed_without_cause: int
    languages: tuple[Score, ...]
    tiers: tuple[Score, ...]
    codes: tuple[Score, ...]
    confusion: dict[str, dict[str, int]]
    captions_per_second: float
    policies: dict[str, str]
    wrong: tuple[Verdict, ...]
    live: LiveScore | None = None
    gate: Gate | None = None

    @property
    def regressions(self) -> tuple[Verdict, ...]:
        """Return the cases that are misjudged and are no known gap."""
        return tuple(verdict for verdict in self.wrong if not verdict.case.known_gap)

    def metrics(self) -> dict[str, float]:
        """Return the figures by flat names, as an experiment tracker takes them."""
        named = {"right_share": self.right / self.cases, "captions_per_second": self.captions_per_second}
        named |= {
            "refused_without_cause": self.refused_without_cause,
            "passed_without_cause": self.passed_without_cause,
        }
        named |= {f"code_{score.name}_recall": score.share for score in self.codes}
        return named | {f"language_{score.name}_right": score.share for score in self.languages}


def read_cases(folder: Path) -> list[Case]:
    """Read every `*.jsonl` of a folder, in order of their names.

    Raises:
        ConfigurationError: There is none, or a line is no case.
    """
    paths = sorted(folder.glob("*.jsonl"))
    try:
        cases = [case for path in paths for case in load_lines(path.read_bytes(), Case)]
    except ValueError as error:
        raise ConfigurationError(f"{folder} holds a line that is no case: {error}") from None
    if not cases:
        raise ConfigurationError(f"{folder} holds no cases: *.jsonl, an object with id, text and language a line")
    return cases


def judge_case(case: Case) -> Verdict:
    """Run one case through the contract."""
    found = check_caption(case.text, case.language)
    codes, action = tuple(dict.fromkeys(violation.code for violation in found)), decide(found)
    sentences, words = count_sentences(case.text, case.language), count_words(case.text, case.language)
    problems = [f"{code} not found" for code in case.violations if code not in codes]
    problems += [f"{code} found" for code in codes if code not in (*case.violations, *case.also_allowed)]
    if action != case.action:
        problems.append(f"{action} instead of {case.action}")
    if case.sentences is not None and sentences != case.sentences:
        problems.append(f"{sentences} sentences instead of {case.sentences}")
    least, most = case.words_range or (case.words, case.words)
    if least is not None and most is not None and not least <= words <= most:
        problems.append(f"{words} words instead of {least if least == most else f'{least} to {most}'}")
    if case.repaired is not None and (repaired := repair_caption(case.text, case.language)) != case.repaired:
        problems.append(f"repaired to {repaired!r}")
    return Verdict(case=case, codes=codes, action=action, problems=tuple(problems))


def evaluate(cases: Sequence[Case]) -> Evaluation:
    """Judge all cases and count."""
    verdicts = [judge_case(case) for case in cases]
    wrong = tuple(verdict for verdict in verdicts if verdict.problems)
    names = sorted({case.language for case in cases})
    accepts = (Action.ACCEPT, Action.REPAIR)
    return Evaluation(
        cases=len(cases),
        right=len(cases) - len(wrong),
        known_gaps=sum(bool(verdict.case.known_gap) for verdict in wrong),
        refused_without_cause=sum(v.case.action in accepts and v.action not in accepts for v in verdicts),
        passed_without_cause=sum(v.case.action not in accepts and v.action in accepts for v in verdicts),
        languages=tuple(_share(name, (v for v in verdicts if v.case.language == name)) for name in names),
        tiers=tuple(
            _share(tier, (v for v in verdicts if v.case.tier == tier)) for tier in sorted({c.tier for c in cases})
        ),
        codes=tuple(_score(code, verdicts) for code in Code),
        confusion={
            said: dict(Counter(str(v.action) for v in verdicts if v.case.action == said)) for said in map(str, Action)
        },
        captions_per_second=_measure_speed(cases),
        policies={name: policy_version(name) for name in names},
        wrong=wrong,
    )


def score_live(rows: Iterable[ResultRow]) -> LiveScore:
    """Count what became of a live captioner's answers."""
    asked = [row for row in rows if row.caption_model is not None]
    published = [row for row in asked if row.status in (Status.OK, Status.DECORATIVE)]
    return LiveScore(
        model=asked[0].caption_model or "" if asked else "",
        captions=len(asked),
        accepted=len(published),
        at_once=sum(not row.violations for row in published),
        requests=sum(row.attempts for row in asked),
        cost_usd=round(sum(row.cost_usd or 0.0 for row in asked), 8),
        violations=dict(Counter(code for row in asked for code in row.violations or ()).most_common()),
    )


def _share(name: str, verdicts: Iterable[Verdict]) -> Score:
    outcomes = [not verdict.problems for verdict in verdicts]
    return Score(name=name, expected=len(outcomes), found=sum(outcomes), missed=outcomes.count(False), false_alarms=0)


def _score(code: Code, verdicts: Sequence[Verdict]) -> Score:
    expected = [verdict for verdict in verdicts if code in verdict.case.violations]
    found = sum(code in verdict.codes for verdict in expected)
    alarms = sum(code in v.codes and code not in (*v.case.violations, *v.case.also_allowed) for v in verdicts)
    return Score(name=code, expected=len(expected), found=found, missed=len(expected) - found, false_alarms=alarms)


def _measure_speed(cases: Sequence[Case]) -> float:
    """Check everything once more, warm: processor time, so that a busy machine does not count."""
    started = time.process_time()
    for case in cases:
        decide(check_caption(case.text, case.language))
    return round(len(cases) / max(time.process_time() - started, 1e-9), 1)


def render_evaluation(evaluation: Evaluation, gallery: str = "") -> str:
    """Return the report as HTML that needs nothing else.

    Args:
        gallery: Golden pictures with their captions, as a part of a page.
    """
    actions = [str(action) for action in Action]
    return load_template("evaluation").render(e=evaluation, actions=actions, gallery=Markup(gallery))  # noqa: S704 - rendered by our own template
