"""What `image-analyzer evaluate` does: the contract on judged answers, golden pictures against the champion, and the report."""

from __future__ import annotations

import logging
import mimetypes
import tempfile
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from rich.console import Console
from rich.progress import track
from rich.table import Table

from image_analyzer import wiring
from image_analyzer.clients.folder_store import FolderStore
from image_analyzer.clients.mlflow_tracker import MlflowTracker
from image_analyzer.clients.recorded import Recorder, Replayer
from image_analyzer.commands import caption_rows
from image_analyzer.contactsheet import Card, render_gallery, shrink
from image_analyzer.errors import ConfigurationError, ItemError
from image_analyzer.evaluation import Evaluation, Gate, evaluate, read_cases, render_evaluation, score_live
from image_analyzer.faces import make_tools
from image_analyzer.golden import (
    Exchange,
    Margins,
    Quality,
    Recording,
    compare,
    differences,
    expectations,
    measure,
    prompt_digest,
    read_champion,
    read_recording,
)
from image_analyzer.local.pictures import demo_pictures
from image_analyzer.prompts import PROMPT_VERSION
from image_analyzer.settings import CaptionBackend, Settings
from image_analyzer.steps.rehearse import rehearse
from image_analyzer.steps.upload import Uploaded
from image_analyzer.table import ResultRow

log = logging.getLogger(__name__)
EXPERIMENT = "captions"
RECORDING_FILE, CHAMPION_FILE = "recording.json", "champion.json"
GOLDEN_LANGUAGES = ("en", "fr", "de", "ja")
_PHOTOGRAPHS = "photos/"


class Wanted(NamedTuple):
    """What to evaluate.

    Attributes:
        cases: Folder of judged answers, `*.jsonl`, with the recording and the champion's figures.
        out: Where the report goes.
        pictures, languages: Of one's own, to be captioned live beside; no gate.
        live: Ask for golden captions anew instead of taking the recorded answers.
        accept: What was measured is the champion from now on, and its answers the recorded ones.
        track: Log to MLflow.
    """

    cases: Path
    out: Path
    pictures: Path | None = None
    languages: tuple[str, ...] = ()
    live: bool = False
    accept: bool = False
    track: bool = False


class _Rehearsed(NamedTuple):
    """What golden pictures came to; `is_of_today`: today's prompt and model answered."""

    recording: Recording
    uploads: list[Uploaded]
    problems: list[str]
    is_of_today: bool = True

    @property
    def rows(self) -> list[ResultRow]:
        return [row for upload in self.uploads for row in upload.rows]


def run_evaluation(console: Console, read_settings: Callable[[], Settings], wanted: Wanted) -> bool:
    """Evaluate, write the report and print the figures; return whether nothing got worse.

    Args:
        read_settings: Called only where something is captioned: judging texts needs no settings.
    """
    found = evaluate(read_cases(wanted.cases))
    if wanted.pictures is not None:
        rows = _caption_folder(console, read_settings(), wanted.pictures, wanted.languages)
        found = found.model_copy(update={"live": score_live(rows)})
    rehearsed = _rehearse(console, read_settings, wanted)
    if wanted.accept:
        _check_acceptable(rehearsed, wanted)
    quality = None
    if rehearsed is not None:
        quality, found = _judge(found, rehearsed, wanted)
    _write_report(found, rehearsed, wanted.out)
    _print(console, found, wanted.out)
    if wanted.track:
        _track(wiring.make_tracker(read_settings()), found, quality, rehearsed, wanted.out)
    if wanted.accept and quality is not None and rehearsed is not None:
        _accept(console, quality, rehearsed, wanted.cases)
        return not found.regressions
    return not found.regressions and not (found.gate and found.gate.problems)


def _check_acceptable(rehearsed: _Rehearsed | None, wanted: Wanted) -> None:
    """Raise ConfigurationError for what would be a champion that anybody beats, or that says nothing of today."""
    if rehearsed is None:
        raise ConfigurationError(f"{wanted.cases} has no recorded answers to accept: add --live")
    if not rehearsed.is_of_today:
        raise ConfigurationError(f"not accepted: {'; '.join(rehearsed.problems)}")
    lacking = _asked(rehearsed.recording) - len(rehearsed.rows)
    if lacking:
        raise ConfigurationError(f"not accepted: {lacking} golden captions have no answer; see the log, and try again")


def _asked(recording: Recording) -> int:
    return len(list(_golden_pictures())) * len(recording.languages)


