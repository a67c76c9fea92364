"""What makes a training resume where a killed one ended: each epoch's figures, the last state, the best weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class Kept:
    """What is kept of one phase.

    Args:
        patience: Epochs without a better validation loss after which the phase has ended.
    """

    def __init__(self, folder: Path, patience: int, epochs: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._patience, self._epochs = patience, epochs
        self._history, self._last, self._best = (
            folder / name for name in ("history.jsonl", "last.weights.h5", "best.weights.h5")
        )

    @property
    def history(self) -> list[dict[str, float]]:
        """Return the figures by epoch, from 0; an epoch that was begun again counts once."""
        lines = self._history.read_text().splitlines() if self._history.exists() else []
        by_epoch = {int(figures["epoch"]): figures for figures in map(json.loads, lines)}
        return [by_epoch[epoch] for epoch in sorted(by_epoch)]

    @property
    def has_ended(self) -> bool:
        """Tell whether nothing more is to be learnt in this phase."""
        history = self.history
        best = min(range(len(history)), key=lambda epoch: history[epoch]["val_loss"], default=0)
        return len(history) >= self._epochs or len(history) - 1 - best >= self._patience

    def keep(self, epoch: int, figures: dict[str, float], network: Any) -> None:
        """Keep an epoch: its state, which is the best or not, and last its figures, so that none is kept half."""
        before = [known["val_loss"] for known in self.history if known["epoch"] < epoch]
        _save(network, self._last)
        if not before or figures["val_loss"] < min(before):
            _save(network, self._best)
        with self._history.open("a") as file:
            file.write(json.dumps({"epoch": epoch, **figures}) + "\n")

    def go_on(self, network: Any) -> int:
        """Bring weights and optimizer to where the last kept epoch left them; return the number of the next epoch."""
        done = len(self.history)
        if done:
            network.optimizer.build(network.trainable_variables)
            network.load_weights(self._last)
        return done

    def load_best(self, network: Any) -> None:
        """Load the weights with the lowest validation loss."""
        network.load_weights(self._best)


def _save(network: Any, file: Path) -> None:
    fresh = file.with_name(f"fresh-{file.name}")
    network.save_weights(fresh)
    Path(fresh).replace(file)


def make_callback(kept: Kept) -> Any:
    """Return the Keras callback that keeps each epoch, and ends the phase."""
    import keras

    class KeepEpochs(keras.callbacks.Callback):  # type: ignore[misc]
        def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
            kept.keep(epoch, {name: float(value) for name, value in (logs or {}).items()}, self.model)
            self.model.stop_training = kept.has_ended

    return KeepEpochs()
