"""The shipped model on real photographs, and how its folder is checked."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import paint, photograph

from image_analyzer.clients.litert_model import LiteRTModel
from image_analyzer.errors import ConfigurationError
from image_analyzer.hints import Preprocessing, alias_labels, make_hint, preprocess, strong_label
from image_analyzer.records import Hint, Label
from image_analyzer.settings import PROJECT_ROOT

FOLDER = PROJECT_ROOT / "models" / "imagenet-mobilenet-v2"


@pytest.fixture(scope="module")
def model() -> LiteRTModel:
    """The model that the repository ships."""
    return LiteRTModel(FOLDER, 2)


@pytest.mark.parametrize(
    ("name", "label"),
    [("chelsea.png", "Egyptian cat"), ("coffee.png", "espresso"), ("china.jpg", "palace"), ("camera.png", "tripod")],
)
def test_real_labels_on_real_photographs(model: LiteRTModel, name: str, label: str) -> None:
    """A cat, a cup of coffee, a palace and a tripod are labelled as what they are, with a strong score."""
    scores = model.predict(preprocess(photograph(name), model.preprocessing)[None])[0]

    hint = make_hint("x", scores, model.labels, model.name)

    assert label == hint.labels[0].label == strong_label(hint, 0.6)
    assert 3 == len(hint.labels)
    assert hint.labels[0].score >= hint.labels[1].score >= hint.labels[2].score


def test_the_first_label_is_among_what_people_saw(model: LiteRTModel, assets: Path) -> None:
    """On photographs that show an animal ImageNet knows, the three labels name one of its kind."""
    kinds = {"bear": "bear", "zebra": "zebra", "elephant": "elephant", "giraffe": None, "pizza": "pizza"}
    rows = [json.loads(line) for line in (assets / "photos" / "photos.jsonl").read_text().splitlines()]
    tried = right = 0
    for row in rows:
        wanted = next((kinds[name] for name in row["objects"] if kinds.get(name)), None)
        if wanted is None:
            continue
        jpeg = (assets / "photos" / row["file"]).read_bytes()
        hint = make_hint("x", model.predict(preprocess(jpeg, model.preprocessing)[None])[0], model.labels, model.name)
        tried += 1
        right += any(wanted in label.label for label in hint.labels)
    assert tried >= 3
    assert right >= 0.6 * tried


def test_scores_are_probabilities_and_batches_change_nothing(model: LiteRTModel) -> None:
    """Scores of a picture sum to one, and are the same alone and in company."""
    inputs = np.stack(
        [preprocess(paint(colour, (300, 200)), model.preprocessing) for colour in ("red", "blue", "green")]
    )

    together = model.predict(inputs)

    assert (3, 1000) == together.shape
    np.testing.assert_allclose(together.sum(axis=1), 1.0, atol=1e-3)
    np.testing.assert_allclose(together[1], model.predict(inputs[1:2])[0], atol=1e-5)


def test_preprocessing_is_the_manifests() -> None:
    """A white picture becomes (1 - mean) / std in a square of the asked side, whatever its shape."""
    how = Preprocessing(resize_shorter_side_px=64, crop_px=48, mean=(0.5, 0.4, 0.3), std=(0.5, 0.2, 0.1))
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (500, 90), "white").save(buffer, "JPEG")
    pixels = preprocess(buffer.getvalue(), how)

    assert ((48, 48, 3), np.float32) == (pixels.shape, pixels.dtype)
    np.testing.assert_allclose(pixels[24, 24], [1.0, 3.0, 7.0], atol=1e-4)


def test_a_weak_hint_is_not_told() -> None:
    """Below the threshold, or without a hint, the captioner hears nothing."""
    hint = Hint(sha256="x", model="m", labels=(Label(label="cat", score=0.59),))

    assert strong_label(hint, 0.6) is None
    assert strong_label(None, 0.6) is None
    assert "cat" == strong_label(hint, 0.59)


def test_aliases_rename_and_translate() -> None:
    """A class gets its alias as its English name, and its translations where there are some."""
    names, translations = alias_labels(["class_4", "tiger_cat"], {"class_4": {"en": "bee", "fr": "abeille"}, "x": "y"})

    assert ["bee", "tiger cat"] == names
    assert {"bee": {"en": "bee", "fr": "abeille"}} == translations
    assert ["Golden retriever"] == alias_labels(["class_4"], {"class_4": "Golden retriever"})[0]


@pytest.mark.parametrize("file", ["model.tflite", "labels.txt"])
def test_a_changed_file_is_refused(tmp_path: Path, file: str) -> None:
    """A model that is not the one its manifest names does not load."""
    shutil.copytree(FOLDER, tmp_path / "m")
    with (tmp_path / "m" / file).open("ab") as content:
        content.write(b"\n")

    with pytest.raises(ConfigurationError, match="sha256"):
        LiteRTModel(tmp_path / "m", 1)


def test_no_model_says_what_to_set(tmp_path: Path) -> None:
    """An empty folder names the settings that help."""
    with pytest.raises(ConfigurationError, match="USE_TF_HINT"):
        LiteRTModel(tmp_path, 1)
