"""One training from labelled files to a model that the nightly run can load, with all that was measured on the way."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from image_analyzer.clients.litert_model import ALIASES_FILE
from image_analyzer.clients.mlflow_tracker import HINT_MODEL, MlflowTracker
from image_analyzer.conversion import convert_saved_model
from image_analyzer.errors import QualityError
from image_analyzer.jsonl import dump_lines
from image_analyzer.records import Record
from image_analyzer.settings import PROJECT_ROOT
from image_analyzer.steps.prepare import PrepareOptions
from image_analyzer.training.champions import Contest, hold_contest
from image_analyzer.training.crops import INPUT_PX, SEES, Crop, Pixels, read_crops
from image_analyzer.training.dataset import (
    Example,
    Fault,
    Shares,
    Side,
    check_classes,
    class_weights,
    join_contents,
    make_manifest,
    split,
)
from image_analyzer.training.judging import Agreement, Chosen, Data, measure_agreement, score_folder, score_predictions
from image_analyzer.training.keeping import Kept, make_callback
from image_analyzer.training.network import (
    Phase,
    build_network,
    make_batches,
    open_layers,
    predict,
    save_network,
)
from image_analyzer.training.plots import Called, plot_confusion, plot_history, plot_predictions
from image_analyzer.training.room import check_room, only_one, peak_memory
from image_analyzer.training.scores import Scores
from image_analyzer.training.sources import Sample

log = logging.getLogger(__name__)
EXPERIMENT = "hint_models"
DATA_FILE = "data.jsonl"
# Of a score, by weights of 16 bits: 0.015 at most on 400 photographs (models/README.md).
_MOST_DIFFERENCE = 0.05
_SHOWN = 24
_SHOWN_WRONG = 8


Shown = Callable[[Iterable[Crop | Fault], int], Iterable[Crop | Fault]]


def _unshown(outcomes: Iterable[Crop | Fault], count: int) -> Iterable[Crop | Fault]:  # noqa: ARG001
    return outcomes


class TrainOptions(Record):
    """How to train.

    Attributes:
        name: What the model is for; versions of one name compete for being champion.
        min_score: From which score a hint is told to the captioner, HINT_MIN_SCORE.
        licence: Of the pictures or the model, for its manifest.
    """

    name: str
    weights: str
    seed: int
    batch: int
    shares: Shares
    phases: tuple[Phase, ...]
    min_score: float
    licence: str


class Places(NamedTuple):
    """Where things lie.

    Attributes:
        work: What a killed training goes on from; one folder per data set and options.
        models: Where models to choose from lie.
        saved_model: Where the Keras model is left.
        baseline: Folder of the model without training that the new one is shown beside.
    """

    work: Path
    models: Path
    saved_model: Path
    baseline: Path


class Trained(Record):
    """What came of a training.

    Attributes:
        zero_shot: The baseline on the same pictures.
        agreement: Of the converted model with the Keras model.
        version: In the registry.
        seconds, peak_bytes: Of this process; what an earlier one took before it was killed is not in them.
    """

    run_id: str
    model: str
    version: str
    classes: tuple[str, ...]
    sides: dict[str, int]
    faults: tuple[Fault, ...]
    scores: Scores
    zero_shot: Scores
    agreement: Agreement
    contest: Contest
    seconds: float
    peak_bytes: int


def train(
    samples: Sequence[Sample],
    options: TrainOptions,
    reading: PrepareOptions,
    tracker: MlflowTracker,
    places: Places,
    shown: Shown = _unshown,
) -> Trained:
    """Train, judge, convert, log and register; a training that was killed goes on from its last epoch.

    Args:
        shown: Wraps what comes of the files, so many, in a progress bar.

    Raises:
        ConfigurationError: The data set, the weights, memory or disk will not do.
        QualityError: The converted model does not say what the trained one says.
    """
    places.work.mkdir(parents=True, exist_ok=True)
    with only_one(places.work):
        check_room(places.work, len(samples), INPUT_PX, options.batch)
        return _train(samples, options, reading, tracker, places, shown)


def _train(
    samples: Sequence[Sample],
    options: TrainOptions,
    reading: PrepareOptions,
    tracker: MlflowTracker,
    places: Places,
    shown: Shown,
) -> Trained:
    started = time.monotonic()
    data = _read(samples, options, reading, places.work, shown)
    manifest = make_manifest(data.examples, data.sides)
    work = places.work / _digest(manifest, options.model_dump_json().encode())
    work.mkdir(exist_ok=True)
    earlier = _earlier_run(work, tracker)
    with tracker.run(EXPERIMENT, options.name, earlier) as run_id:
        (work / "run_id").write_text(run_id)
        # No parameter, which could not change: a broken file may be taken away before a run goes on.
        faults = {"faults": float(len(data.faults))}
        tracker.log(_params(options, data, manifest), faults, {"code_version": code_version(), "model": options.name})
        tracker.log_file(DATA_FILE, manifest)
        tracker.log_file("faults.jsonl", dump_lines(data.faults))
        network, history = _fit(data, options, tracker, work)
        save_network(network, data.classes, places.saved_model, lambda file: file.name == ALIASES_FILE)
        model = f"{options.name}-{run_id[:8]}"
        folder = convert_saved_model(
            places.saved_model, model, licence=options.licence, scaling="keras", models_folder=places.models,
            origin=f"MobileNetV2 from {options.weights} weights, trained by run {run_id}",
        )  # fmt: skip
        test = data.side(Side.TEST)
        said = predict(network, data.pixels, test.indices, options.batch)
        scores = score_predictions(data, test, said, data.classes, options.min_score)
        zero_shot = score_folder(places.baseline, data, test, options.min_score)
        agreement = measure_agreement(folder, data, test, said)
        _log_results(tracker, data, test, said, history, scores, zero_shot, agreement)
        tracker.log_folder(folder, HINT_MODEL)
        if agreement.largest_difference > _MOST_DIFFERENCE:
            raise QualityError(
                f"the converted model's scores differ by up to {agreement.largest_difference:.3f} from the trained one's"
            )
        version = tracker.register(network, data.pixels.inputs(test.indices[:1]), options.name, run_id, model)
        contest = hold_contest(tracker, version, folder, data, options.min_score)
        cost = {"seconds": time.monotonic() - started, "peak_bytes": float(peak_memory())}
        tracker.log({}, {"champion_beaten": float(contest.won), **cost}, {"contest": contest.sentence})
    shutil.rmtree(work)
    data.pixels.file.unlink()
    return Trained(
        run_id=run_id, model=model, version=version.version, classes=data.classes,
        sides=dict(Counter(map(str, data.sides.values()))), faults=tuple(data.faults), scores=scores, zero_shot=zero_shot,
        agreement=agreement, contest=contest, seconds=round(time.monotonic() - started, 1), peak_bytes=peak_memory(),
    )  # fmt: skip


def _read(
    samples: Sequence[Sample],
    options: TrainOptions,
    reading: PrepareOptions,
    folder: Path,
    shown: Shown,
) -> Data:
    pixels = Pixels(folder / "pixels.bin", len(samples), SEES)
    found: list[Example] = []
    faults: list[Fault] = []
    rows: dict[str, int] = {}
    for index, outcome in enumerate(shown(read_crops(samples, SEES, reading), len(samples))):
        if isinstance(outcome, Crop):
            pixels.put(index, outcome.pixels)
            found.append(outcome.example)
            rows[outcome.example.sha256] = index
        else:
            faults.append(outcome)
            log.warning("%s is left out: %s", outcome.name, outcome.message)
    examples, twice = join_contents(found)
    classes = check_classes(examples)
    return Data(examples, faults + twice, classes, split(examples, options.shares, options.seed), pixels, rows)


def _digest(*parts: bytes) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _earlier_run(work: Path, tracker: MlflowTracker) -> str | None:
    """Return the run of the killed training, if its store still knows it; else what was learnt goes into a new one."""
    file = work / "run_id"
    run_id = file.read_text() if file.exists() else None
    return run_id if run_id and tracker.knows(run_id) else None


def _params(options: TrainOptions, data: Data, manifest: bytes) -> dict[str, Any]:
    counts = Counter(data.sides.values())
    return {
        "data_sha256": hashlib.sha256(manifest).hexdigest(),
        "seed": options.seed,
        "classes": ",".join(data.classes)[:500],
        "weights": options.weights,
        "batch": options.batch,
        **{f"pictures_{side}": counts[side] for side in Side},
        **{f"{phase.name}_{name}": value for phase in options.phases for name, value in phase.model_dump().items()},
    }


def code_version() -> str:
    """Return the commit of this project, marked if files differ from it; `unknown` outside a clone."""
    git = ["git", "-C", str(PROJECT_ROOT)]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{commit}{'-changed' if changed.strip() else ''}"


def _fit(
    data: Data, options: TrainOptions, tracker: MlflowTracker, work: Path
) -> tuple[Any, dict[str, list[dict[str, float]]]]:
    """Train phase by phase; return the network with the best weights, and each phase's figures by epoch."""
    import keras

    keras.utils.set_random_seed(options.seed)
    network = build_network(len(data.classes), options.weights)
    learnt = make_batches(data.pixels, data.side(Side.TRAIN), options.batch, seed=options.seed)
    checked = make_batches(data.pixels, data.side(Side.VALIDATION), options.batch, seed=None)
    weights = class_weights(data.examples, data.sides, data.classes)
    history: dict[str, list[dict[str, float]]] = {}
    for phase in options.phases:
        kept = Kept(work / phase.name, phase.patience, phase.epochs)
        open_layers(network, phase)
        if not kept.has_ended:
            with tracker.phase(phase.name):
                network.fit(
                    learnt, validation_data=checked, initial_epoch=kept.go_on(network), epochs=phase.epochs,
                    class_weight=weights, verbose="auto", callbacks=[make_callback(kept)],
                )  # fmt: skip
        kept.load_best(network)
        history[phase.name] = kept.history
    return network, history


