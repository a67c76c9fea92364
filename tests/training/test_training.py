"""Whole trainings in processes of their own, small ones: MobileNetV2 from chance on painted pictures, a real MLflow store."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import Night
from filelock import FileLock
from PIL import Image
from pipeline import Pipeline

from image_analyzer import commands
from image_analyzer.clients.litert_model import read_manifest
from image_analyzer.clients.mlflow_tracker import MlflowTracker, Version
from image_analyzer.errors import ConfigurationError, RetryableError
from image_analyzer.fingerprints import Fingerprint
from image_analyzer.settings import PROJECT_ROOT, Settings
from image_analyzer.training import champions
from image_analyzer.training.champions import hold_contest
from image_analyzer.training.crops import SEES, Pixels
from image_analyzer.training.dataset import Example, Side
from image_analyzer.training.judging import Data
from image_analyzer.training.network import Phase, build_network, open_layers, save_network
from image_analyzer.training.room import only_one

COLOURS = {"red": (200, 40, 40), "green": (40, 170, 60)}


def paint_noise(colour: tuple[int, int, int], number: int) -> bytes:
    """Return a noisy picture of one colour; no two look alike."""
    random = np.random.default_rng([number, *colour])
    coarse = random.integers(-60, 60, (8, 8, 3)).repeat(16, 0).repeat(16, 1)
    pixels = np.clip(np.array(colour) + coarse, 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def save_seeing_weights(file: Path) -> None:
    """Save MobileNetV2 as chance made it, its normalisation set by some noise: colours can be told by what it gives."""
    import keras

    keras.utils.set_random_seed(1)
    base = keras.applications.MobileNetV2((224, 224, 3), include_top=False, weights=None)
    for layer in base.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    base(np.random.default_rng(1).uniform(-1, 1, (8, 7, 7, 3)).repeat(32, 1).repeat(32, 2), training=True)
    base.save_weights(file)


class School:
    """A data set, a place for models and an MLflow store of one's own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.data, self.models = folder, folder / "data", folder / "models"
        self.tracking_uri = f"sqlite:///{folder / 'mlflow.db'}"
        self.outcome = folder / "outcome.json"

    def open(self) -> None:
        """Bring pictures and weights."""
        for label, colour in COLOURS.items():
            (self.data / label).mkdir(parents=True)
            for number in range(48):
                (self.data / label / f"{number}.jpg").write_bytes(paint_noise(colour, number))
        save_seeing_weights(self.folder / "base.weights.h5")
        (self.data / "red" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 broken")

    def copy(self, folder: Path) -> School:
        """Return another that knows the same so far."""
        shutil.copytree(self.folder, folder)
        return School(folder)

    def start(self, *options: str, **more: Any) -> subprocess.Popen[str]:
        """Start a training."""
        quick = ["--weights", "base.weights.h5", "--batch", "8", "--test", "0.5", "--validation", "0.1"]
        command = [sys.executable, str(PROJECT_ROOT / "models" / "train.py"), str(self.data), "--name", "colours"]
        environment = {
            **{k: v for k, v in os.environ.items() if k.lower() not in Settings.model_fields},
            "MLFLOW_TRACKING_URI": self.tracking_uri,
            "LOCAL_STACK_DIR": str(self.folder / "local"),
            "MODELS_DIR": str(self.models),
            "HINT_MIN_SCORE": "0.6",
        }
        return subprocess.Popen(
            [*command, *quick, *options], env=environment, cwd=self.folder, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more,
        )  # fmt: skip

    def train(self, *options: str) -> dict[str, Any]:
        """Train to the end and return the outcome."""
        process = self.start(*options)
        out, err = process.communicate(timeout=600)
        assert process.returncode == 0, err[-3_000:]
        outcome: dict[str, Any] = json.loads(out)
        return {**outcome, "said": err}

    @property
    def tracker(self) -> MlflowTracker:
        """The store, as any process sees it."""
        return MlflowTracker(self.tracking_uri, None)


GOOD = ("--head-epochs", "12", "--head-rate", "0.01", "--top-epochs", "1", "--patience", "12")
LEARNS_NOTHING = ("--head-epochs", "1", "--head-rate", "1e-9", "--top-epochs", "0", "--seed", "1")


@pytest.fixture(scope="session")
def school(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> School:
    """Pictures of two colours and a first training, killed in its second epoch and given again: once for all workers."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "school"
    folder.mkdir(exist_ok=True)
    school = School(folder)
    with FileLock(f"{folder}.lock"):
        if not school.outcome.exists():
            school.open()
            _kill_in_second_epoch(school)
            school.outcome.write_text(json.dumps(school.train(*GOOD)))
    return school


@pytest.fixture
def champion(school: School) -> dict[str, Any]:
    """The outcome of that training."""
    outcome: dict[str, Any] = json.loads(school.outcome.read_text())
    return outcome


def _kill_in_second_epoch(school: School) -> None:
    scrap = school.data / "green" / "scrap.jpg"
    scrap.write_bytes(b"no picture")
    killed = school.start(*GOOD, start_new_session=True)
    history = school.folder / "local" / "training"
    deadline = time.monotonic() + 300
    while not [file for file in history.glob("*/head/history.jsonl") if file.read_text().count("\n") == 1]:
        assert killed.poll() is None, killed.communicate()[1][-3_000:]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.5)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    scrap.unlink()  # as one does with what the first try has reported


def test_a_killed_training_goes_on_and_is_one_run(school: School, champion: dict[str, Any]) -> None:
    """The epochs before the kill are not trained again; MLflow has one run with all epochs, and its children by process."""
    assert "Epoch 1/12" not in champion["said"]
    assert "Epoch 12/12" in champion["said"]
    client = school.tracker._client
    (experiment,) = [e for e in client.search_experiments() if e.name == "hint_models"]
    runs = client.search_runs([experiment.experiment_id])
    states = sorted((run.info.run_name, run.info.status) for run in runs)
    assert [("colours", "FINISHED"), ("head", "FINISHED"), ("head", "KILLED"), ("top", "FINISHED")] == states
    epochs = [metric.step for metric in client.get_metric_history(champion["run_id"], "head_val_loss")]
    assert list(range(12)) == epochs
    (head,) = (run for run in runs if run.info.run_name == "head" and run.info.status == "FINISHED")
    assert 0 not in {metric.step for metric in client.get_metric_history(head.info.run_id, "val_loss")}
    assert [] == list((school.folder / "local" / "training").glob("*/"))


def test_a_training_is_told_whole(school: School, champion: dict[str, Any]) -> None:
    """MLflow has data, code, split, figures and pictures; the broken file is named; the first of its name is champion."""
    run = school.tracker._client.get_run(champion["run_id"])
    files = {file.path for folder in (None, "plots", "hint_model") for file in
             school.tracker._client.list_artifacts(champion["run_id"], folder)}  # fmt: skip

    assert {"data.jsonl", "faults.jsonl", "classes.json", "confusion.json", "plots/confusion.png", "plots/history.png",
            "plots/predictions.png", "hint_model/model.tflite", "hint_model/labels.txt"} <= files  # fmt: skip
    assert {"data_sha256", "seed", "pictures_train", "weights"} <= set(run.data.params)
    assert len(run.data.tags["code_version"]) >= 40
    assert ["red/broken.jpg"] == [fault["name"] for fault in champion["faults"]]
    assert "red/broken.jpg" in champion["said"]
    assert (48, 38, 10) == tuple(champion["sides"][side] for side in ("test", "train", "validation"))
    assert champion["scores"]["accuracy"] == run.data.metrics["test_accuracy"] > 0.8
    assert champion["agreement"]["largest_difference"] < 0.05
    assert ("1", champion["run_id"]) == school.tracker.champion("colours")[1:3]  # type: ignore[index]


def test_a_worse_model_does_not_become_champion(school: School, champion: dict[str, Any], tmp_path: Path) -> None:
    """It is registered, the alias stays."""
    later = school.copy(tmp_path / "later")
    worse = later.train(*LEARNS_NOTHING)

    assert not worse["contest"]["won"]
    assert worse["contest"]["new"] < worse["contest"]["old"]
    assert "stays" in worse["said"]
    now = later.tracker.champion("colours")
    assert now is not None
    assert (champion["run_id"], "2") == (now.run_id, worse["version"])


def test_a_model_that_knows_less_does_not_become_champion(
    school: School, champion: dict[str, Any], tmp_path: Path
) -> None:
    """A class that the champion knows and the new one does not is named; no figure makes up for it."""
    (tmp_path / "labels.txt").write_text("red\n")
    new = Version("colours", "9", "another", "colours-9")
    data = Data([], [], ("red",), {}, Pixels(tmp_path / "pixels.bin", 0, SEES), {})

    contest = hold_contest(school.tracker, new, tmp_path, data, 0.6)

    assert not contest.won
    assert "also knows green" in contest.sentence
    assert champion["run_id"] == school.tracker.champion("colours").run_id  # type: ignore[union-attr]


def test_a_class_more_does_not_make_a_worse_model_champion(
    school: School, champion: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Models are compared on the classes that both know; versions of what the champion learnt from are not fair to judge by."""
    (tmp_path / "labels.txt").write_text("blue\ngreen\nred\n")
    lines = school.tracker.fetch(champion["run_id"], "data.jsonl", tmp_path).read_text().splitlines()
    known = [json.loads(line) for line in lines]
    learnt = next(line for line in known if line["side"] == "train" and line["label"] == "red")
    examples = [
        Example(sha256=line["sha256"], label=line["label"], names=("x",), looks=Fingerprint(*line["looks"]))
        for line in known
        if line["side"] == "test"
    ]
    examples.append(Example(sha256="again", label="red", names=("y",), looks=Fingerprint(*learnt["looks"])))
    examples += [
        Example(sha256=f"b{n}", label="blue", names=("z",), looks=Fingerprint(f"{n:016x}", "#0000ff"))
        for n in range(30)
    ]
    data = Data(
        examples, [], ("blue", "green", "red"), {e.sha256: Side.TEST for e in examples},
        Pixels(tmp_path / "pixels.bin", 0, SEES), {e.sha256: n for n, e in enumerate(examples)},
    )  # fmt: skip
    judged: list[int] = []

    def score(folder: Path, _data: Data, chosen: Any, _min_score: float) -> Any:
        judged.append(len(chosen.indices))
        assert {1, 2} == set(chosen.classes)
        return SimpleNamespace(balanced_accuracy=0.9 if folder == tmp_path else 0.95)

    monkeypatch.setattr(champions, "score_folder", score)
    contest = hold_contest(school.tracker, Version("colours", "9", "another", "colours-9"), tmp_path, data, 0.6)

    assert [48, 48] == judged
    assert not contest.won
    assert "new: blue" in contest.sentence


def test_a_password_of_the_store_is_shown_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow prints the address it is given: it is given one without a password, which goes by the environment."""
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    import mlflow

    before = mlflow.get_tracking_uri()
    try:
        tracker = MlflowTracker("http://bob:S3cret%2FPw@127.0.0.1:9", None)
        assert ("bob", "S3cret/Pw") == (os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"])
        assert "S3cret" not in mlflow.get_tracking_uri()
        with pytest.raises(RetryableError) as caught, tracker.run("x", "y"):
            pass
        assert "S3cret" not in str(caught.value)
        with pytest.raises(RetryableError):
            tracker.knows("0" * 32)
    finally:
        mlflow.set_tracking_uri(before)
        mlflow.set_registry_uri(before)


def test_names_that_people_gave_survive_a_kill(tmp_path: Path) -> None:
    """A process that died between taking the old model away and putting the new one there has lost nothing."""
    old = tmp_path / "tf_saved_model.old"
    old.mkdir()
    (old / "label_aliases.json").write_text('{"a": "A"}')
    (tmp_path / ".saving-x").mkdir()

    class Network:
        def export(self, folder: Path, **_options: object) -> None:
            folder.mkdir()

    save_network(Network(), ["a"], tmp_path / "tf_saved_model", lambda file: file.name == "label_aliases.json")

    assert {"label_aliases.json", "label_classes.npy"} == {
        file.name for file in (tmp_path / "tf_saved_model").iterdir()
    }
    assert ["tf_saved_model"] == [file.name for file in tmp_path.iterdir()]


def test_the_champion_hints_in_the_nightly_run(
    school: School, champion: dict[str, Any], make_night: Callable[..., Night], monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:  # fmt: skip
    """`model use champion` brings it from MLflow; rows say which model hinted, with its labels; `imagenet` switches back."""
    monkeypatch.setattr(commands, "PROJECT_ROOT", tmp_path)
    night = make_night()
    models = tmp_path / "models"
    models.mkdir()
    settings = night.settings(mlflow_tracking_uri=school.tracking_uri, models_dir=models)
    name, file = commands.use_model(settings, "champion")
    assert f"HINT_MODEL={name}" in file.read_text()
    assert champion["model"] == name == read_manifest(models / name).name

    pipeline = Pipeline(night)
    pipeline.land(a__jpg=paint_noise(COLOURS["red"], 1_000), b__jpg=paint_noise(COLOURS["green"], 1_000))
    pipeline.run(night.settings(hint_model=name, models_dir=models))

    rows = pipeline.rows()
    assert {"a.jpg": ("red", name), "b.jpg": ("green", name)} == {
        key: (row["PREDICTED_LABEL"], row["HINT_MODEL"]) for key, row in rows.items()
    }
    commands.use_model(settings, "imagenet")
    assert "HINT_MODEL=imagenet-mobilenet-v2" in file.read_text()


@pytest.mark.parametrize(("options", "said"), [(("--batch", "100000"), "--batch"), (("--name", "a/b"), "--name")])
def test_what_cannot_work_is_said_before_it_is_tried(school: School, options: tuple[str, ...], said: str) -> None:
    """Too little memory, a name that cannot be: one sentence, and what to do."""
    process = school.start(*options)
    _, err = process.communicate(timeout=120)

    assert 1 == process.returncode
    assert said in err
    assert "Traceback" not in err


def test_missing_weights_and_layers_are_named(school: School) -> None:
    """Weights that are not there say where they may be put; a layer that MobileNetV2 has not is named."""
    phase = Phase(name="top", opens_from="block_99", epochs=1, learning_rate=1.0, patience=1)
    with pytest.raises(ConfigurationError, match="KERAS_HOME"):
        build_network(2, "nowhere.h5")
    with pytest.raises(ConfigurationError, match="block_99"):
        open_layers(build_network(2, str(school.folder / "base.weights.h5")), phase)


def test_two_trainings_do_not_share_a_machine(tmp_path: Path) -> None:
    """The second is told so; the place is free again when the first has ended."""
    with only_one(tmp_path), pytest.raises(ConfigurationError, match="another training"), only_one(tmp_path):
        pass
    with only_one(tmp_path):
        pass
