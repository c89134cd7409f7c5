"""A plugin for tests, on a device that can fail or run out of memory.

Two files beside it control the device: `lost` has the number of calls after which it is lost, and `room` the
largest batch that fits into its memory; below 0 not even the model does.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from vitmae_search.embedding import (
    Classifier,
    DeviceError,
    Embedder,
    EmbedderPlugin,
    Options,
    PluginInfo,
    Reconstruction,
)

HERE = Path(__file__).parent
LOST = "the device was lost; what was done is kept, and the same command goes on with it"


def number_in_file(name: str, default: int) -> int:
    path = HERE / name
    return int(path.read_text()) if path.exists() else default


def prepare(image: Image.Image, /) -> np.ndarray:
    return np.asarray(image.convert("RGB").resize((8, 8)))


class Device:
    """Counts calls, and fails where the device is lost or its memory too small."""

    def __init__(self) -> None:
        self.calls = self.offloads = 0

    def offload(self) -> None:
        self.offloads += 1

    def compute(self, rows: int) -> None:
        self.calls += 1
        if self.calls > number_in_file("lost", 10**9):
            raise DeviceError(LOST)
        if rows > number_in_file("room", 10**9):
            raise MemoryError(f"no room for {rows} rows")


class Failing(Device, Embedder):
    model = "failing"
    dimension = 192
    input_size = 8
    identity = {"side": 8}  # noqa: RUF012 - nobody changes it
    prepare = staticmethod(prepare)

    def embed(self, batch: np.ndarray) -> np.ndarray:
        self.compute(len(batch))
        rows = batch.reshape(len(batch), -1).astype(np.float32) + 1
        return np.ascontiguousarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))

    def reconstruct(
        self, image: Image.Image, *, mask_ratio: float = 0.75, seed: int = 0, mask: np.ndarray | None = None
    ) -> Reconstruction:
        self.compute(1)
        panel = prepare(image)
        mask = np.ones((2, 2), bool) if mask is None else mask
        error = np.zeros((2, 2), np.float32)
        return Reconstruction(panel, panel, panel, panel, mask, error, None, mask_ratio, "none")


class FailingClassifier(Device, Classifier):
    model = "failing"
    input_size = 8
    identity = {"side": 8}  # noqa: RUF012 - nobody changes it
    prepare = staticmethod(prepare)
    labels = ("dark", "bright")

    def classify(self, batch: np.ndarray) -> np.ndarray:
        self.compute(len(batch))
        bright = batch.reshape(len(batch), -1).mean(axis=1) / 255
        return np.ascontiguousarray(np.stack([1 - bright, bright], axis=1), np.float32)


class Plugin(EmbedderPlugin):
    info = PluginInfo(
        name="failing", title="Failing", capabilities=frozenset({"embed", "reconstruct", "classify"})
    )

    def open(self, options: Options, *, device: str, precision: str) -> Failing:
        if number_in_file("room", 1) < 0:
            raise MemoryError("no room for the model")
        return Failing()

    def open_classifier(self, model: str, *, device: str, precision: str) -> FailingClassifier:
        return FailingClassifier()


plugin = Plugin()
