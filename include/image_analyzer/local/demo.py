"""The demonstration: the nightly run on real photographs, on the embedded stack, shown step by step."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from image_analyzer import wiring
from image_analyzer.errors import FatalError
from image_analyzer.local.airflow import LocalAirflow
from image_analyzer.local.pictures import demo_pictures
from image_analyzer.local.stack import Stack
from image_analyzer.reports import RunReport
from image_analyzer.settings import CaptionBackend, Settings, load_settings

_DEMO_LANGUAGES = ("en", "fr", "ja")
_STARTED = re.compile(r"\[DAG TEST\] starting task_id=(\S+) map_index=(-?\d+)")
_PROGRESS = re.compile(r"progress (\w+) (\S+) (\d+)/(\d+)")
_RUN_ID = re.compile(r"Created dag run.*?(manual__\S+?)[,>\s]")
_REPORT = re.compile(r"report: (\{.*\}) \[image_analyzer")


class Steps:
    """A list of steps on the terminal: done ones with their time, the present one with its progress."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextmanager
    def step(self, title: str) -> Iterator[Line]:
        """Show one step while it runs, then a tick and its time; a cross if it fails."""
        line = Line(title)
        started = time.monotonic()
        mark = "[green]✓[/]"
        try:
            with Live(line, console=self._console, transient=True, refresh_per_second=8):
                yield line
        except BaseException:
            mark = "[red]✗[/]"
            raise
        finally:
            detail = f"  [dim]{line.detail}[/]" if line.detail else ""
            self._console.print(f"{mark} {title:<44}[cyan]{time.monotonic() - started:6.1f} s[/]{detail}")


class Line:
    """The line of the step that runs."""

    def __init__(self, title: str) -> None:
        self.title, self.detail = title, ""
        self._spinner = Spinner("dots")

    def __rich__(self) -> Spinner:
        self._spinner.update(text=Text.assemble(self.title, "  ", (self.detail, "dim")))
        return self._spinner


def run_demo(console: Console, folder: Path) -> None:
    """Run everything once; data stay in `folder`, so that a second time finds nothing new.

    Raises:
        FatalError: Something failed; the message names the log.
    """
    started = time.monotonic()
    steps, stack = Steps(console), Stack(folder)
    log = folder / "logs" / "demo.log"
    try:
        with steps.step("Start S3, Snowflake and OpenAI stand-ins") as line:
            stack.up()
            line.detail = f"data in {_short(folder)}"
        languages = load_settings().caption_languages
        stack.adopt(CAPTION_LANGUAGES=",".join(languages if len(languages) > 1 else _DEMO_LANGUAGES))
        settings = load_settings()
        _say_who_captions(console, settings)
        with steps.step("Set up Airflow and the tables") as line:
            airflow = LocalAirflow(folder / "airflow", {})
            airflow.set_up()
            wiring.make_warehouse(settings).create_tables()
        with steps.step("Land photographs in S3") as line:
            line.detail = _land(settings)
        with steps.step("Run the DAG caption_images") as line:
            report = _run_dag(airflow, log, line)
        _show(console, settings, report, folder)
    finally:
        with steps.step("Stop the stack"):
            stack.down()
    console.print(f"[dim]{time.monotonic() - started:.0f} s in all; the full log is {_short(log)}[/]")


def _say_who_captions(console: Console, settings: Settings) -> None:
    if settings.backend is CaptionBackend.OPENAI:
        console.print(
            f"  [bold]OPENAI_API_KEY is set: captions come from OpenAI ({settings.openai_model}) and cost money.[/]"
        )
    else:
        console.print("  No OPENAI_API_KEY: captions are written offline, from colours, light and a label hint.")


def _land(settings: Settings) -> str:
    """Upload what is not there yet; return how much that was."""
    store = wiring.make_store(settings)
    there = {obj.key for obj in store.list_objects(settings.s3_bucket, settings.s3_prefix)}
    pictures = list(demo_pictures())
    new = [picture for picture in pictures if settings.s3_prefix + picture.name not in there]
    for picture in new:
        store.write(
            f"s3://{settings.s3_bucket}/{settings.s3_prefix}{picture.name}", picture.content, "application/octet-stream"
        )
    return f"{len(new)} new, {len(pictures) - len(new)} there already"


def _run_dag(airflow: LocalAirflow, log: Path, line: Line) -> RunReport:
    report = None
    try:
        for text in airflow.test_dag("{}", log):
            if match := _STARTED.search(text):
                line.detail = match[1]
            elif match := _PROGRESS.search(text):
                line.detail = f"{match[1]} {match[2]}: {match[3]} of {match[4]}"
            elif match := _REPORT.search(text):
                report = RunReport.model_validate_json(match[1])
    finally:
        line.detail = ", ".join(f"{k} {v:.1f} s" for k, v in report.seconds_by_step.items()) if report else ""
    if report is None:
        raise FatalError(f"the run made no report; see {log}")
    return report


def _show(console: Console, settings: Settings, report: RunReport, folder: Path) -> None:
    if not report.images:
        console.print("\n[bold]No new pictures.[/] 0 caption calls, 0 rows changed.")
        console.print(
            "[dim]Put a picture of yours into the bucket with `image-analyzer upload`, or `make clean-local` to start anew.[/]"
        )
        return
    rows = wiring.make_warehouse(settings).select_results(200, {"run_id": report.run_id})
    table = Table(title="IMAGE_RESULTS", title_justify="left", show_lines=False)
    for name in ("picture", "language", "status", "caption or reason"):
        table.add_column(name, overflow="fold")
    last = ""
    for row in sorted(rows, key=lambda r: (r["IMAGE_URI"], r["LANGUAGE"])):
        same, last = row["IMAGE_URI"] == last, row["IMAGE_URI"]
        table.add_row(
            "" if same else row["FILE_NAME"],
            row["LANGUAGE"],
            Text(row["STATUS"], style="green" if row["STATUS"] == "ok" else "yellow"),
            Text(row["GPT_SUMMARY"] or f"{row['ERROR_CODE']}: {row['ERROR_MESSAGE']}"),
        )
    console.print(table)
    merged = report.merge
    console.print(
        f"{report.images} objects, {len(rows)} rows "
        f"({', '.join(f'{count} {status}' for status, count in sorted(report.by_status.items()))}); "
        f"{merged.inserted if merged else 0} inserted, {merged.updated if merged else 0} updated; "
        f"{report.calls} paid caption calls, ${report.cost_usd:.6f}"
    )
    for note in report.notes:
        console.print(f"[dim]{note}[/]")
    if report.contact_sheet_uri:
        sheet = folder / "contact_sheet.html"
        sheet.write_bytes(wiring.make_store(settings).read(report.contact_sheet_uri) or b"")
        console.print(f"Contact sheet: [bold]{_short(sheet)}[/] (open it in a browser)")


def _short(path: Path) -> str:
    """Return the path as seen from here, if it lies below."""
    with_current = path.resolve()
    return str(with_current.relative_to(Path.cwd())) if with_current.is_relative_to(Path.cwd()) else str(path)
