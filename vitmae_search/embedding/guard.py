"""The guard between host and plugins: opens an embedder, and checks whatever comes back from it.

What breaks the contract is raised as `PluginBroken`, with the plugin's name and what it should have been.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitmae_search.embedding.description import EmbedderDescription
from vitmae_search.embedding.guard_prepare import blame, enough_memory
from vitmae_search.embedding.guarded import Guarded, check_device, positive
from vitmae_search.embedding.options import OptionValue, resolve_options
from vitmae_search.embedding.plugin import (
    Choosing,
    Embedder,
    EmbedderPlugin,
    FromFiles,
    PluginInfo,
    Projecting,
    Reconstructor,
    Untrained,
)
from vitmae_search.embedding.projection import Projection
from vitmae_search.errors import NoDecoder, PluginBroken, PluginOptionError
from vitmae_search.records import Reconstruction

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
