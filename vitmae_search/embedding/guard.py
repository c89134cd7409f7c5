"""The guard between host and plugins: opens an embedder, and checks whatever comes back from it.

What breaks the contract is raised as `PluginBroken`, with the plugin's name and what it should have been.

What the guards of embedders and of classifiers have in common.

The guard around classifiers, the optional half of a plugin.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitmae_search.embedding.fingerprint import EmbedderDescription, canonical_json
from vitmae_search.embedding.guard_prepare import GuardedPrepare, blame, enough_memory, guard_prepare
from vitmae_search.embedding.options import OptionValue, resolve_options
from vitmae_search.embedding.plugin import (
    Batching,
    Choosing,
    Classifier,
    ClassifierOpener,
    Embedder,
    EmbedderPlugin,
    FromFiles,
    PluginInfo,
    Projecting,
    Reconstructor,
    Resting,
    Untrained,
)
from vitmae_search.embedding.projection import Projection
from vitmae_search.errors import DeviceError, NoDecoder, PluginBroken, PluginError, PluginOptionError
from vitmae_search.records import Reconstruction

_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")


def check_device(device: str, precision: str) -> None:
    """Raise `DeviceError` for a device or a precision that there is no such word for."""
    if not _DEVICE.fullmatch(device):
        raise DeviceError(f"no device {device!r}; choose auto, cpu, cuda, cuda:N or mps")
    if precision not in ("auto", "fp32", "bf16"):
        raise DeviceError(f"no precision {precision!r}; choose auto, fp32 or bf16")


def positive(value: object) -> bool:
    """Whether it is a whole number above 0, and no bool."""
    return type(value) is int and value > 0


class Guarded:
    """An open model of a plugin: the attributes that all have, checked, and its end.

    `kind` is what it is called in messages. `shape` and `dtype` are those of what `prepare` gives.
    `batch_size` is `Batching`'s, None where the plugin does not say.
    """

    def __init__(self, info: PluginInfo, opened: Embedder | Classifier, kind: str) -> None:
        self.info, self._opened, self._kind = info, opened, kind
        self._lock, self._closed = threading.Lock(), False
        self._resting, self._used_at = False, time.monotonic()
        with blame(info.name, f"reading the {kind}'s attributes"):
            model, identity, provenance = opened.model, opened.identity, opened.provenance
            input_size, prepare = opened.input_size, opened.prepare
            batch_size = opened.batch_size if isinstance(opened, Batching) else None
        self.model: str = self._expect(type(model) is str and model != "", "model", model, "text")
        self.identity: dict[str, Any] = self._plain("identity", identity)
        self.provenance: dict[str, Any] = self._plain("provenance", provenance)
        fits = input_size is None or positive(input_size)
        self.input_size: int | None = self._expect(fits, "input_size", input_size, "None or an int above 0")
        fits = batch_size is None or positive(batch_size)
        self.batch_size: int | None = self._expect(fits, "batch_size", batch_size, "an int above 0")
        self.prepare: GuardedPrepare = guard_prepare(info.name, prepare)
        self.shape, self.dtype = self.prepare.shape, self.prepare.dtype

    @property
    def resting(self) -> bool:
        """Whether it gave its device's memory back, and nobody has asked it anything since."""
        return self._resting

    def rest(self, *, after: float = 0.0) -> bool:
        """Give the device's memory back until the next call, where the plugin can (`contract.Resting`).

        Only if nothing was asked of it for `after` seconds, and nothing is at work; it never waits. Returns
        whether it did, which a second time it does not. Raises `PluginBroken`.
        """
        if not isinstance(self._opened, Resting) or not self._lock.acquire(blocking=False):
            return False
        try:
            idle = time.monotonic() - self._used_at >= after
            if self._closed or self._resting or not idle:
                return False
            with blame(self.info.name, "rest"):
                self._opened.rest()
            self._resting = True
            return True
        finally:
            self._lock.release()

    def close(self) -> None:
        """Give the model's memory back. A second call does nothing."""
        with self._lock:
            if not self._closed:
                self._closed = True
                with blame(self.info.name, "close"):
                    self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _check_batch(self, batch: NDArray[Any]) -> None:
        if batch.shape[1:] != self.shape or batch.dtype != self.dtype:
            raise ValueError(f"the batch is {batch.dtype} {batch.shape}, not {self.dtype} (N, *{self.shape})")

    @contextmanager
    def _at_work(self, doing: str) -> Iterator[None]:
        """One call of the plugin: alone, of an open model, and blamed on the plugin."""
        with self._lock:
            if self._closed:
                raise ValueError(f"the {self._kind} of plugin {self.info.name!r} is closed")
            self._resting = False
            try:
                with blame(self.info.name, doing):
                    yield
            finally:
                self._used_at = time.monotonic()

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
    check_device(device, precision)
    info = plugin.info
    resolved = resolve_options(info, options or {})
    with enough_memory("open the model"), blame(info.name, "open"):
        embedder = plugin.open(dict(resolved), device=device, precision=precision)
    try:
        return GuardedEmbedder(info, resolved, embedder)
    except PluginBroken:
        with contextlib.suppress(Exception):
            embedder.close()
        raise


