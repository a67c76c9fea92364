"""Converting, listing and choosing hint models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import paint

from image_analyzer import commands
from image_analyzer.clients.litert_model import LiteRTModel
from image_analyzer.conversion import convert_saved_model
from image_analyzer.errors import ConfigurationError
from image_analyzer.hints import make_hint, preprocess
from image_analyzer.settings import load_settings


@pytest.fixture(scope="module")
def saved_model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A SavedModel that tells red, green and blue pictures apart, with class names and aliases beside it."""
    import keras

    keras.utils.set_random_seed(1)
    inputs = keras.Input((64, 64, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(inputs)
    dense = keras.layers.Dense(3, activation="softmax")
    model = keras.Model(inputs, dense(pooled))
    dense.set_weights([4 * np.eye(3, dtype=np.float32), np.zeros(3, np.float32)])
    folder = tmp_path_factory.mktemp("model") / "tf_saved_model"
    model.export(folder, verbose=False)
    np.save(folder / "label_classes.npy", np.array(["class_0", "class_1", "class_2"]))
    (folder.parent / "label_aliases.json").write_text(
        json.dumps({"class_2": {"en": "blue thing", "fr": "chose bleue"}})
    )
    return folder


def test_a_converted_model_gives_the_same_labels(saved_model: Path, tmp_path: Path) -> None:
    """The converted folder loads, keeps the aliases, and labels as the original does."""
    folder = convert_saved_model(saved_model, "colours", licence="CC0", scaling="keras", models_folder=tmp_path)
    model = LiteRTModel(folder, 1)

    found = {}
    for colour in ("red", "lime", "blue"):
        scores = model.predict(preprocess(paint(colour, (100, 80)), model.preprocessing)[None])[0]
        found[colour] = make_hint("x", scores, model.labels, model.name).labels[0].label

    assert {"red": "class 0", "lime": "class 1", "blue": "blue thing"} == found
    assert {"blue thing": {"en": "blue thing", "fr": "chose bleue"}} == model.translations
    assert ("colours", "CC0", 64) == (model.manifest.name, model.manifest.licence, model.manifest.input_px)


def test_what_does_not_fit_is_refused(saved_model: Path, tmp_path: Path) -> None:
    """Missing class names, a wrong number of them, a folder that is no model: each says what is wrong."""
    with pytest.raises(ConfigurationError, match=r"label_classes\.npy"):
        convert_saved_model(tmp_path, "x", licence="", scaling="keras", models_folder=tmp_path / "m")
    np.save(tmp_path / "label_classes.npy", np.array(["one"]))
    with pytest.raises(ConfigurationError, match="no SavedModel"):
        convert_saved_model(tmp_path, "x", licence="", scaling="keras", models_folder=tmp_path / "m")
    with pytest.raises(ConfigurationError, match="--scaling"):
        convert_saved_model(saved_model, "x", licence="", scaling="other", models_folder=tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_choosing_a_model_checks_it_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`use` writes HINT_MODEL into `.env` and leaves its other lines; a name without a model changes nothing."""
    settings = load_settings(mlflow_tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    (tmp_path / ".env").write_text("S3_BUCKET=mine\n")
    monkeypatch.setattr(commands, "PROJECT_ROOT", tmp_path)

    with pytest.raises(ConfigurationError, match="no model no-such-model"):
        commands.use_model(settings, "no-such-model")
    assert (tmp_path / ".env").read_text() == "S3_BUCKET=mine\n"
    commands.use_model(settings, "imagenet-mobilenet-v2")
    assert (tmp_path / ".env").read_text() == "S3_BUCKET=mine\nHINT_MODEL=imagenet-mobilenet-v2\n"
