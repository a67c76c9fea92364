"""The network: MobileNetV2 with a head of one's own classes, trained in two phases."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from image_analyzer.errors import ConfigurationError
from image_analyzer.records import Record
from image_analyzer.training.crops import INPUT_PX, Pixels
from image_analyzer.training.judging import Chosen

_DROPOUT = 0.3
_SHUFFLED_AT_ONCE = 10_000
_WEIGHTS_FILE = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"
IMAGENET = "imagenet"


class Phase(Record):
    """One phase of training.

    Attributes:
        opens_from: First layer of MobileNetV2 that learns; empty: only the head does.
        patience: Epochs without a better validation loss after which it ends.
    """

    name: str
    opens_from: str
    epochs: int
    learning_rate: float
    patience: int


def build_network(classes: int, weights: str) -> Any:
    """Return a Keras model: `(N, 224, 224, 3)` in -1..1 to `(N, classes)`, softmax.

    Args:
        weights: `imagenet`, which Keras keeps below KERAS_HOME or downloads; a file of MobileNetV2 weights without its
            classifier.

    Raises:
        ConfigurationError: The weights are not there and cannot be had.
    """
    import keras

    inputs = keras.Input((INPUT_PX, INPUT_PX, 3))
    base = _load_base(weights)
    base.trainable = False
    # In inference mode always: the statistics of a few hundred pictures are worse than ImageNet's.
    features = base(inputs, training=False)
    scores = keras.layers.Dense(classes, activation="softmax", name="scores")(keras.layers.Dropout(_DROPOUT)(features))
    return keras.Model(inputs, scores, name="hint_model")


def _load_base(weights: str) -> Any:
    import keras

    shape = (INPUT_PX, INPUT_PX, 3)
    try:
        return keras.applications.MobileNetV2(shape, include_top=False, weights=weights, pooling="avg", name="base")
    except Exception as error:  # urllib's, h5py's and Keras' own: all mean the same to whoever asked
        raise ConfigurationError(
            f"the weights of MobileNetV2 ({weights}) cannot be had: {error}. Without a network put {_WEIGHTS_FILE} into "
            "KERAS_HOME/models (or ~/.keras/models), or name the file: --weights FILE"
        ) from None


def open_layers(network: Any, phase: Phase) -> None:
    """Set which layers learn in a phase, and compile for it.

    Raises:
        ConfigurationError: MobileNetV2 has no such layer.
    """
    import keras

    base = network.get_layer("base")
    base.trainable = bool(phase.opens_from)
    if phase.opens_from:
        names = [layer.name for layer in base.layers]
        if phase.opens_from not in names:
            raise ConfigurationError(
                f"MobileNetV2 has no layer {phase.opens_from}; the last are {', '.join(names[-6:])}"
            )
        for layer in base.layers[: names.index(phase.opens_from)]:
            layer.trainable = False
    network.compile(
        keras.optimizers.Adam(phase.learning_rate), keras.losses.SparseCategoricalCrossentropy(), metrics=["accuracy"]
    )


def make_batches(pixels: Pixels, side: Chosen, batch: int, *, seed: int | None) -> Any:
    """Return a `tf.data.Dataset` of (inputs, classes).

    Args:
        seed: Shuffle and augment with it; None: in order, as they are.
    """
    import keras
    import tensorflow as tf

    data = tf.data.Dataset.from_tensor_slices((side.indices, side.classes))
    if seed is not None:
        data = data.shuffle(min(len(side.indices), _SHUFFLED_AT_ONCE), seed=seed)

    def load(indices: Any, classes: Any) -> tuple[Any, Any]:
        inputs = tf.numpy_function(pixels.inputs, [indices], tf.float32)
        inputs.set_shape((None, pixels.how.crop_px, pixels.how.crop_px, 3))
        return inputs, classes

    data = data.batch(batch).map(load)
    if seed is not None:
        augment = _make_augmentation(keras, seed)
        data = data.map(lambda inputs, classes: (augment(inputs, training=True), classes))
    return data.prefetch(2)


def _make_augmentation(keras: Any, seed: int) -> Any:
    """Return what makes every picture a little different each time: side, place, size, tilt, light."""
    layers = keras.layers
    return keras.Sequential(
        [
            layers.RandomFlip("horizontal", seed=seed),
            layers.RandomTranslation(0.08, 0.08, fill_mode="reflect", seed=seed),
            layers.RandomZoom((-0.2, 0.05), fill_mode="reflect", seed=seed),
            layers.RandomRotation(0.03, fill_mode="reflect", seed=seed),
            layers.RandomContrast(0.2, value_range=(-1, 1), seed=seed),
            layers.RandomBrightness(0.1, value_range=(-1, 1), seed=seed),
        ]
    )


def predict(network: Any, pixels: Pixels, indices: NDArray[np.int64], batch: int) -> NDArray[np.float32]:
    """Return the scores `(N, classes)` of pictures as they are."""
    if not len(indices):
        return np.zeros((0, network.output_shape[-1]), np.float32)
    parts = [
        network.predict_on_batch(pixels.inputs(indices[start : start + batch]))
        for start in range(0, len(indices), batch)
    ]
    return np.concatenate(parts)


def save_network(network: Any, labels: Sequence[str], folder: Path, keep: Callable[[Path], bool]) -> None:
    """Export a SavedModel with `label_classes.npy`, replacing an earlier one but for the files that `keep` names."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    old = folder.with_name(f"{folder.name}.old")
    if old.exists() and not folder.exists():  # a process was killed between the two names
        old.rename(folder)
    for left in folder.parent.glob(".saving-*"):
        shutil.rmtree(left)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".saving-") as scratch:
        fresh = Path(scratch) / folder.name
        network.export(fresh, verbose=False)
        np.save(fresh / "label_classes.npy", np.array(labels))
        if folder.exists():
            for file in folder.iterdir():
                if keep(file):
                    shutil.copy2(file, fresh / file.name)
            # Never gone, even if this process is: what people wrote by hand lies in it.
            shutil.rmtree(old, ignore_errors=True)
            folder.rename(old)
            fresh.rename(folder)
            shutil.rmtree(old)
        else:
            fresh.rename(folder)