def _log_results(
    tracker: MlflowTracker,
    data: Data,
    test: Chosen,
    said: np.ndarray,
    history: dict[str, list[dict[str, float]]],
    scores: Scores,
    zero_shot: Scores,
    agreement: Agreement,
) -> None:
    for phase, epochs in history.items():
        tracker.log_epochs(phase, epochs)
    best = {
        "converted_same_label": agreement.same_label,
        "converted_largest_difference": agreement.largest_difference,
        "epochs": float(sum(map(len, history.values()))),
    }
    per_class = {f"recall_{n}": entry.recall for n, entry in enumerate(scores.classes)}
    tracker.log({}, {**scores.metrics("test"), **zero_shot.metrics("zero_shot"), **best, **per_class}, {})
    tracker.log_file("classes.json", json.dumps([c.model_dump() for c in scores.classes], indent=1).encode())
    tracker.log_file("confusion.json", json.dumps({"labels": data.classes, "counts": scores.confusion}).encode())
    tracker.log_file("plots/confusion.png", plot_confusion(data.classes, scores))
    tracker.log_file("plots/zero_shot.png", plot_confusion(data.classes, zero_shot))
    tracker.log_file("plots/history.png", plot_history(history))
    tracker.log_file("plots/predictions.png", plot_predictions(_pick(data, test, said)))


def _pick(data: Data, test: Chosen, said: np.ndarray) -> list[Called]:
    """Return pictures to look at: wrong ones first, then others in order of their hash."""
    called = [
        Called(data.pixels.raw(int(index)), data.classes[true], data.classes[row.argmax()], float(row.max()))
        for index, true, row in zip(test.indices, test.classes, said, strict=True)
    ]
    wrong = [one for one in called if one.true != one.said][:_SHOWN_WRONG]
    return (wrong + [one for one in called if one.true == one.said])[:_SHOWN]