class GuardedEmbedder(Guarded):
    """An open embedder whose every answer is checked. Satisfies `contract.Embedder`.

    One `embed`, `reconstruct`, `rest` or `close` runs at a time, behind a lock; `prepare` whenever it likes.
    `shape` and `dtype` are those of what `prepare` gives. `options` open it again as it is; `left_options`
    are those among them that had left a choice to it, as they were given. `source_files` are `FromFiles`'.
    """

    def __init__(self, info: PluginInfo, options: Mapping[str, OptionValue], embedder: Embedder) -> None:
        super().__init__(info, embedder, "embedder")
        self._embedder = embedder
        with blame(info.name, "reading the embedder's attributes"):
            dimension = embedder.dimension
            chosen = embedder.chosen_options if isinstance(embedder, Choosing) else {}
            projection = embedder.projection if isinstance(embedder, Projecting) else None
        self.dimension: int = self._expect(positive(dimension), "dimension", dimension, "an int above 0")
        fits = projection is None or (type(projection) is str and os.path.isabs(projection))
        self.projection: str | None = self._expect(fits, "projection", projection, "None or an absolute path")
        try:
            self.options = resolve_options(info, {**options, **chosen})
        except (PluginOptionError, TypeError) as error:
            raise PluginBroken(info.name, f"chosen_options={chosen!r} are no options of it") from error
        self.left_options = {name: options[name] for name in chosen}
        self.source_files: tuple[str, ...] | None = self._source_files()

    @property
    def description(self) -> EmbedderDescription:
        """What it is, in plain values."""
        return EmbedderDescription(
            self.info,
            self.model,
            self.identity,
            self.provenance,
            self.dimension,
            self.options,
            self.left_options,
            self.projection,
        )

    @property
    def can_reconstruct(self) -> bool:
        """Whether `reconstruct` may be asked of it. A checkpoint may still turn out to lack the decoder."""
        return "reconstruct" in self.info.capabilities

    def fingerprint(self, decode: str) -> str:
        """The fingerprint of the space that its vectors of photos decoded in mode `decode` belong to."""
        return self.description.fingerprint(decode)

    def own_projection(self) -> Projection | None:
        """See `EmbedderDescription.own_projection`."""
        return self.description.own_projection()

    def embed(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """(N, *shape) of `dtype` to (N, dimension) float32: C-contiguous, finite, rows of unit length.

        N may be 0. Raises `PluginBroken`; MemoryError where the batch is too large; ValueError for a batch
        that `prepare` did not make.
        """
        self._check_batch(batch)
        if len(batch) == 0:
            return np.empty((0, self.dimension), np.float32)
        with self._at_work("embed"):
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
        """As `contract.Reconstructor.reconstruct`.

        Raises `NoDecoder` where the plugin cannot do it, and `DeviceError` where its memory is too small.
        """
        if not self.can_reconstruct:
            raise NoDecoder(f"plugin {self.info.name!r} makes no reconstructions; use a ViTMAE model")
        if not isinstance(self._embedder, Reconstructor):
            raise PluginBroken(self.info.name, "it says that it reconstructs, but has no reconstruct()")
        with enough_memory("reconstruct a photo"), self._at_work("reconstruct"):
            result = self._embedder.reconstruct(image, mask_ratio=mask_ratio, seed=seed, mask=mask)
        check_reconstruction(self.info.name, result)
        return result

    def untrained(self, seed: int = 0) -> GuardedEmbedder | None:
        """The same network before any training, for the caller to close; None where the plugin has none."""
        if not isinstance(self._embedder, Untrained):
            return None
        with enough_memory("open the untrained model"), self._at_work("untrained"):
            twin = self._embedder.untrained(seed)
        return GuardedEmbedder(self.info, self.options, twin)

    def _source_files(self) -> tuple[str, ...] | None:
        with blame(self.info.name, "reading the embedder's attributes"):
            files = self._embedder.source_files if isinstance(self._embedder, FromFiles) else None
        if files is None:
            return None
        fits = isinstance(files, list | tuple) and all(type(f) is str and os.path.isabs(f) for f in files)
        return tuple(self._expect(fits, "source_files", files, "None or a list of absolute paths"))


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


_SUM = 1e-3
"""How far a row's sum may lie from 1: rounding over thousands of classes stays below."""


def open_classifier(
    plugin: EmbedderPlugin, model: str, device: str = "auto", precision: str = "auto"
) -> GuardedClassifier:
    """Open a classifier of the plugin, checked. `device` and `precision` are as for `open_embedder`.

    Raises `PluginError` where the plugin has none, `PluginBroken`, `DeviceError`, and what the plugin
    raises for a person (`ModelNotFound`, `CheckpointError`, ...).
    """
    check_device(device, precision)
    info = plugin.info
    if "classify" not in info.capabilities or not isinstance(plugin, ClassifierOpener):
        raise PluginError(info.name, "it cannot classify photos; see `vitmae-search plugins`")
    with enough_memory("open the model"), blame(info.name, "open_classifier"):
        opened = plugin.open_classifier(model, device=device, precision=precision)
    try:
        return GuardedClassifier(info, opened)
    except PluginBroken:
        with contextlib.suppress(Exception):
            opened.close()
        raise


class GuardedClassifier(Guarded):
    """An open classifier whose every answer is checked. Satisfies `contract.Classifier`.

    One `classify`, `rest` or `close` runs at a time, behind a lock; `prepare` runs whenever it likes.
    """

    def __init__(self, info: PluginInfo, classifier: Classifier) -> None:
        super().__init__(info, classifier, "classifier")
        self._classifier = classifier
        with blame(info.name, "reading the classifier's attributes"):
            labels = list(classifier.labels)
        fits = bool(labels) and all(_is_text(label) for label in labels)
        self.labels: tuple[str, ...] = tuple(self._expect(fits, "labels", labels, "one text or more"))

    def classify(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """(N, *shape) of `dtype` to (N, len(labels)) float32 probabilities, each row ≥ 0 with the sum 1.

        N may be 0. Raises `PluginBroken`; MemoryError where the batch is too large; ValueError for a batch
        that `prepare` did not make.
        """
        self._check_batch(batch)
        if len(batch) == 0:
            return np.empty((0, len(self.labels)), np.float32)
        with self._at_work("classify"):
            probabilities = self._classifier.classify(batch)
        check_probabilities(self.info.name, probabilities, len(batch), len(self.labels))
        return probabilities


def check_probabilities(plugin: str, found: object, rows: int, labels: int) -> None:
    """Raise `PluginBroken` unless `found` is what `classify` must give for `rows` images."""
    if not isinstance(found, np.ndarray):
        raise PluginBroken(plugin, f"classify gave a {type(found).__name__}; it must be a NumPy array")
    if found.dtype != np.float32:
        raise PluginBroken(plugin, f"classify gave {found.dtype}; it must be float32")
    if found.shape != (rows, labels):
        raise PluginBroken(plugin, f"classify gave shape {found.shape}; it must be {(rows, labels)}")
    if not found.flags.c_contiguous:
        raise PluginBroken(plugin, "classify gave an array that is not C-contiguous")
    sums = found.sum(axis=1, dtype=np.float64)
    right = np.isfinite(found).all(axis=1) & (found >= 0).all(axis=1) & (np.abs(sums - 1) <= _SUM)
    if not right.all():
        row = int(np.flatnonzero(~right)[0])
        rule = "they must be finite, not negative, and sum to 1"
        raise PluginBroken(plugin, f"classify gave no probabilities in row {row} of {rows}: {rule}")


def _is_text(label: object) -> bool:
    try:
        return type(label) is str and bool(label.strip()) and bool(label.encode("utf-8"))
    except UnicodeEncodeError:
        return False
