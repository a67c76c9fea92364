"""What the console commands do. `cli` parses and shows errors, this talks to the steps."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path

import filetype
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from image_analyzer import wiring
from image_analyzer.clients.mlflow_tracker import HINT_MODEL, MlflowTracker
from image_analyzer.errors import ConfigurationError
from image_analyzer.faces import make_faces
from image_analyzer.languages import parse_languages
from image_analyzer.records import Reason, RunRequest
from image_analyzer.settings import PROJECT_ROOT, CaptionBackend, Settings, load_settings
from image_analyzer.sheets import write_csv
from image_analyzer.steps.discover import discover, find_stale, reason_notes
from image_analyzer.steps.upload import Upload, caption_upload
from image_analyzer.table import ResultRow

_LAST_ANSWERS_S = 60
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_TABLE_COLUMNS = ("FILE_NAME", "LANGUAGE", "STATUS", "GPT_SUMMARY", "ERROR_CODE", "CAPTION_ORIGIN", "COST_USD")


def upload_folder(console: Console, settings: Settings, folder: Path, prefix: str) -> None:
    """Upload the files of a folder under a dated prefix; skip a key that has the same bytes already."""
    store = wiring.make_store(settings)
    below = prefix or f"{datetime.now(UTC):%Y/%m/%d}"
    root = f"{settings.s3_prefix}{below.strip('/')}/"
    there = {obj.key: obj for obj in store.list_objects(settings.s3_bucket, root)}
    files = sorted(file for file in folder.rglob("*") if file.is_file() and not file.name.startswith("."))
    uploaded = skipped = 0
    for file in track(files, description="Uploading", console=console):
        key = root + file.relative_to(folder).as_posix()
        content = file.read_bytes()
        known = there.get(key)
        if known is not None and known.etag == hashlib.md5(content, usedforsecurity=False).hexdigest():
            skipped += 1
            continue
        kind = filetype.guess_mime(content) or "application/octet-stream"
        store.write(f"s3://{settings.s3_bucket}/{key}", content, kind)
        uploaded += 1
    console.print(f"{uploaded} uploaded to s3://{settings.s3_bucket}/{root}, {skipped} there already")


def caption_file(console: Console, settings: Settings, file: Path, languages: tuple[str, ...]) -> None:
    """Caption one picture and print its rows."""
    for row in caption_rows(settings, file, languages):
        console.print(f"[bold]{row.language}[/] {row.status}", end="  ")
        console.print(Text(row.gpt_summary or f"{row.error_code}: {row.error_message}"))
        origin = f"{row.caption_origin} ({row.caption_model})" if row.caption_origin else "no caption"
        facts = f"{row.mime_type}, {row.width_px} x {row.height_px}" if row.width_px else row.mime_type
        console.print(f"[dim]   {facts}; {origin}; {row.words or 0} words; ${row.cost_usd or 0:.6f}[/]")


def caption_rows(settings: Settings, file: Path, languages: tuple[str, ...]) -> Sequence[ResultRow]:
    """Caption one picture through the steps of the nightly run; store nothing in the table.

    An answer that was paid for is kept, and found again, in the ledger: of the bucket if one is set, else of this
    machine.
    """
    try:
        chosen = parse_languages(languages) if languages else settings.caption_languages
    except ValueError as error:
        raise ConfigurationError(str(error)) from None
    tools = make_faces(settings).tools
    return caption_upload(tools, Upload(file.read_bytes(), file.name, chosen, store=False)).rows


def show_plan(
    console: Console,
    settings: Settings,
    prefix: str,
    limit: int | None,
    reprocess: tuple[Reason, ...] = (),
    days: tuple[date | None, date | None] = (None, None),
) -> None:
    """Print what the next run would do, then what there is to reprocess; with reasons, what a run for these would do.

    Raises:
        ConfigurationError: The first day is after the last.
    """
    from_day, to_day = days
    if from_day and to_day and from_day > to_day:
        raise ConfigurationError(f"--from-day {from_day} is after --to-day {to_day}")
    request = RunRequest(
        from_day=from_day,
        to_day=to_day,
        run_id="plan",
        bucket=settings.s3_bucket,
        prefix=prefix or settings.s3_prefix,
        languages=settings.caption_languages,
        limit=limit,
        dry_run=True,
        reprocess=reprocess,
    )
    store, warehouse, options = (
        wiring.make_store(settings),
        wiring.make_warehouse(settings),
        wiring.plan_options(settings),
    )
    plan = discover(store, warehouse, wiring.make_work_area(settings), request, options)
    who = settings.openai_model if settings.backend is CaptionBackend.OPENAI else "the offline describer"
    if reprocess:
        console.print(f"{plan.images} pictures of IMAGE_RESULTS to run again, for {', '.join(reprocess)}")
    else:
        console.print(f"{plan.listed} objects under s3://{request.bucket}/{request.prefix}")
        console.print(f"{plan.images} new or changed, in {len(plan.batches)} batches of at most {plan.batch_size}")
    console.print(
        f"{plan.captions} captions in {', '.join(request.languages)} by {who}, at most ${plan.estimated_cost_usd:.4f}"
    )
    for note in plan.notes:
        console.print(f"[yellow]{note}[/]")
    if not reprocess:
        _, counts = find_stale(warehouse, request.model_copy(update={"reprocess": tuple(Reason)}), options)
        for note in reason_notes(counts, options):
            console.print(f"[dim]to reprocess, not part of it: {note}[/]")


def show_results(console: Console, settings: Settings, output: str, filters: Mapping[str, str], limit: int) -> None:
    """Print rows of IMAGE_RESULTS as a table, as csv or as JSON."""
    if output not in ("table", "csv", "json"):
        raise ConfigurationError(f"--format {output}: choose table, csv or json")
    rows = wiring.make_warehouse(settings).select_results(limit, filters)
    if output == "json":
        json.dump(rows, sys.stdout, default=str, ensure_ascii=False, indent=1)
        sys.stdout.write("\n")
    elif output == "csv":
        write_csv(sys.stdout, list(rows[0]) if rows else _TABLE_COLUMNS, rows)
    else:
        table = Table()
        for name in _TABLE_COLUMNS:
            table.add_column(name, overflow="fold")
        for row in rows:
            table.add_row(*(Text("" if row[name] is None else str(row[name])) for name in _TABLE_COLUMNS))
        console.print(table)
        console.print(f"{len(rows)} rows")


def list_models(console: Console, settings: Settings) -> None:
    """Print the models that are here."""
    from image_analyzer.clients.litert_model import MANIFEST_FILE, read_manifest

    chosen = wiring.hint_folder(settings)
    table = Table("", "model", "licence", "origin", "MB")
    places = dict.fromkeys((wiring.SHIPPED_MODELS, settings.models_dir))
    for file in sorted(file for place in places for file in place.glob(f"*/{MANIFEST_FILE}")):
        manifest = read_manifest(file.parent)
        size = (file.parent / "model.tflite").stat().st_size / 1e6
        mark = "*" if file.parent == chosen else ""
        table.add_row(mark, file.parent.name, manifest.licence, manifest.origin, f"{size:.1f}")
    console.print(table)
    console.print("* is chosen (HINT_MODEL)" if settings.use_tf_hint else "hints are off (USE_TF_HINT=false)")


def use_model(settings: Settings, wanted: str) -> tuple[str, Path]:
    """Write HINT_MODEL into `.env` after loading the model once; return its folder's name, and that file.

    Args:
        wanted: `imagenet`; the name of a model that is here; or what MLflow knows as a run, an alias, or NAME@ALIAS: that is
            brought here first.

    Raises:
        ConfigurationError: There is no such model, or it is damaged.
    """
    from dotenv import set_key

    from image_analyzer.clients.litert_model import load_model

    name = wiring.IMAGENET_MODEL if wanted == "imagenet" else wanted
    if not wiring.find_model(settings, name).is_dir():
        name = _bring_model(wiring.make_tracker(settings), wanted, settings.models_dir)
    load_model(wiring.find_model(settings, name), 1)
    file = PROJECT_ROOT / ".env"
    set_key(file, "HINT_MODEL", name, quote_mode="never")
    return name, file


def _bring_model(tracker: MlflowTracker, wanted: str, models: Path) -> str:
    version = tracker.find(wanted)
    if Path(version.folder_name).name != version.folder_name:
        raise ConfigurationError(f"MLflow calls that model {version.folder_name!r}, which is no name of a folder")
    models.mkdir(parents=True, exist_ok=True)
    if not (models / version.folder_name).is_dir():
        with tempfile.TemporaryDirectory(dir=models, prefix=".bringing-") as scratch:
            shutil.move(tracker.fetch(version.run_id, HINT_MODEL, Path(scratch)), models / version.folder_name)
    return version.folder_name


def serve_app(host: str, port: int, *, open_to_all: bool) -> None:
    """Run the add-on until it is stopped.

    Raises:
        ConfigurationError: Others could reach it, and nobody would have to sign in.
    """
    settings = load_settings()
    has_sign_in = any(map(_sets_up_sign_in, (Path.home(), Path.cwd())))
    if host not in _LOOPBACK and not has_sign_in and not open_to_all:
        raise ConfigurationError(
            f"--host {host} lets others in, and there is no sign-in: set one up in .streamlit/secrets.toml (README), or say "
            "--open-to-all where something in front of it asks who they are"
        )
    if not has_sign_in:
        sys.stderr.write(f"No sign-in is set up: whoever reaches {host}:{port} can caption and decide.\n")
    options = {
        "server.address": host,
        "server.port": port,
        "server.headless": "true",
        "server.fileWatcherType": "none",
        "server.maxUploadSize": math.ceil(settings.max_image_bytes / 1_000_000),
        "browser.gatherUsageStats": "false",
        "client.showErrorDetails": "none",  # a traceback shows values
        "client.toolbarMode": "minimal",
        # Streamlit's own colours are too pale for small letters; it derives shades from these.
        "theme.light.primaryColor": "#0a5a9c",
        "theme.light.textColor": "#000000",
    }
    arguments = [f"--{name}={value}" for name, value in options.items()]
    script = str(PROJECT_ROOT / "apps" / "addon.py")
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, "-m", "streamlit", "run", script, *arguments])  # noqa: S606 - no shell is wanted


def _sets_up_sign_in(folder: Path) -> bool:
    """Tell whether Streamlit finds a section `auth` in this folder's secrets."""
    file = folder / ".streamlit" / "secrets.toml"
    try:
        return file.exists() and "auth" in tomllib.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigurationError(f"{file} is no TOML: {error}") from None
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be read: {error.strerror}") from None


def serve_api(host: str, port: int) -> None:
    """Run the service until it is stopped; requests under way are answered first."""
    import uvicorn

    load_settings().need("api_keys")  # said here in a sentence, not by a server that does not start
    uvicorn.run(
        "caption_api.main:create_app",
        factory=True,
        app_dir=str(PROJECT_ROOT / "apps"),
        host=host,
        port=port,
        access_log=False,  # the gate's line has the request id and no query
        server_header=False,
        timeout_graceful_shutdown=_LAST_ANSWERS_S,
    )
