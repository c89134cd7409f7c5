"""The guard between host and plugins: opens an embedder, and checks whatever comes back from it.

What breaks the contract is raised as `PluginBroken`, with the plugin's name and what it should have been.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitmae_search.embedding.contract import Embedder, EmbedderPlugin, PluginInfo, Reconstructor
from vitmae_search.embedding.fingerprint import canonical_json, fingerprint
from vitmae_search.embedding.options import OptionValue, resolve_options
from vitmae_search.embedding.prepare import GuardedPrepare, blame, guard_prepare
from vitmae_search.errors import DeviceError, NoDecoder, PluginBroken
from vitmae_search.records import Reconstruction

_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")
_UNIT_LENGTH = 1e-3


def open_embedder(
    plugin: EmbedderPlugin,
    options: Mapping[str, object] | None = None,
    device: str = "auto",
    precision: str = "auto",
) -> GuardedEmbedder:
    """Open the plugin's model, checked.

    `options` holds values or strings (see `resolve_options`); the others take their defaults. `device` is
    auto, cpu, cuda, cuda:N or mps, `precision` auto, fp32 or bf16. Raises `PluginOptionError`,
    `DeviceError`, `PluginBroken`, and what the plugin raises for a person (`ModelNotFound`, ...).
    """
    if not _DEVICE.fullmatch(device):
        raise DeviceError(f"no device {device!r}; choose auto, cpu, cuda, cuda:N or mps")
    if precision not in ("auto", "fp32", "bf16"):
        raise DeviceError(f"no precision {precision!r}; choose auto, fp32 or bf16")
    info = plugin.info
    resolved = resolve_options(info, options or {})
    with blame(info.name, "open"):
        embedder = plugin.open(dict(resolved), device=device, precision=precision)
    try:
        return GuardedEmbedder(info, resolved, embedder)
    except PluginBroken:
        with contextlib.suppress(Exception):
            embedder.close()
        raise


class GuardedEmbedder:
    """An open embedder whose every answer is checked. Satisfies `contract.Embedder`.

    One `embed`, `reconstruct` or `close` runs at a time, behind a lock; `prepare` runs whenever it likes.
    `shape` and `dtype` are those of what `prepare` gives.
    """

    def __init__(self, info: PluginInfo, options: Mapping[str, OptionValue], embedder: Embedder) -> None:
        self.info, self.options = info, dict(options)
        self._embedder, self._lock, self._closed = embedder, threading.Lock(), False
        with blame(info.name, "reading the embedder's attributes"):
            model, identity, provenance = embedder.model, embedder.identity, embedder.provenance
            dimension, input_size, prepare = embedder.dimension, embedder.input_size, embedder.prepare
        self.model: str = self._expect(type(model) is str and model != "", "model", model, "text")
        self.identity: dict[str, Any] = self._plain("identity", identity)
        self.provenance: dict[str, Any] = self._plain("provenance", provenance)
        self.dimension: int = self._expect(_positive(dimension), "dimension", dimension, "an int above 0")
        fits = input_size is None or _positive(input_size)
        self.input_size: int | None = self._expect(fits, "input_size", input_size, "None or an int above 0")
        self.prepare: GuardedPrepare = guard_prepare(info.name, prepare)
        self.shape, self.dtype = self.prepare.shape, self.prepare.dtype

    @property
    def can_reconstruct(self) -> bool:
        """Whether `reconstruct` may be asked of it. A checkpoint may still turn out to lack the decoder."""
        return "reconstruct" in self.info.capabilities

    def fingerprint(self, decode: str) -> str:
        """The fingerprint of the space that its vectors of photos decoded in mode `decode` belong to."""
        return fingerprint(self.identity, self.info, decode)

    def embed(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """(N, *shape) of `dtype` to (N, dimension) float32: C-contiguous, finite, rows of unit length.

        N may be 0. Raises `PluginBroken`; MemoryError where the batch is too large; ValueError for a batch
        that `prepare` did not make.
        """
        if batch.shape[1:] != self.shape or batch.dtype != self.dtype:
            raise ValueError(f"the batch is {batch.dtype} {batch.shape}, not {self.dtype} (N, *{self.shape})")
        if len(batch) == 0:
            return np.empty((0, self.dimension), np.float32)
        with self._lock:
            self._check_open()
            with blame(self.info.name, "embed"):
                vectors = self._embedder.embed(batch)
        check_vectors(self.info.name, vectors, len(batch), self.dimension)
        return vectors

    def reconstruct(
        self,
        image: Image.Image,
        *,
        mask_ratio: float = 0.75,
        seed: int = 0,
        mask: NDArray[np.bool_] | None = None,
    ) -> Reconstruction:
        """As `contract.Reconstructor.reconstruct`. Raises `NoDecoder` where the plugin cannot do it."""
        if not self.can_reconstruct:
            raise NoDecoder(f"plugin {self.info.name!r} makes no reconstructions; use a ViTMAE model")
        if not isinstance(self._embedder, Reconstructor):
            raise PluginBroken(self.info.name, "it says that it reconstructs, but has no reconstruct()")
        with self._lock:
            self._check_open()
            with blame(self.info.name, "reconstruct"):
                result = self._embedder.reconstruct(image, mask_ratio=mask_ratio, seed=seed, mask=mask)
        check_reconstruction(self.info.name, result)
        return result

    def close(self) -> None:
        """Give the model's memory back. A second call does nothing."""
        with self._lock:
            if not self._closed:
                self._closed = True
                with blame(self.info.name, "close"):
                    self._embedder.close()

    def __enter__(self) -> GuardedEmbedder:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError(f"the embedder of plugin {self.info.name!r} is closed")

    def _expect(self, holds: bool, name: str, value: Any, rule: str) -> Any:
        if not holds:
            raise PluginBroken(self.info.name, f"{name}={value!r} must be {rule}")
        return value

    def _plain(self, name: str, value: object) -> dict[str, Any]:
        self._expect(isinstance(value, Mapping), name, value, "a dict")
        try:
            plain: dict[str, Any] = json.loads(canonical_json(value))
        except (TypeError, ValueError) as error:
            raise PluginBroken(self.info.name, f"{name} must be plain JSON: {error}") from error
        return plain


