"""Pages on runs and their pictures, for people who look after the pipeline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from image_analyzer.contactsheet import Card, group_cards, shrink
from image_analyzer.pages import load_template
from image_analyzer.ports import ObjectStore, ReviewDesk, Warehouse
from image_analyzer.reports import RunReport
from image_analyzer.thumbnails import read_pack
from image_analyzer.workarea import WorkArea

SHEET_FILE = "contact_sheet.html"
REPORT_FILE = "report.json"


def render_results(store: ObjectStore, warehouse: Warehouse, desk: ReviewDesk, *, runs: int, pictures: int) -> str:
    """Return a page of the last runs and of the newest rows with their pictures."""
    last = sorted(desk.read_view("PIPELINE_RUNS"), key=lambda run: run["LAST_AT"], reverse=True)[:runs]
    cards = read_cards(store, warehouse.select_results(pictures, {}))
    return load_template("results").render(runs=last, pictures=group_cards(cards))


def render_run(store: ObjectStore, work: WorkArea, run_id: str) -> str:
    """Return a page of one run's report; it says so if the run wrote none."""
    content = store.read(work.run_uri(run_id, REPORT_FILE))
    report = RunReport.model_validate_json(content) if content else None
    return load_template("run").render(run_id=run_id, report=report)


def read_sheet(store: ObjectStore, work: WorkArea, run_id: str) -> str | None:
    """Return the contact sheet of a run; None if it has none."""
    content = store.read(work.run_uri(run_id, SHEET_FILE))
    return content.decode() if content else None


def read_cards(store: ObjectStore, rows: Sequence[Mapping[str, Any]]) -> list[Card]:
    """Return rows as they are shown, with their pictures; each pack of thumbnails is read once."""
    uris = {row["THUMBNAIL_URI"] for row in rows if row["THUMBNAIL_URI"]}
    pictures: dict[str, str] = {}
    for pack_uri in sorted({uri.partition("#")[0] for uri in uris}):
        named = ((f"{pack_uri}#{sha}.jpg", jpeg) for sha, jpeg in read_pack(store.read(pack_uri)))
        pictures |= {name: shrink(jpeg) for name, jpeg in named if name in uris}
    return [Card.from_row(row, pictures.get(row["THUMBNAIL_URI"] or "", "")) for row in rows]
