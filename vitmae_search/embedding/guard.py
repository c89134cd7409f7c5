"""The guard between host and plugins: opens their models, and checks whatever comes back from them.

What breaks the contract is raised as `PluginBroken`, with the plugin's name and what it should have been.
Batches are handed over read-only, and results are copied, so that a plugin can change neither the pixels of
a batch that may be tried again nor vectors that it has already returned.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitmae_search.embedding.fingerprint import EmbedderDescription, canonical_json
from vitmae_search.embedding.guard_prepare import GuardedPrepare, guard_prepare
from vitmae_search.embedding.options import OptionValue, resolve_options
from vitmae_search.embedding.plugin import (
    Classifier,
    Embedder,
    EmbedderPlugin,
    OpenModel,
    PluginInfo,
    overrides,
)
from vitmae_search.embedding.plugin_errors import translate_memory_errors, wrap_plugin_errors
from vitmae_search.embedding.projection import Projection
from vitmae_search.errors import (
    DeviceError,
    InspectionError,
    NoDecoder,
    PluginBroken,
    PluginError,
    PluginOptionError,
)
from vitmae_search.records import Inspection, Reconstruction

_UNIT_LENGTH_TOLERANCE = 1e-3
_SUM_TOLERANCE = 1e-3
"""How far a row of probabilities may sum from 1; rounding over thousands of classes stays below."""


def open_embedder(
    plugin: EmbedderPlugin,
    options: Mapping[str, object] | None = None,
    device: str = "auto",
    precision: str = "auto",
) -> GuardedEmbedder:
    """Open the plugin's model, checked.

    Args:
        plugin: From `PluginHost.get` or `load_drop_in`.
        options: Values or strings (see `resolve_options`); the options left out take their defaults.
        device: auto, cpu, cuda, cuda:N or mps.
        precision: auto, fp32 or bf16.

    Raises:
        PluginOptionError: For an option that the plugin does not have, or a bad value.
        DeviceError: Where device or precision do not exist, or memory is too small.
        PluginBroken: Where the plugin fails, or breaks the contract.
        VitmaeSearchError: What the plugin raises for a person (`ModelNotFound`, `CheckpointError`, ...).
    """
    _check_device(device, precision)
    info = plugin.info
    resolved = resolve_options(info, options or {})
    with translate_memory_errors("open the model"), wrap_plugin_errors(info.name, "open"):
        embedder = plugin.open(dict(resolved), device=device, precision=precision)
    with _closed_on_failure(embedder):
        return GuardedEmbedder(info, resolved, embedder)


def open_classifier(
    plugin: EmbedderPlugin, model: str, device: str = "auto", precision: str = "auto"
) -> GuardedClassifier:
    """Open a classifier of the plugin, checked.

    Args:
        plugin: One with the capability "classify".
        model: A name or path.
        device: As for `open_embedder`.
        precision: As for `open_embedder`.

    Raises:
        PluginError: Where the plugin has no classifiers. Otherwise as `open_embedder`.
    """
    _check_device(device, precision)
    info = plugin.info
    if "classify" not in info.capabilities:
        raise PluginError(info.name, "it cannot classify photos; see `vitmae-search plugins`")
    with translate_memory_errors("open the model"), wrap_plugin_errors(info.name, "open_classifier"):
        classifier = plugin.open_classifier(model, device=device, precision=precision)
    with _closed_on_failure(classifier):
        return GuardedClassifier(info, classifier)


_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")


def _check_device(device: str, precision: str) -> None:
    if not _DEVICE.fullmatch(device):
        raise DeviceError(f"no device {device!r}; choose auto, cpu, cuda, cuda:N or mps")
    if precision not in ("auto", "fp32", "bf16"):
        raise DeviceError(f"no precision {precision!r}; choose auto, fp32 or bf16")


@contextmanager
def _closed_on_failure(opened: OpenModel) -> Iterator[None]:
    """Close the model where it fails the guard's checks."""
    try:
        yield
    except PluginBroken:
        with contextlib.suppress(Exception):
            opened.close()
        raise