def check_vectors(plugin: str, vectors: object, rows: int, dimension: int) -> None:
    """Raise `PluginBroken` unless `vectors` is what `embed` must give for `rows` images."""
    if not isinstance(vectors, np.ndarray):
        raise PluginBroken(plugin, f"embed gave a {type(vectors).__name__}; it must be a NumPy array")
    if vectors.dtype != np.float32:
        raise PluginBroken(plugin, f"embed gave {vectors.dtype}; it must be float32")
    if vectors.shape != (rows, dimension):
        raise PluginBroken(plugin, f"embed gave shape {vectors.shape}; it must be {(rows, dimension)}")
    if not vectors.flags.c_contiguous:
        raise PluginBroken(plugin, "embed gave an array that is not C-contiguous")
    if not np.isfinite(vectors).all():
        row = int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])
        raise PluginBroken(plugin, f"embed gave NaN or infinity in row {row} of {rows}")
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
    wrong = np.flatnonzero(np.abs(lengths - 1) > _UNIT_LENGTH)
    if wrong.size:
        row = int(wrong[0])
        raise PluginBroken(plugin, f"embed gave row {row} of {rows} with length {lengths[row]:.4g}, not 1")


def check_reconstruction(plugin: str, result: object) -> None:
    """Raise `PluginBroken` unless `result` is a `Reconstruction` whose arrays fit each other."""
    if not isinstance(result, Reconstruction):
        raise PluginBroken(plugin, f"reconstruct gave a {type(result).__name__}, not a Reconstruction")
    panels = (result.original, result.masked, result.reconstruction, result.pasted)
    shape = panels[0].shape
    if len(shape) != 3 or shape[2] != 3 or any(p.shape != shape or p.dtype != np.uint8 for p in panels):
        raise PluginBroken(plugin, "reconstruct must give four panels of one shape (H, W, 3), uint8")
    if result.mask.dtype != np.bool_ or result.mask.ndim != 2 or result.error.shape != result.mask.shape:
        raise PluginBroken(plugin, "reconstruct must give mask and error of one shape (gh, gw)")


def _positive(value: object) -> bool:
    return type(value) is int and value > 0