def _rehearse(console: Console, read_settings: Callable[[], Settings], wanted: Wanted) -> _Rehearsed | None:
    """Caption the golden pictures, live or from what was recorded; None where nothing was recorded nor asked for."""
    recording = read_recording(wanted.cases / RECORDING_FILE)
    if recording is None and not wanted.live and (wanted.cases / CHAMPION_FILE).exists():
        raise ConfigurationError(
            f"{wanted.cases / RECORDING_FILE} is missing, without which nobody can tell what got worse"
        )
    if wanted.live:
        return _ask(console, read_settings(), recording)
    return _replay(console, read_settings(), recording) if recording is not None else None


def _replay(console: Console, settings: Settings, recording: Recording) -> _Rehearsed:
    replayer = Replayer(recording)
    uploads = _caption_golden(console, settings, lambda _: replayer, recording.languages, recording.languages_per_call)
    problems = []
    if recording.prompt_digest != prompt_digest(recording.languages):
        problems.append(
            "the prompt is not the one that was answered: record answers to it with `image-analyzer evaluate --live`"
            + ("" if recording.prompt_version != PROMPT_VERSION else ", and raise PROMPT_VERSION")
        )
    asked, recorded = (settings.openai_model, settings.openai_image_detail), (recording.model, recording.detail)
    if asked != recorded:
        words = [" at image detail ".join(pair) for pair in (recorded, asked)]
        problems.append(f"answers are recorded of {words[0]}, not of {words[1]}: `evaluate --live`")
    rehearsed = _Rehearsed(recording, uploads, problems, is_of_today=not problems)
    problems += differences(recording.expected, expectations(rehearsed.rows))
    return rehearsed


def _ask(console: Console, settings: Settings, earlier: Recording | None) -> _Rehearsed:
    if settings.backend is not CaptionBackend.OPENAI:
        raise ConfigurationError("--live asks a model: set OPENAI_API_KEY, and OPENAI_SEND_IMAGE=true")
    tools = make_tools(settings, None)
    exchanges: list[Exchange] = []
    languages = earlier.languages if earlier else GOLDEN_LANGUAGES
    each = settings.openai_languages_per_call
    uploads = _caption_golden(
        console, settings, lambda owner: Recorder(tools.captioner(owner), exchanges), languages, each
    )
    recording = Recording(
        model=settings.openai_model,
        detail=settings.openai_image_detail,
        endpoint=_endpoint(settings),
        recorded_on=datetime.now(UTC).date(),
        prompt_version=PROMPT_VERSION,
        prompt_digest=prompt_digest(languages),
        languages=languages,
        languages_per_call=each,
        exchanges=tuple(exchanges),
        expected=(),
    )
    rehearsed = _Rehearsed(recording, uploads, [])
    agreed = recording.model_copy(update={"expected": expectations(rehearsed.rows)})
    return rehearsed._replace(recording=agreed)


def _endpoint(settings: Settings) -> str:
    host = urlsplit(settings.openai_base_url).hostname
    return "test server" if host in ("127.0.0.1", "localhost") else host or "api.openai.com"


def _caption_golden(
    console: Console,
    settings: Settings,
    captioner: Callable[[str], Recorder | Replayer],
    languages: tuple[str, ...],
    languages_per_call: int,
) -> list[Uploaded]:
    pictures = list(_golden_pictures())
    shown = track(pictures, description="golden pictures", console=console)
    with tempfile.TemporaryDirectory() as scratch:
        store = FolderStore(Path(scratch))
        tools = make_tools(settings, None)
        return list(rehearse(tools, captioner, store, shown, languages, languages_per_call))


def _golden_pictures() -> Iterator[tuple[str, bytes]]:
    seen = set()
    for picture in demo_pictures():
        if picture.name.startswith(_PHOTOGRAPHS) and picture.content not in seen:
            seen.add(picture.content)
            yield picture.name.removeprefix(_PHOTOGRAPHS), picture.content


def _judge(found: Evaluation, rehearsed: _Rehearsed, wanted: Wanted) -> tuple[Quality, Evaluation]:
    recording = rehearsed.recording
    asked = _asked(recording)
    expected = None if wanted.live else {(one.picture, one.language): one for one in recording.expected}
    quality = measure(found, rehearsed.rows, asked=asked, recording=recording, expected=expected)
    champion = read_champion(wanted.cases / CHAMPION_FILE)
    worse = compare(quality, champion, Margins()) if champion else []
    if champion is None and not wanted.accept:
        worse.append(f"there is no {CHAMPION_FILE} to compare with: --accept makes this one it")
    source = f"{recording.endpoint}, {'asked now' if wanted.live else f'recorded on {recording.recorded_on}'}"
    gate = Gate(
        source=source,
        new=quality.model_dump(),
        champion=champion.model_dump() if champion else None,
        problems=(*rehearsed.problems, *worse),
    )
    return quality, found.model_copy(update={"gate": gate})


