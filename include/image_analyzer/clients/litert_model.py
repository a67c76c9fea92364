"""HintModel over LiteRT: a `.tflite` with its labels and a manifest, in one folder."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from image_analyzer.errors import ConfigurationError
from image_analyzer.hints import Preprocessing, alias_labels
from image_analyzer.records import Record

MODEL_FILE, LABELS_FILE, MANIFEST_FILE, ALIASES_FILE = (
    "model.tflite",
    "labels.txt",
    "manifest.json",
    "label_aliases.json",
)


class ModelManifest(Record):
    """What `manifest.json` says: where the model comes from and how it sees."""

    name: str
    origin: str
    origin_sha256: str | None = None
    licence: str
    input_px: int = Field(gt=0)
    preprocessing: Preprocessing
    model_sha256: str
    labels_sha256: str


class LiteRTModel:
    """A converted model, loaded once per process.

    Args:
        folder: Holds `model.tflite`, `labels.txt`, `manifest.json` and perhaps `label_aliases.json`.

    Raises:
        ConfigurationError: A file is missing, or is not the one that the manifest names.
    """

    def __init__(self, folder: Path, threads: int) -> None:
        self.manifest = read_manifest(folder)
        content = _checked(folder / MODEL_FILE, self.manifest.model_sha256)
        labels = _checked(folder / LABELS_FILE, self.manifest.labels_sha256).decode().splitlines()
        self._labels, self.translations = alias_labels(labels, _read_aliases(folder))
        self._interpreter = _make_interpreter(content, threads)
        self._lock = threading.Lock()
        self._batch = 0
        (output,) = self._interpreter.get_output_details()
        if output["shape"][-1] != len(labels):
            raise ConfigurationError(f"{folder}: the model has {output['shape'][-1]} classes, labels.txt {len(labels)}")

    @property
    def name(self) -> str:
        """Name that rows carry."""
        return self.manifest.name

    @property
    def labels(self) -> Sequence[str]:
        """English names, aliases applied."""
        return self._labels

    @property
    def preprocessing(self) -> Preprocessing:
        """How inputs are made."""
        return self.manifest.preprocessing

    def predict(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return `(N, classes)` for inputs `(N, px, px, 3)`."""
        with self._lock:  # a service calls from many threads, the interpreter has one set of tensors
            (source,) = self._interpreter.get_input_details()
            if self._batch != len(inputs):
                self._interpreter.resize_tensor_input(source["index"], inputs.shape)
                self._interpreter.allocate_tensors()
                self._batch = len(inputs)
            self._interpreter.set_tensor(source["index"], inputs)
            self._interpreter.invoke()
            (output,) = self._interpreter.get_output_details()
            scores: NDArray[np.float32] = self._interpreter.get_tensor(output["index"])
        return scores


@cache
def load_model(folder: Path, threads: int) -> LiteRTModel:
    """Load a model once per process."""
    return LiteRTModel(folder, threads)


def read_manifest(folder: Path) -> ModelManifest:
    """Read a model's manifest.

    Raises:
        ConfigurationError: It is missing or says something else than a manifest does.
    """
    file = folder / MANIFEST_FILE
    try:
        return ModelManifest.model_validate_json(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigurationError(f"no hint model in {folder}: set HINT_MODEL, or USE_TF_HINT=false") from None
    except ValidationError as error:
        fields = ", ".join(".".join(map(str, problem["loc"])) for problem in error.errors())
        raise ConfigurationError(f"{file}: wrong or missing: {fields}") from None


def read_translations(folder: Path) -> Mapping[str, Mapping[str, str]]:
    """Return the translations of labels without loading the model; none where there is no model."""
    try:
        labels = (folder / LABELS_FILE).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    return alias_labels(labels, _read_aliases(folder))[1]


def _read_aliases(folder: Path) -> dict[str, Any]:
    file = folder / ALIASES_FILE
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else {}


def _checked(file: Path, sha256: str) -> bytes:
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        raise ConfigurationError(f"{file} is missing") from None
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ConfigurationError(f"{file} is not the file that its manifest names (sha256 differs)")
    return content


def _make_interpreter(content: bytes, threads: int) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content, num_threads=threads)
    interpreter.allocate_tensors()
    return interpreter
