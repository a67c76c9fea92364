"""Train the hint model on classes of your own.

    python models/train.py photos/ --name flowers                  a folder with a sub-folder of pictures for each class
    python models/train.py s3://images/labelled/ --name flowers    the same in S3
    python models/train.py results --labels labels.csv             pictures that IMAGE_RESULTS knows, labelled by you

What was killed goes on where it ended when the same command is given again. Standard output is the outcome as JSON.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from image_analyzer import wiring
from image_analyzer.errors import ConfigurationError, ImageAnalyzerError, RetryableError
from image_analyzer.leash import end_with_input
from image_analyzer.settings import Settings, load_settings
from image_analyzer.training.crops import Crop
from image_analyzer.training.dataset import Fault, Shares
from image_analyzer.training.flow import Places, Trained, TrainOptions, train
from image_analyzer.training.network import IMAGENET, Phase
from image_analyzer.training.sources import Sample, read_folder, read_labels, read_prefix, read_results

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow is loaded: progress, not its remarks
console = Console(stderr=True)
_MOST_ROWS = 1_000_000


def main(
    data: Annotated[str, typer.Argument(help="Folder, `s3://` prefix, or `results` for IMAGE_RESULTS.")],
    # What it is called
    leash: Annotated[bool, typer.Option(help="End when standard input is closed: with whoever started it.")] = False,
    name: Annotated[str, typer.Option(help="What the model is for; versions of one name compete.")] = "hints",
    licence: Annotated[str, typer.Option(help="Licence, for the model's manifest.")] = "unstated",
    # Labels of IMAGE_RESULTS
    labels: Annotated[
        Path | None,
        typer.Option(help="With `results`: csv with columns label and sha256 or image_uri.", dir_okay=False),
    ] = None,
    min_score: Annotated[
        float, typer.Option(help="With `results` and no --labels: take hints with this score for true.")
    ] = 0.9,
    # How to split
    seed: Annotated[int, typer.Option(help="Of the split, the shuffling and the augmentation.")] = 1,
    test: Annotated[float, typer.Option(help="Share of each class kept for judging.", min=0.01, max=0.5)] = 0.15,
    validation: Annotated[float, typer.Option(help="Share kept for stopping in time.", min=0.01, max=0.5)] = 0.15,
    # How to learn
    weights: Annotated[
        str, typer.Option(help="What to begin from: `imagenet`, or a file of MobileNetV2 weights.")
    ] = IMAGENET,
    batch: Annotated[int, typer.Option(help="Pictures at once.", min=1)] = 32,
    head_epochs: Annotated[int, typer.Option(help="At most so many, the head alone.", min=1)] = 20,
    head_rate: Annotated[float, typer.Option(help="Learning rate of that.")] = 1e-3,
    top_epochs: Annotated[int, typer.Option(help="At most so many, with the top blocks; 0 for none.", min=0)] = 15,
    top_rate: Annotated[float, typer.Option(help="Learning rate of that.")] = 5e-5,
    top_from: Annotated[str, typer.Option(help="First layer of MobileNetV2 that learns then.")] = "block_13_expand",
    patience: Annotated[int, typer.Option(help="Epochs without a better validation loss that end a phase.")] = 4,
) -> None:
    """Train, judge, convert, log to MLflow and register."""
    if leash:
        end_with_input()
    phases = [Phase(name="head", opens_from="", epochs=head_epochs, learning_rate=head_rate, patience=patience)]
    if top_epochs:
        top = Phase(name="top", opens_from=top_from, epochs=top_epochs, learning_rate=top_rate, patience=patience)
        phases.append(top)
    try:
        settings = load_settings()
        options = TrainOptions(
            name=_checked_name(name), weights=weights, seed=seed, batch=batch, phases=tuple(phases), licence=licence,
            shares=Shares(validation=validation, test=test), min_score=settings.hint_min_score,
        )  # fmt: skip
        samples = _find_samples(settings, data, labels, min_score)
        console.print(f"{len(samples)} files")
        tracker = wiring.make_tracker(settings)
        with contextlib.redirect_stdout(sys.stderr):  # Keras' progress: what is printed is the outcome alone
            done = train(samples, options, wiring.prepare_options(settings), tracker, _places(settings), _with_progress)
    except ImageAnalyzerError as error:
        _say(f"{type(error).__name__}: {error}")
        raise typer.Exit(os.EX_TEMPFAIL if isinstance(error, RetryableError) else 1) from None
    _show(done, settings)
    print(done.model_dump_json())


def _checked_name(name: str) -> str:
    if not all(letter.isalnum() or letter in "-_" for letter in name) or not name:
        raise ConfigurationError(f"--name {name!r}: letters, digits, - and _ only; it becomes a folder")
    return name


def _find_samples(settings: Settings, data: str, labels: Path | None, min_score: float) -> list[Sample]:
    if data == "results":
        rows = wiring.make_warehouse(settings).select_results(_MOST_ROWS, {})
        return read_results(wiring.make_store(settings), rows, read_labels(labels) if labels else None, min_score)
    if data.startswith("s3://"):
        return read_prefix(wiring.make_store(settings), data)
    return read_folder(Path(data))


def _places(settings: Settings) -> Places:
    return Places(
        work=settings.local_stack_dir / "training",
        models=settings.models_dir,
        saved_model=settings.models_dir / "tf_saved_model",
        baseline=wiring.SHIPPED_MODELS / wiring.IMAGENET_MODEL,
    )


def _with_progress(outcomes: Iterable[Crop | Fault], count: int) -> Iterable[Crop | Fault]:
    return track(outcomes, description="Reading", console=console, total=count)


def _show(done: Trained, settings: Settings) -> None:
    table = Table("class", "held out", "precision", "recall", "ImageNet recall", box=None)
    for mine, theirs in zip(done.scores.classes, done.zero_shot.classes, strict=True):
        table.add_row(
            mine.label, str(mine.pictures), f"{mine.precision:.0%}", f"{mine.recall:.0%}", f"{theirs.recall:.0%}"
        )
    console.print(table)
    sides = ", ".join(f"{count} {side}" for side, count in sorted(done.sides.items()))
    _say(f"{len(done.classes)} classes; pictures: {sides}; left out: {len(done.faults)}")
    for fault in done.faults[:20]:
        _say(f"  {fault.name}: {fault.message}")
    _say(
        f"accuracy {done.scores.accuracy:.1%} on {done.scores.pictures} held-out pictures (ImageNet's labels, untrained: "
        f"{done.zero_shot.accuracy:.1%}); hints at {settings.hint_min_score} or more: {done.scores.hinted:.0%} of them, "
        f"{done.scores.hinted_right:.0%} right"
    )
    same, differs = done.agreement.same_label, done.agreement.largest_difference
    _say(f"converted: the same label on {same:.1%}, scores differ by {differs:.3f} at most")
    _say(done.contest.sentence)
    _say(
        f"{settings.models_dir / done.model}, MLflow run {done.run_id}, {done.seconds:.0f} s, {done.peak_bytes / 1e9:.2f} GB"
    )
    _say(f"Use it: image-analyzer model use {done.model}")


def _say(line: str) -> None:
    """Print a line as it is: neither wrapped, which would cut paths in logs, nor read as markup."""
    console.print(line, markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    typer.run(main)