def _write_report(found: Evaluation, rehearsed: _Rehearsed | None, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / "evaluation.json").write_text(found.model_dump_json(indent=1), encoding="utf-8")
    cards = []
    for upload in rehearsed.uploads if rehearsed else ():
        picture = shrink(upload.thumbnail) if upload.thumbnail else ""
        named = ({name.upper(): value for name, value in row.model_dump().items()} for row in upload.rows)
        cards += [Card.from_row({**row, "FLAGS": None}, picture) for row in named]
    page = render_evaluation(found, render_gallery(cards) if cards else "")
    (out / "evaluation.html").write_text(page, encoding="utf-8")


def _print(console: Console, found: Evaluation, out: Path) -> None:
    table = Table("tier", "cases", "judged as expected", box=None)
    for tier in found.tiers:
        table.add_row(tier.name, str(tier.expected), f"{tier.share:.1%}")
    console.print(table)
    console.print(
        f"{found.right} of {found.cases} cases right in {len(found.languages)} languages, "
        f"{found.refused_without_cause} sound captions refused, {found.passed_without_cause} broken ones passed, "
        f"{found.captions_per_second:.0f} captions per second and core",
        soft_wrap=True,
    )
    for verdict in found.regressions:
        problems = "; ".join(verdict.problems)
        console.print(f"{verdict.case.id}: {problems}: {verdict.case.text!r}", markup=False, soft_wrap=True)
    if found.live:
        live = found.live
        console.print(
            f"{live.model}: {live.accepted} of {live.captions} captions published, {live.at_once} as they came, "
            f"{live.requests} requests, ${live.cost_usd:.6f}"
        )
    console.print(f"Report: {out / 'evaluation.html'}", soft_wrap=True, highlight=False)
    if found.gate:
        _print_gate(console, found.gate)


def _print_gate(console: Console, gate: Gate) -> None:
    new, champion = gate.new, gate.champion or {}
    table = Table(f"golden captions ({gate.source})", "now", "champion", box=None)
    for name, value in new.items():
        shown = (f"{v:g}" if isinstance(v, float) else str(v) for v in (value, champion.get(name, "")))
        table.add_row(name, *shown)
    console.print(table)
    said = f"The gate refuses this: {'; '.join(gate.problems)}" if gate.problems else "The gate lets this pass."
    console.print(said, markup=False, soft_wrap=True)


def _track(
    tracker: MlflowTracker, found: Evaluation, quality: Quality | None, rehearsed: _Rehearsed | None, out: Path
) -> None:
    name = f"{quality.model}, prompt {quality.prompt_version}" if quality else "contract"
    with tracker.run(EXPERIMENT, name):
        params = quality.model_dump(include={"model", "prompt_version", "policies"}) if quality else {}
        passed = not found.regressions and not (found.gate and found.gate.problems)
        tracker.log(
            params,
            found.metrics() | (quality.metrics() if quality else {}),
            {"gate": "passed" if passed else "refused", "source": found.gate.source if found.gate else "texts only"},
        )
        for file in ("evaluation.html", "evaluation.json"):
            tracker.log_file(file, (out / file).read_bytes())
        if rehearsed is not None:
            tracker.log_file(RECORDING_FILE, rehearsed.recording.model_dump_json(indent=1).encode())


def _accept(console: Console, quality: Quality, rehearsed: _Rehearsed, folder: Path) -> None:
    recording = rehearsed.recording.model_copy(update={"expected": expectations(rehearsed.rows)})
    (folder / RECORDING_FILE).write_text(recording.model_dump_json(indent=1) + "\n", encoding="utf-8")
    (folder / CHAMPION_FILE).write_text(quality.model_dump_json(indent=1) + "\n", encoding="utf-8")
    console.print(f"The champion is now {quality.model} with prompt {quality.prompt_version}: {folder / CHAMPION_FILE}")


def _caption_folder(
    console: Console, settings: Settings, folder: Path, languages: tuple[str, ...]
) -> Iterator[ResultRow]:
    suffixes = {suffix for suffix, kind in mimetypes.types_map.items() if kind.startswith("image/")}
    paths: Sequence[Path] = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in suffixes]
    if not paths:
        raise ConfigurationError(f"{folder} holds no pictures")
    for path in track(paths, description="captioning", console=console):
        try:
            yield from caption_rows(settings, path, languages)
        except ItemError as error:  # no picture to be judged by
            console.print(f"{path.name}: {error}", markup=False)
