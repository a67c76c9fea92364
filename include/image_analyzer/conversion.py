"""Turns a Keras SavedModel into the folder that the nightly run loads. The one place that needs TensorFlow at run time."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from image_analyzer.clients.litert_model import (
    ALIASES_FILE,
    LABELS_FILE,
    MANIFEST_FILE,
    MODEL_FILE,
    ModelManifest,
    load_model,
)
from image_analyzer.errors import ConfigurationError
from image_analyzer.hints import Preprocessing

CLASSES_FILE = "label_classes.npy"
# Pixel values in 0..1 become (value - mean) / std.
SCALINGS = {
    "keras": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),  # keras.applications.mobilenet_v2: -1..1
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}


def convert_saved_model(
    saved_model: Path,
    name: str,
    *,
    licence: str,
    scaling: str,
    models_folder: Path,
    origin: str = "",
) -> Path:
    """Convert and check a model; return its folder.

    Args:
        saved_model: With `label_classes.npy` (class names in output order) in it or beside it, and perhaps
            `label_aliases.json`.
        scaling: `keras` or `imagenet`.
        origin: Where the model comes from, for its manifest; the SavedModel's name if empty.

    Raises:
        ConfigurationError: Something is missing or does not fit together.
    """
    if scaling not in SCALINGS:
        raise ConfigurationError(f"--scaling {scaling}: choose {' or '.join(SCALINGS)}")
    classes_file = _find(saved_model, CLASSES_FILE)
    if classes_file is None:
        raise ConfigurationError(f"{CLASSES_FILE} is neither in {saved_model} nor beside it")
    labels = [str(label) for label in np.load(classes_file, allow_pickle=False)]
    content, input_px, classes = _convert(saved_model)
    if classes != len(labels):
        raise ConfigurationError(f"the model has {classes} outputs, {CLASSES_FILE} names {len(labels)} classes")
    mean, std = SCALINGS[scaling]
    text = "\n".join(labels) + "\n"
    manifest = ModelManifest(
        name=name,
        origin=origin or f"Keras SavedModel {saved_model.name}",
        licence=licence,
        input_px=input_px,
        preprocessing=Preprocessing(
            resize_shorter_side_px=round(input_px * 256 / 224), crop_px=input_px, mean=mean, std=std
        ),
        model_sha256=hashlib.sha256(content).hexdigest(),
        labels_sha256=hashlib.sha256(text.encode()).hexdigest(),
    )
    folder = models_folder / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MODEL_FILE).write_bytes(content)
    (folder / LABELS_FILE).write_text(text, encoding="utf-8")
    (folder / MANIFEST_FILE).write_text(json.dumps(manifest.model_dump(), indent=2) + "\n", encoding="utf-8")
    aliases = _find(saved_model, ALIASES_FILE)
    if aliases is not None:
        shutil.copyfile(aliases, folder / ALIASES_FILE)
    load_model(folder, 1)
    return folder


def _convert(saved_model: Path) -> tuple[bytes, int, int]:
    """Return the `.tflite` with float16 weights, the input's side in pixels, and the number of classes."""
    try:
        import tensorflow as tf
    except ImportError:
        raise ConfigurationError("TensorFlow is not installed: pip install -r requirements.txt") from None
    try:
        converter: Any = tf.lite.TFLiteConverter.from_saved_model(str(saved_model))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{saved_model} is no SavedModel: {error}") from None
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_types = [tf.float16]
    content = bytes(converter.convert())
    interpreter = tf.lite.Interpreter(model_content=content)
    (source,), (output,) = interpreter.get_input_details(), interpreter.get_output_details()
    _, height, width, channels = source["shape"]
    if height != width or channels != 3:
        raise ConfigurationError(f"the model takes {height} x {width} x {channels}, not a square RGB picture")
    return content, int(height), int(output["shape"][-1])


def _find(saved_model: Path, name: str) -> Path | None:
    places = (saved_model / name, saved_model.parent / name)
    return next((place for place in places if place.exists()), None)