class GuardedModel:
    """An open model of a plugin: the attributes that all have, checked, and its end.

    One call of the plugin runs at a time, behind a lock; `prepare` runs at any time. `shape` and `dtype` are
    those of what `prepare` returns. `batch_size` is None where the plugin names none.
    """

    def __init__(self, info: PluginInfo, opened: OpenModel, base: type[OpenModel]) -> None:
        """Check the attributes.

        Args:
            info: The plugin's.
            opened: What the plugin returned; closed by `close`.
            base: The class of the contract that it must be an instance of.

        Raises:
            PluginBroken: Where it is something else, or an attribute breaks the contract.
        """
        self._kind = base.__name__.lower()
        if not isinstance(opened, base):
            it_is = f"the {self._kind} is a {type(opened).__name__}"
            raise PluginBroken(
                info.name, f"{it_is}; its class must subclass vitmae_search.embedding.{base.__name__}"
            )
        self.info, self._opened = info, opened
        self._lock, self._closed = threading.Lock(), False
        self._offloaded, self._used_at = False, time.monotonic()
        with self._reading_attributes():
            model, identity, provenance = opened.model, opened.identity, opened.provenance
            input_size, prepare, batch_size = opened.input_size, opened.prepare, opened.batch_size
        self.model: str = self._expect(type(model) is str and model != "", "model", model, "text")
        self.identity: dict[str, Any] = self._plain_json("identity", identity)
        self.provenance: dict[str, Any] = self._plain_json("provenance", provenance)
        fits = input_size is None or _is_positive_int(input_size)
        self.input_size: int | None = self._expect(fits, "input_size", input_size, "None or an int above 0")
        fits = batch_size is None or _is_positive_int(batch_size)
        self.batch_size: int | None = self._expect(fits, "batch_size", batch_size, "an int above 0")
        self.prepare: GuardedPrepare = guard_prepare(info.name, prepare)
        self.shape, self.dtype = self.prepare.shape, self.prepare.dtype

    @property
    def offloaded(self) -> bool:
        """Whether it gave its device's memory back, and has not been called since."""
        return self._offloaded

    def offload(self, *, idle_seconds: float = 0.0) -> bool:
        """Give the device's memory back until the next call, where the plugin can (`OpenModel.offload`).

        Only if it has been idle for `idle_seconds`; it never waits for a call to end. Returns whether it did:
        False where it is offloaded already. Raises `PluginBroken`.
        """
        if not overrides(self._opened, OpenModel, "offload") or not self._lock.acquire(blocking=False):
            return False
        try:
            idle = time.monotonic() - self._used_at >= idle_seconds
            if self._closed or self._offloaded or not idle:
                return False
            with wrap_plugin_errors(self.info.name, "offload"):
                self._opened.offload()
            self._offloaded = True
            return True
        finally:
            self._lock.release()

    def close(self) -> None:
        """Give the model's memory back. A second call does nothing."""
        with self._lock:
            if not self._closed:
                self._closed = True
                with wrap_plugin_errors(self.info.name, "close"):
                    self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @contextmanager
    def _exclusive_call(self, action: str) -> Iterator[None]:
        """One call of the open model: alone, with the plugin's errors wrapped."""
        with self._lock:
            if self._closed:
                raise ValueError(f"the {self._kind} of plugin {self.info.name!r} is closed")
            self._offloaded = False
            try:
                with wrap_plugin_errors(self.info.name, action):
                    yield
            finally:
                self._used_at = time.monotonic()

    def _read_only(self, batch: NDArray[Any]) -> NDArray[Any]:
        """The batch as the plugin gets it. Raises ValueError for one that `prepare` did not make."""
        if batch.shape[1:] != self.shape or batch.dtype != self.dtype:
            raise ValueError(f"the batch is {batch.dtype} {batch.shape}, not {self.dtype} (N, *{self.shape})")
        view = batch.view()
        view.flags.writeable = False
        return view

    def _reading_attributes(self) -> contextlib.AbstractContextManager[None]:
        return wrap_plugin_errors(self.info.name, f"reading the {self._kind}'s attributes")

    def _expect(self, holds: bool, name: str, value: Any, rule: str) -> Any:
        if not holds:
            raise PluginBroken(self.info.name, f"{name}={value!r} must be {rule}")
        return value

    def _plain_json(self, name: str, value: object) -> dict[str, Any]:
        self._expect(isinstance(value, Mapping), name, value, "a dict")
        try:
            plain: dict[str, Any] = json.loads(canonical_json(value, name))
        except (TypeError, ValueError) as error:
            raise PluginBroken(self.info.name, str(error)) from error
        return plain


