"""What steps and runs say of themselves: counts, cost, problems."""

from __future__ import annotations

from pydantic import Field

from image_analyzer.records import Record
from image_analyzer.table import Flag


class BatchReport(Record):
    """What one step did with one batch.

    Attributes:
        counts: Numbers by word, such as `{"ok": 248, "corrupt": 2}`.
        problems: What makes the run red although every picture has its row.
    """

    batch_id: str
    step: str
    counts: dict[str, int]
    seconds: float
    cost_usd: float = 0.0
    calls: int = 0
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


class MergeReport(Record):
    """Row counts of one MERGE.

    Attributes:
        flagged: New or changed rows with a flag, by flag.
    """

    staged: int
    inserted: int
    updated: int
    flagged: dict[Flag, int] = Field(default_factory=dict)

    @property
    def unchanged(self) -> int:
        """Rows that were staged and already in the table as they are."""
        return self.staged - self.inserted - self.updated


class Tally(Record):
    """What the staged rows of a run say together of their captions.

    Attributes:
        by_origin: Rows that have a caption, published or not, by where it came from.
        by_violation: Rows for which this run asked and an answer broke a rule, mended or not, by the rule.
        latency_s: How long a caption that this run asked for took, in seconds, all tries together: `p50`, `p95`, `max`.
            Empty if it asked for none, or by batch files only.
    """

    by_origin: dict[str, int] = Field(default_factory=dict)
    by_violation: dict[str, int] = Field(default_factory=dict)
    latency_s: dict[str, float] = Field(default_factory=dict)


class MergeOutcome(Record):
    """What the merge step did: the MERGE's counts and what the staged rows say."""

    report: MergeReport
    by_status: dict[str, int]
    pipeline_faults: dict[str, int]
    tally: Tally = Tally()


class RunReport(Record):
    """Summary of a run, stored as `report.json` and shown to people.

    Attributes:
        problems: Why the run is red; none of them is the fault of a picture. Empty: it is green.
        notes: What people should know although the run is green.
        seconds_by_step: Sum over batches of the time each step took.
    """

    run_id: str
    listed: int
    images: int
    batches: int
    merge: MergeReport | None
    by_status: dict[str, int]
    calls: int
    cost_usd: float
    seconds_by_step: dict[str, float]
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    tally: Tally = Tally()
    contact_sheet_uri: str | None = None


class CheckOutcome(Record):
    """Result of one file of `include/sql/checks/`."""

    name: str
    offending: tuple[str, ...]
