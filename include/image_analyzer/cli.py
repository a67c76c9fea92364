"""The console command `image-analyzer`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from image_analyzer.errors import ImageAnalyzerError, ItemError, RetryableError
from image_analyzer.leash import end_with_input
from image_analyzer.records import Reason
from image_analyzer.settings import PROJECT_ROOT, load_settings

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_show_locals=False,  # locals hold settings
    help="Caption images in bulk: S3 in, checked alternative text in Snowflake out. Settings come from the environment "
    "or `.env`; `image-analyzer doctor` checks them.",
)
local = typer.Typer(no_args_is_help=True, help="The embedded stack: S3, Snowflake and OpenAI on this machine.")
model = typer.Typer(no_args_is_help=True, help="The hint model: list, choose, convert.")
app.add_typer(local, name="local")
app.add_typer(model, name="model")
console = Console()


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Show our errors as one sentence and end with 1, or 75 for what may pass: a traceback helps nobody who set a wrong key."""
    try:
        yield
    except ImageAnalyzerError as error:
        kind = error.code if isinstance(error, ItemError) else type(error).__name__
        Console(stderr=True).print(f"{kind}: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(os.EX_TEMPFAIL if isinstance(error, RetryableError) else 1) from None


@app.command()
def init() -> None:
    """Create the tables in Snowflake; touches nothing that is there."""
    from image_analyzer import wiring

    with _plain_errors():
        wiring.make_warehouse(load_settings()).create_tables()
    console.print("The tables are there.")


@app.command()
def upload(
    folder: Annotated[
        Path, typer.Argument(help="Folder of pictures, read with its sub-folders.", exists=True, file_okay=False)
    ],
    prefix: Annotated[str, typer.Option(help="Below S3_PREFIX; `YYYY/MM/DD/` of today if not given.")] = "",
) -> None:
    """Upload a folder to where the nightly run looks. What is there with the same content is skipped."""
    from image_analyzer.commands import upload_folder

    with _plain_errors():
        upload_folder(console, load_settings(), folder, prefix)


@app.command()
def caption(
    file: Annotated[Path, typer.Argument(help="One picture.", exists=True, dir_okay=False)],
    language: Annotated[
        list[str] | None, typer.Option(help="BCP 47 code; repeat it for more. CAPTION_LANGUAGES if not given.")
    ] = None,
) -> None:
    """Caption one picture through the steps of the nightly run. Nothing is stored in Snowflake."""
    from image_analyzer.commands import caption_file

    with _plain_errors():
        caption_file(console, load_settings(), file, tuple(language or ()))


@app.command()
def plan(
    prefix: Annotated[str, typer.Option(help="S3_PREFIX if not given.")] = "",
    limit: Annotated[int | None, typer.Option(help="At most so many pictures.")] = None,
    reprocess: Annotated[
        list[Reason] | None, typer.Option(help="Plan a run with this reason to reprocess; repeat it for more.")
    ] = None,
    from_day: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Only what was last changed in S3 then or later, UTC.")
    ] = None,
    to_day: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="Only what was last changed in S3 then or earlier, UTC."),
    ] = None,
) -> None:
    """Show what the next run would do, what a run to reprocess would, and what each may cost. Touches nothing."""
    from image_analyzer.commands import show_plan

    with _plain_errors():
        days = (from_day.date() if from_day else None, to_day.date() if to_day else None)
        show_plan(console, load_settings(), prefix, limit, tuple(reprocess or ()), days)


@app.command()
def results(
    output: Annotated[str, typer.Option("--format", help="table, csv or json")] = "table",
    status: Annotated[
        str, typer.Option(help="ok, decorative, pending, pending_budget, needs_review, skipped or failed")
    ] = "",
    language: Annotated[str, typer.Option(help="BCP 47 code")] = "",
    limit: Annotated[int, typer.Option(help="At most so many rows, newest first.")] = 100,
) -> None:
    """Show rows of IMAGE_RESULTS."""
    from image_analyzer.commands import show_results

    with _plain_errors():
        show_results(console, load_settings(), output, {"status": status, "language": language}, limit)


@app.command()
def evaluate(
    cases: Annotated[Path, typer.Option(help="Folder of judged answers, *.jsonl.")] = PROJECT_ROOT
    / "evaluation/golden",
    out: Annotated[Path, typer.Option(help="Where the report goes.")] = PROJECT_ROOT / "build/evaluation",
    pictures: Annotated[
        Path | None,
        typer.Option(help="Folder of pictures to be captioned live, too; paid, each once.", file_okay=False),
    ] = None,
    language: Annotated[list[str] | None, typer.Option(help="Languages of those captions.")] = None,
    live: Annotated[
        bool,
        typer.Option(
            "--live", help="Ask the model for the golden captions instead of taking the recorded answers; paid."
        ),
    ] = False,
    accept: Annotated[
        bool,
        typer.Option("--accept", help="Make what was measured the champion: writes recording.json and champion.json."),
    ] = False,
    track: Annotated[bool, typer.Option("--track", help="Log to MLflow.")] = False,
    leash: Annotated[
        bool, typer.Option("--leash", help="End when standard input is closed: with whoever started it.")
    ] = False,
) -> None:
    """Measure the caption contract on judged answers, and golden pictures against the champion; 1 if anything got worse."""
    from image_analyzer.evaluating import Wanted, run_evaluation

    if leash:
        end_with_input()
    wanted = Wanted(cases, out, pictures, tuple(language or ()), live, accept, track)
    with _plain_errors():
        sound = run_evaluation(console, load_settings, wanted)
    if not sound:
        raise typer.Exit(1)


