"""Images per second of the hint model beside plain `model.predict` of the same network in TensorFlow, in one run.

Method: the shipped `.tflite` on LiteRT, and the same architecture in Keras with the weights read back out of that
`.tflite`, so that labels can be compared. Inputs are the demonstration's photographs, each also mirrored and cut,
preprocessed before the clock starts. LiteRT in batches of eight as the step does; Keras by `predict` one by one (as a
naive task would) and in batches of 32.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from image_analyzer.clients.litert_model import LiteRTModel
from image_analyzer.hints import preprocess
from image_analyzer.local.pictures import demo_pictures
from image_analyzer.settings import PROJECT_ROOT

sys.path.insert(0, str(PROJECT_ROOT / "models"))
_FOLDER = PROJECT_ROOT / "models" / "imagenet-mobilenet-v2"
_SHARES = (1.0, 0.9, 0.8, 0.7)


def _variants() -> Iterator[bytes]:
    """Yield each photograph whole and cut, as it is and mirrored."""
    for picture in demo_pictures():
        if not picture.name.startswith("photos/") or "copy" in picture.name:
            continue
        whole = Image.open(io.BytesIO(picture.content)).convert("RGB")
        for share in _SHARES:
            width, height = round(whole.width * share), round(whole.height * share)
            for image in (whole.crop((0, 0, width, height)), ImageOps.mirror(whole.crop((0, 0, width, height)))):
                buffer = io.BytesIO()
                image.save(buffer, "JPEG", quality=90)
                yield buffer.getvalue()


def load_keras_twin() -> Any:
    """Return the same network in Keras, with the weights of the shipped file: BatchNorm is folded in there and here."""
    import tensorflow as tf
    from build_imagenet import build_keras_model

    interpreter = tf.lite.Interpreter(model_path=str(_FOLDER / "model.tflite"))
    interpreter.allocate_tensors()
    shapes = {d["index"]: tuple(d["shape"]) for d in interpreter.get_tensor_details()}
    halves = {
        op["outputs"][0]: op["inputs"][0] for op in interpreter._get_ops_details() if op["op_name"] == "DEQUANTIZE"
    }

    def read(index: int) -> NDArray[np.float32]:
        return interpreter.get_tensor(halves.get(index, index)).astype(np.float32).reshape(shapes[index])

    wanted = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
    operations = iter(op for op in interpreter._get_ops_details() if op["op_name"] in wanted)
    model = build_keras_model(folded=True)
    for layer in model.layers:
        if not layer.weights:
            continue
        operation = next(operations)
        kernel, bias = (read(index) for index in operation["inputs"][1:3])
        # TensorFlow Lite keeps the output axis first; a depthwise kernel has its channels last.
        axes = {"CONV_2D": (1, 2, 3, 0), "DEPTHWISE_CONV_2D": (1, 2, 3, 0), "FULLY_CONNECTED": (1, 0)}
        layer.set_weights([kernel.transpose(axes[operation["op_name"]]), bias])
    return model


def rate(work: Callable[[], NDArray[np.float32]], images: int) -> tuple[float, NDArray[np.float32]]:
    started = time.perf_counter()
    scores = work()
    return images / (time.perf_counter() - started), scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keras", type=Path, help="compare with this Keras model instead of the twin")
    parser.add_argument("--photos", type=Path, help="folder of JPEGs to use instead of the demonstration's")
    arguments = parser.parse_args()
    print(__doc__)
    model = LiteRTModel(_FOLDER, 2)
    jpegs = [file.read_bytes() for file in sorted(arguments.photos.rglob("*.jpg"))] if arguments.photos else _variants()
    inputs = np.stack([preprocess(jpeg, model.preprocessing) for jpeg in jpegs])
    import keras

    twin = keras.models.load_model(arguments.keras) if arguments.keras else load_keras_twin()
    twin.predict(inputs[:32], verbose=0)  # traces the graph, which is not what we measure

    eights = range(0, len(inputs), 8)
    ours, our_scores = rate(lambda: np.concatenate([model.predict(inputs[i : i + 8]) for i in eights]), len(inputs))
    ones, _ = rate(lambda: np.concatenate([twin.predict(x[None], verbose=0) for x in inputs[:40]]), 40)
    batched, their_scores = rate(lambda: twin.predict(inputs, batch_size=32, verbose=0), len(inputs))
    print(f"{len(inputs)} images, 2 threads")
    print(f"{'LiteRT, batches of 8':<34}{ours:>8.1f} images/s")
    print(f"{'keras predict, one by one':<34}{ones:>8.1f} images/s  LiteRT is {ours / ones:.1f} times as fast")
    print(f"{'keras predict, batches of 32':<34}{batched:>8.1f} images/s  LiteRT is {ours / batched:.1f} times as fast")
    same = our_scores.argmax(axis=1) == their_scores.argmax(axis=1)
    strong = their_scores.max(axis=1) >= 0.6
    print(f"same first label: {same.mean():.1%} of {len(same)}")
    print(f"same first label where its score is 0.6 or more: {same[strong].mean():.1%} of {strong.sum()}")
    print(f"largest difference of a score: {np.abs(our_scores - their_scores).max():.4f}")


if __name__ == "__main__":
    main()
