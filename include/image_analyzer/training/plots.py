"""Pictures of a training: what was confused with what, how it was learnt, and some pictures with what they were called."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from image_analyzer.training.scores import Scores

_DPI = 110
_COLUMNS = 6


class Called(NamedTuple):
    """One picture and what it was called: `pixels` is `(px, px, 3)`, RGB."""

    pixels: NDArray[np.uint8]
    true: str
    said: str
    score: float


def plot_confusion(labels: Sequence[str], scores: Scores) -> bytes:
    """Return a PNG: rows are what pictures are, columns what they were called."""
    others = any(row[-1] for row in scores.confusion)
    counts = np.array(scores.confusion)[:, : len(labels) + others]
    figure, axes = _figure(2.2 + 0.75 * counts.shape[1], 1.8 + 0.6 * len(labels))
    axes.imshow(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1), cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(counts.shape[1]), [*labels, "other"][: counts.shape[1]], rotation=40, ha="right")
    axes.set_yticks(range(len(labels)), labels)
    axes.set_xlabel("called")
    axes.set_ylabel("is")
    for (row, column), count in np.ndenumerate(counts):
        dark = count > 0.5 * counts[row].sum()
        axes.text(column, row, str(count), ha="center", va="center", color="white" if dark else "black")
    return _png(figure)


def plot_history(history: Mapping[str, Sequence[Mapping[str, float]]]) -> bytes:
    """Return a PNG of loss and accuracy by epoch, phases one after another."""
    figure, axes = _figure(9, 3.4, columns=2)
    figures = [epoch for epochs in history.values() for epoch in epochs]
    for part, name in zip(axes, ("loss", "accuracy"), strict=True):
        for key, label in ((name, "train"), (f"val_{name}", "validation")):
            part.plot(range(1, len(figures) + 1), [epoch[key] for epoch in figures], label=label)
        ends = np.cumsum([len(epochs) for epochs in history.values()])[:-1]
        for end in ends:
            part.axvline(end + 0.5, color="grey", linestyle=":")
        part.set_xlabel("epoch")
        part.set_ylabel(name)
        part.legend()
    return _png(figure)


def plot_predictions(called: Sequence[Called]) -> bytes:
    """Return a PNG of pictures with their names; wrong ones say what is right."""
    rows = max(1, -(-len(called) // _COLUMNS))
    figure, grid = _figure(1.9 * _COLUMNS, 2.2 * rows, rows=rows, columns=_COLUMNS)
    for part in np.ravel(grid):
        part.axis("off")
    for part, picture in zip(np.ravel(grid), called, strict=False):
        part.imshow(picture.pixels)
        right = picture.true == picture.said
        text = f"{picture.said} {picture.score:.2f}" + ("" if right else f"\nis {picture.true}")
        part.set_title(text, fontsize=8, color="black" if right else "#b00020")
    return _png(figure)


def _figure(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure((width, height), layout="constrained")
    return figure, figure.subplots(rows, columns)


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI)
    return buffer.getvalue()
