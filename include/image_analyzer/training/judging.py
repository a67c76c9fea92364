"""A data set that was read and split, and how good models are on its sides."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from image_analyzer.clients.litert_model import LABELS_FILE, LiteRTModel, load_model
from image_analyzer.errors import ConfigurationError
from image_analyzer.records import Record
from image_analyzer.training.crops import SEES, Pixels
from image_analyzer.training.dataset import Example, Fault, Side
from image_analyzer.training.scores import Scores, match_name, score

_AT_ONCE = 8
_GEOMETRY = {"resize_shorter_side_px", "crop_px"}


class Chosen(NamedTuple):
    """Some pictures: indices into the pixels and classes, `(N,)` each."""

    indices: NDArray[np.int64]
    classes: NDArray[np.int64]


class Data(NamedTuple):
    """Pictures, sides and classes; `rows` says where a content's pixels lie."""

    examples: list[Example]
    faults: list[Fault]
    classes: tuple[str, ...]
    sides: dict[str, Side]
    pixels: Pixels
    rows: dict[str, int]

    def side(self, side: Side, *, without: frozenset[str] = frozenset()) -> Chosen:
        """Return one side of the split, but for the contents named."""
        chosen = [e for e in self.examples if self.sides[e.sha256] is side and e.sha256 not in without]
        indices = np.array([self.rows[e.sha256] for e in chosen], np.int64)
        return Chosen(indices, np.array([self.classes.index(e.label) for e in chosen], np.int64))


def read_labels(folder: Path) -> list[str]:
    """Return the names of a model's outputs as it was trained with them: aliases are for people."""
    return (folder / LABELS_FILE).read_text(encoding="utf-8").splitlines()


def score_predictions(
    data: Data, chosen: Chosen, said: NDArray[np.float32], labels: Sequence[str], min_score: float
) -> Scores:
    """Judge the scores `(N, labels)` that a model gave to pictures."""
    called = [match_name(labels[best], data.classes) for best in said.argmax(axis=1)]
    truth = [data.classes[number] for number in chosen.classes]
    return score(data.classes, truth, called, [float(row.max()) for row in said], min_score)


def score_folder(folder: Path, data: Data, chosen: Chosen, min_score: float) -> Scores:
    """Judge a model as the nightly run would load it.

    Raises:
        ConfigurationError: It looks at another part of a picture than the pixels at hand.
    """
    model = load_model(folder, 2)
    if model.preprocessing.model_dump(include=_GEOMETRY) != SEES.model_dump(include=_GEOMETRY):
        raise ConfigurationError(
            f"{folder.name} looks at another part of a picture than models trained here: no contest"
        )
    seen = Pixels(data.pixels.file, data.pixels.count, model.preprocessing)
    said = np.concatenate(list(_predict(model, seen, chosen)))
    return score_predictions(data, chosen, said, read_labels(folder), min_score)


class Agreement(Record):
    """How near a converted model is to the one it was made of.

    Attributes:
        same_label: Share of pictures with the same first label.
        largest_difference: Of any score of any picture.
    """

    same_label: float
    largest_difference: float


def measure_agreement(folder: Path, data: Data, chosen: Chosen, said: NDArray[np.float32]) -> Agreement:
    """Compare a converted model with the scores `(N, classes)` of the Keras model."""
    again = np.concatenate(list(_predict(load_model(folder, 2), data.pixels, chosen)))
    return Agreement(
        same_label=float(np.mean(again.argmax(axis=1) == said.argmax(axis=1))),
        largest_difference=float(np.abs(again - said).max()),
    )


def _predict(model: LiteRTModel, pixels: Pixels, chosen: Chosen) -> Iterator[NDArray[np.float32]]:
    for start in range(0, len(chosen.indices), _AT_ONCE):
        yield model.predict(pixels.inputs(chosen.indices[start : start + _AT_ONCE]))