@app.command()
def api(
    host: Annotated[
        str, typer.Option(help="Address to listen at; put TLS in front of any but loopback.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option()] = 8000,
) -> None:
    """Serve captions over HTTP: POST /v1/captions and more; the description is at /docs."""
    from image_analyzer.commands import serve_api

    with _plain_errors():
        serve_api(host, port)


@app.command("app")
def addon(
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option()] = 8501,
    open_to_all: Annotated[
        bool, typer.Option("--open-to-all", help="Listen beyond this machine although nobody has to sign in.")
    ] = False,
) -> None:
    """Serve the Streamlit add-on: caption single pictures, review, browse, health."""
    from image_analyzer.commands import serve_app

    with _plain_errors():
        serve_app(host, port, open_to_all=open_to_all)


@app.command()
def connections() -> None:
    """Print the settings' secrets as JSON for `airflow connections import`."""
    import json
    import sys

    from image_analyzer.connections import make_connections

    with _plain_errors():
        sys.stdout.write(json.dumps(make_connections(load_settings())))


@app.command("api-key")
def api_key(name: Annotated[str, typer.Argument(help="Whose key it is.")]) -> None:
    """Make a key of the service: print it, once, and the line of API_KEYS that lets it in."""
    import hashlib
    import secrets

    key = f"sia_{secrets.token_urlsafe(32)}"
    console.print(f"Key, shown only now:  {key}", soft_wrap=True, highlight=False)
    console.print(
        f"For API_KEYS:         {name}:{hashlib.sha256(key.encode()).hexdigest()}", soft_wrap=True, highlight=False
    )


@app.command()
def dictionary() -> None:
    """Print the data dictionary: every table, view and column with its comment, as Markdown."""
    import sys

    from image_analyzer.dictionary import render_dictionary

    sys.stdout.write(render_dictionary())


@app.command()
def doctor() -> None:
    """Check settings, S3, Snowflake, captions and model: one line each, with the mend. Asks for no caption."""
    from image_analyzer.doctor import examine

    findings = list(examine())
    for finding in findings:
        mark = "[green]ok  [/]" if finding.sound else "[red]FAIL[/]"
        console.print(f"{mark} {finding.subject:<10} {finding.message}", highlight=False, soft_wrap=True)
    if not all(finding.sound for finding in findings):
        raise typer.Exit(1)


@local.command("up")
def local_up(
    airflow: Annotated[bool, typer.Option(help="Also start Airflow with its UI.")] = False,
    port: Annotated[int, typer.Option(help="Port of the Airflow UI.")] = 8080,
) -> None:
    """Start the embedded stack and leave it running."""
    from image_analyzer.local.commands import start

    with _plain_errors():
        start(console, load_settings().local_stack_dir, airflow=airflow, port=port)


@local.command("down")
def local_down(
    delete: Annotated[bool, typer.Option(help="Also delete its data.")] = False,
) -> None:
    """Stop the embedded stack, and Airflow if it runs."""
    from image_analyzer.local.commands import stop

    with _plain_errors():
        stop(console, load_settings().local_stack_dir, delete=delete)


@local.command("status")
def local_status() -> None:
    """Show what runs and where."""
    from image_analyzer.local.commands import show_status

    with _plain_errors():
        show_status(console, load_settings().local_stack_dir)


@local.command("env")
def local_env() -> None:
    """Print the settings that point at the embedded stack, for `eval "$(image-analyzer local env)"`."""
    from image_analyzer.local.commands import print_environment

    with _plain_errors():
        print_environment(load_settings().local_stack_dir)


@local.command("demo")
def local_demo() -> None:
    """Run the nightly run on real photographs, once, and show what came out."""
    from image_analyzer.local.demo import run_demo

    with _plain_errors():
        run_demo(console, load_settings().local_stack_dir)


@model.command("list")
def model_list() -> None:
    """List the models that are here, the chosen one marked."""
    from image_analyzer.commands import list_models

    with _plain_errors():
        list_models(console, load_settings())


@model.command("use")
def model_use(
    wanted: Annotated[
        str,
        typer.Argument(
            help="`imagenet`, a model that is here, or of MLflow a run's id, an alias such as `champion`, or NAME@ALIAS."
        ),
    ],
) -> None:
    """Choose the model of the next runs: brings it from MLflow if need be, checks it, writes HINT_MODEL into `.env`."""
    from image_analyzer.commands import use_model

    with _plain_errors():
        name, file = use_model(load_settings(), wanted)
        console.print(f"HINT_MODEL={name} is set in {file}", soft_wrap=True)


@model.command("convert")
def model_convert(
    saved_model: Annotated[
        Path,
        typer.Argument(
            help="Keras SavedModel folder, with `label_classes.npy` and perhaps `label_aliases.json` in or beside it.",
            exists=True,
        ),
    ],
    name: Annotated[str, typer.Argument(help="Name of the folder to make below MODELS_DIR.")],
    licence: Annotated[str, typer.Option(help="Licence of the weights, for the manifest.")] = "unstated",
    scaling: Annotated[
        str, typer.Option(help="How the model was trained to see: `keras` (-1..1) or `imagenet` (mean and deviation).")
    ] = "keras",
) -> None:
    """Convert a Keras SavedModel into what the nightly run loads. Needs TensorFlow."""
    from image_analyzer.conversion import convert_saved_model

    with _plain_errors():
        models = load_settings().models_dir
        folder = convert_saved_model(saved_model, name, licence=licence, scaling=scaling, models_folder=models)
    console.print(f"{folder}: choose it with HINT_MODEL={name}")