def _is_positive_int(value: object) -> bool:
    """Whether it is a whole number above 0, and no bool."""
    return type(value) is int and value > 0


class GuardedEmbedder(GuardedModel):
    """An open embedder whose every answer is checked; its members are those of `plugin.Embedder`.

    `options` reopen this embedder. `unresolved_options` are those whose value the embedder chose itself, with
    the value that was given ("auto").
    """

    def __init__(self, info: PluginInfo, options: Mapping[str, OptionValue], embedder: Embedder) -> None:
        """Check the attributes.

        Args:
            info: The plugin's.
            options: Those that it was opened with, every one of the plugin's.
            embedder: What the plugin returned; closed by `close`.

        Raises:
            PluginBroken: Where it breaks the contract.
        """
        super().__init__(info, embedder, Embedder)
        self._embedder = embedder
        with self._reading_attributes():
            dimension, projection = embedder.dimension, embedder.projection
            resolved, source_files = embedder.resolved_options, embedder.source_files
        fits = _is_positive_int(dimension)
        self.dimension: int = self._expect(fits, "dimension", dimension, "an int above 0")
        fits = projection is None or _is_absolute(projection)
        self.projection: str | None = self._expect(fits, "projection", projection, "None or an absolute path")
        fits = source_files is None or (
            isinstance(source_files, list | tuple) and all(map(_is_absolute, source_files))
        )
        self._expect(fits, "source_files", source_files, "None or a list of absolute paths")
        self.source_files = None if source_files is None else tuple(source_files)
        try:
            self.options = resolve_options(info, {**options, **resolved})
        except (PluginOptionError, TypeError) as error:
            raise PluginBroken(info.name, f"resolved_options={resolved!r} are no options of it") from error
        self.unresolved_options = {name: options[name] for name in resolved}

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
            self.unresolved_options,
            self.projection,
            self.knows_words,
        )

    @property
    def can_reconstruct(self) -> bool:
        """Whether the plugin offers `reconstruct`. A checkpoint may still turn out to lack the decoder."""
        return "reconstruct" in self.info.capabilities

    @property
    def knows_words(self) -> bool:
        """Whether the plugin offers `embed_text` for this model."""
        return overrides(self._embedder, Embedder, "embed_text")

    def fingerprint(self, decode: str) -> str:
        """The fingerprint of the space that its vectors of photos decoded in mode `decode` belong to."""
        return self.description.fingerprint(decode)

    def own_projection(self) -> Projection | None:
        """See `EmbedderDescription.own_projection`."""
        return self.description.own_projection()

    def embed(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """(N, *shape) of `dtype` to (N, dimension) float32: C-contiguous, finite, rows of norm 1.

        N may be 0. Raises `PluginBroken`; MemoryError where the batch is too large; ValueError for a batch
        that `prepare` did not make.
        """
        batch = self._read_only(batch)
        if len(batch) == 0:
            return np.empty((0, self.dimension), np.float32)
        with self._exclusive_call("embed"):
            vectors = self._embedder.embed(batch)
            check_vectors(self.info.name, vectors, len(batch), self.dimension)
            return np.array(vectors)  # a copy: the plugin may fill its buffer again

    def embed_text(self, text: str) -> NDArray[np.float32]:
        """One line of text that is not blank to a vector (dimension,) float32, finite, of norm 1.

        Raises:
            NoText: The model does not know words.
            DeviceError: Where memory is too small.
            PluginBroken: Where the plugin fails, or what it returns breaks the contract.
        """
        with translate_memory_errors("understand words"), self._exclusive_call("embed_text"):
            vector = self._embedder.embed_text(text)
            check_text_vector(self.info.name, vector, self.dimension)
            return np.array(vector)

    def reconstruct(
        self,
        image: Image.Image,
        *,
        mask_ratio: float = 0.75,
        seed: int = 0,
        mask: NDArray[np.bool_] | None = None,
    ) -> Reconstruction:
        """Hide patches of an image and fill them in again.

        Args:
            image: RGB.
            mask_ratio: The share of patches to hide, 0 ≤ r < 1.
            seed: Decides which.
            mask: (gh, gw), True = hidden; overrides `mask_ratio` and `seed`.

        Raises:
            NoDecoder: Where the plugin or its checkpoint cannot do it.
            DeviceError: Where memory is too small.
            PluginBroken: Where the plugin fails, or what it returns breaks the contract.
        """
        if not self.can_reconstruct:
            raise NoDecoder(f"plugin {self.info.name!r} makes no reconstructions; use a ViTMAE model")
        if not overrides(self._embedder, Embedder, "reconstruct"):
            raise PluginBroken(self.info.name, "it says that it reconstructs, but has no reconstruct()")
        with translate_memory_errors("reconstruct a photo"), self._exclusive_call("reconstruct"):
            result = self._embedder.reconstruct(image, mask_ratio=mask_ratio, seed=seed, mask=mask)
        check_reconstruction(self.info.name, result)
        return result

    def inspect(self, image: Image.Image) -> Inspection:
        """Embed an image, and keep what is computed on the way.

        Args:
            image: RGB.

        Raises:
            InspectionError: Where the plugin cannot do it.
            DeviceError: Where memory is too small.
            PluginBroken: Where the plugin fails, or what it returns breaks the contract.
        """
        if "inspect" not in self.info.capabilities:
            raise InspectionError(f"plugin {self.info.name!r} does not show its inside; use a ViTMAE model")
        if not overrides(self._embedder, Embedder, "inspect"):
            raise PluginBroken(self.info.name, "it says that it can be inspected, but has no inspect()")
        with translate_memory_errors("inspect a photo"), self._exclusive_call("inspect"):
            result = self._embedder.inspect(image)
        check_inspection(self.info.name, result, self.dimension)
        return result

    @property
    def has_patch_tokens(self) -> bool:
        """Whether the plugin offers `patch_tokens`."""
        return overrides(self._embedder, Embedder, "patch_tokens")

    def patch_tokens(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """The tokens of images' patches, (N, rows, columns, C) float32, finite; see `Embedder.patch_tokens`.

        Args:
            images: RGB, 1 or more.

        Raises:
            PluginError: The plugin offers none.
            DeviceError: Where memory is too small.
            PluginBroken: Where the plugin fails, or what it returns breaks the contract.
        """
        if not self.has_patch_tokens:
            raise PluginError(self.info.name, "it gives no tokens of patches")
        with translate_memory_errors("look at the parts of a photo"), self._exclusive_call("patch_tokens"):
            found = self._embedder.patch_tokens(images)
            check_patch_tokens(self.info.name, found, len(images))
            return np.array(found)

    def random_init(self, seed: int = 0) -> GuardedEmbedder | None:
        """The same network before any training, for the caller to close; None where the plugin has none."""
        if not overrides(self._embedder, Embedder, "random_init"):
            return None
        with translate_memory_errors("open the untrained model"), self._exclusive_call("random_init"):
            untrained = self._embedder.random_init(seed)
        with _closed_on_failure(untrained):
            return GuardedEmbedder(self.info, self.options, untrained)


def _is_absolute(path: object) -> bool:
    return type(path) is str and os.path.isabs(path)


def check_vectors(plugin: str, vectors: object, rows: int, dimension: int) -> None:
    """Raise `PluginBroken` unless `vectors` is what `embed` must return.

    Args:
        plugin: The plugin's name.
        vectors: What it returned.
        rows: How many rows the batch has.
        dimension: The number of components of a vector.
    """
    _check_unit_rows(plugin, "embed", _check_array(plugin, "embed", vectors, (rows, dimension)))


def check_text_vector(plugin: str, vector: object, dimension: int) -> None:
    """Raise `PluginBroken` unless `vector` is what `embed_text` must return.

    Args:
        plugin: The plugin's name.
        vector: What it returned.
        dimension: The number of components of a vector.
    """
    _check_unit_rows(plugin, "embed_text", _check_array(plugin, "embed_text", vector, (dimension,))[None])


def _check_unit_rows(plugin: str, method: str, array: NDArray[np.float32]) -> None:
    if not np.isfinite(array).all():
        row = int(np.flatnonzero(~np.isfinite(array).all(axis=1))[0])
        raise PluginBroken(plugin, f"{method} gave NaN or infinity in row {row} of {len(array)}")
    norms = np.linalg.norm(array.astype(np.float64), axis=1)
    wrong = np.flatnonzero(np.abs(norms - 1) > _UNIT_LENGTH_TOLERANCE)
    if wrong.size:
        row = int(wrong[0])
        raise PluginBroken(plugin, f"{method} gave a vector of norm {norms[row]:.4g}; it must be 1")


def _check_array(plugin: str, method: str, found: object, shape: tuple[int, ...]) -> NDArray[np.float32]:
    if not isinstance(found, np.ndarray):
        raise PluginBroken(plugin, f"{method} gave a {type(found).__name__}; it must be a NumPy array")
    if found.dtype != np.float32:
        raise PluginBroken(plugin, f"{method} gave {found.dtype}; it must be float32")
    if found.shape != shape:
        raise PluginBroken(plugin, f"{method} gave shape {found.shape}; it must be {shape}")
    if not found.flags.c_contiguous:
        raise PluginBroken(plugin, f"{method} gave an array that is not C-contiguous")
    return found


def check_patch_tokens(plugin: str, found: object, images: int) -> None:
    """Raise `PluginBroken` unless `found` is what `patch_tokens` must return.

    Args:
        plugin: The plugin's name.
        found: What it returned.
        images: How many images it was given.
    """
    if not isinstance(found, np.ndarray) or found.dtype != np.float32:
        raise PluginBroken(plugin, "patch_tokens must give a NumPy array of float32")
    if found.ndim != 4 or len(found) != images or 0 in found.shape:
        raise PluginBroken(
            plugin, f"patch_tokens gave shape {found.shape}; it must be ({images}, rows, columns, C)"
        )
    if not np.isfinite(found).all():
        raise PluginBroken(plugin, "patch_tokens gave NaN or infinity")


def check_reconstruction(plugin: str, result: object) -> None:
    """Raise `PluginBroken` unless `result` is a `Reconstruction` whose arrays fit each other.

    Args:
        plugin: The plugin's name.
        result: What `reconstruct` returned.
    """
    if not isinstance(result, Reconstruction):
        raise PluginBroken(plugin, f"reconstruct gave a {type(result).__name__}, not a Reconstruction")
    panels = (result.original, result.masked, result.reconstruction, result.pasted)
    shape = panels[0].shape
    if len(shape) != 3 or shape[2] != 3 or any(p.shape != shape or p.dtype != np.uint8 for p in panels):
        raise PluginBroken(plugin, "reconstruct must give four panels of one shape (H, W, 3), uint8")
    if result.mask.dtype != np.bool_ or result.mask.ndim != 2 or result.error.shape != result.mask.shape:
        raise PluginBroken(plugin, "reconstruct must give mask and error of one shape (gh, gw)")


def check_inspection(plugin: str, result: object, dimension: int) -> None:
    """Raise `PluginBroken` unless `result` is an `Inspection` whose arrays fit each other.

    Args:
        plugin: The plugin's name.
        result: What `inspect` returned.
        dimension: Of the embedder's vectors.
    """
    if not isinstance(result, Inspection):
        raise PluginBroken(plugin, f"inspect gave a {type(result).__name__}, not an Inspection")
    rows, columns = result.grid
    tokens, heads = 1 + rows * columns, result.attention.shape[1:2]
    layers = len(result.tokens) - 1
    if result.picture.dtype != np.uint8 or result.picture.shape[2:] != (3,):
        raise PluginBroken(plugin, "inspect must give a picture (H, W, 3), uint8")
    if result.tokens.ndim != 3 or result.tokens.shape[1] != tokens or not np.isfinite(result.tokens).all():
        raise PluginBroken(plugin, "inspect must give finite tokens (1 + depth, 1 + patches, D)")
    if result.attention.shape != (layers, *heads, tokens, tokens):
        raise PluginBroken(plugin, "inspect must give attention (depth, heads, 1 + patches, 1 + patches)")
    check_vectors(plugin, result.features[None], 1, dimension)
    if result.shares is not None and result.shares.shape != (rows * columns, dimension):
        raise PluginBroken(plugin, "inspect must give shares (patches, dimension)")


class ProjectedEmbedder:
    """An embedder whose vectors are the projection of another one's. `close` closes the other one."""

    def __init__(self, embedder: GuardedEmbedder, projection: Projection) -> None:
        """Put them together.

        Args:
            embedder: Makes the features.
            projection: Takes features of the embedder's dimension.

        Raises:
            ModelError: Where the two do not fit.
        """
        projection.check_fits(embedder.dimension)
        self._embedder, self._projection = embedder, projection
        self.model, self.provenance = embedder.model, embedder.provenance
        self.identity = {"features": embedder.identity, "projection": projection.digest}
        self.dimension = projection.dimension
        self.input_size, self.prepare = embedder.input_size, embedder.prepare

    def embed(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """As `GuardedEmbedder.embed`."""
        return self._projection(self._embedder.embed(batch))

    def guess_turned(self, vectors: NDArray[np.float32]) -> NDArray[np.float32] | None:
        """As `Projection.guess_turned`."""
        return self._projection.guess_turned(vectors)

    def close(self) -> None:
        """Close the embedder."""
        self._embedder.close()


class GuardedClassifier(GuardedModel):
    """An open classifier whose every answer is checked; its members are those of `plugin.Classifier`."""

    def __init__(self, info: PluginInfo, classifier: Classifier) -> None:
        """Check the attributes.

        Args:
            info: The plugin's.
            classifier: What the plugin returned; closed by `close`.

        Raises:
            PluginBroken: Where it breaks the contract.
        """
        super().__init__(info, classifier, Classifier)
        self._classifier = classifier
        with self._reading_attributes():
            labels = list(classifier.labels)
        fits = bool(labels) and all(_is_text(label) for label in labels)
        self.labels: tuple[str, ...] = tuple(self._expect(fits, "labels", labels, "one text or more"))

    def classify(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """(N, *shape) of `dtype` to (N, len(labels)) float32 probabilities, each row ≥ 0 with the sum 1.

        N may be 0. Raises `PluginBroken`; MemoryError where the batch is too large; ValueError for a batch
        that `prepare` did not make.
        """
        batch = self._read_only(batch)
        if len(batch) == 0:
            return np.empty((0, len(self.labels)), np.float32)
        with self._exclusive_call("classify"):
            probabilities = self._classifier.classify(batch)
            check_probabilities(self.info.name, probabilities, len(batch), len(self.labels))
            return np.array(probabilities)  # a copy: the plugin may fill its buffer again


def _is_text(label: object) -> bool:
    try:
        return type(label) is str and bool(label.strip()) and bool(label.encode("utf-8"))
    except UnicodeEncodeError:
        return False


def check_probabilities(plugin: str, found: object, rows: int, labels: int) -> None:
    """Raise `PluginBroken` unless `found` is what `classify` must return.

    Args:
        plugin: The plugin's name.
        found: What it returned.
        rows: How many rows the batch has.
        labels: The number of classes.
    """
    array = _check_array(plugin, "classify", found, (rows, labels))
    sums = array.sum(axis=1, dtype=np.float64)
    right = np.isfinite(array).all(axis=1) & (array >= 0).all(axis=1) & (np.abs(sums - 1) <= _SUM_TOLERANCE)
    if not right.all():
        row = int(np.flatnonzero(~right)[0])
        rule = "they must be finite, not negative, and sum to 1"
        raise PluginBroken(plugin, f"classify gave no probabilities in row {row} of {rows}: {rule}")
