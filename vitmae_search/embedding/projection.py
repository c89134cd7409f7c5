"""Projections: what turns stored features into the vectors of another space, without torch.

Features are the unit vectors that a plugin's `embed` gives. A projection is a few affine maps with ReLU
between them (whitening is one map, a head is two), applied by the host for any plugin. In its file each map
is `<i>.weight` (out, in) and `<i>.bias` (out,), float32, and the metadata has kind, digest, provenance and,
where it was measured, what scores mean (calibration). `turns` (3, out, out), float16, is there where it was
fitted: it guesses the vectors of a picture's quarter turns.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from vitmae_search.atomic import write_atomically
from vitmae_search.errors import CheckpointError, ModelError, ModelNotFound, display_path
from vitmae_search.records import ScoreCalibration
from vitmae_search.regular_file import open_regular_file

_FORMAT = "vitmae-search projection 1"
_MAX_HEADER_BYTES = 1 << 20
_MAX_NORM = 1e150
"""The bound on the norm of unit features after any map, so that not even its square overflows float64."""

_ROWS = 8192
"""Features that are projected at once, as they are float64 meanwhile: twice the memory."""

PathLike = str | os.PathLike[str]


@dataclass(frozen=True, slots=True, eq=False)
class Projection:
    """Affine maps with ReLU between them, then rows to norm 1. Immutable and thread-safe.

    Attributes:
        weights: (out, in) float32, finite; each map takes what the one before gives.
        biases: (out,) float32, finite.
        kind: A word for people: "whitening", "head".
        provenance: How it was made.
        calibration: What the scores of its vectors mean, where that was measured.
        turns: (3, dimension, dimension) float16, finite: linear maps from a vector to about those of
            the picture turned left by 90, 180 and 270°, where they were fitted.
        digest: SHA-256 in hex over shapes and values of the maps alone: equal digests give equal vectors.

    Raises:
        ModelError: For arrays that do not fit.
    """

    weights: Sequence[NDArray[np.float32]]
    biases: Sequence[NDArray[np.float32]]
    kind: str
    provenance: Mapping[str, str] = field(default_factory=dict)
    calibration: ScoreCalibration | None = None
    turns: NDArray[np.float16] | None = None
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        weights, biases = tuple(map(_read_only_copy, self.weights)), tuple(map(_read_only_copy, self.biases))
        _check_maps(weights, biases)
        turns = None if self.turns is None else _checked_turns(self.turns, len(biases[-1]))
        values = {"weights": weights, "biases": biases, "turns": turns, "digest": _digest(weights, biases)}
        for name, value in (values | {"provenance": dict(self.provenance)}).items():
            object.__setattr__(self, name, value)

    @property
    def input_dimension(self) -> int:
        """The number of components of a feature vector."""
        return int(self.weights[0].shape[1])

    @property
    def dimension(self) -> int:
        """The number of components of a vector that comes out."""
        return int(self.weights[-1].shape[0])

    @property
    def maps(self) -> tuple[tuple[NDArray[np.float32], NDArray[np.float32]], ...]:
        """The affine maps in their order, (weight, bias) each."""
        return tuple(zip(self.weights, self.biases, strict=True))

    def __call__(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, input_dimension) float32 unit rows to (N, dimension) float32 unit rows, new and C-contiguous.

        A row that the maps take to zero, and that has no direction, becomes the first axis. N may be 0.
        Row i depends on features[i] alone, but for rounding (1e-7). Raises `ModelError` for features of
        another dimension.
        """
        self.check_fits(features.shape[1])
        made = np.empty((len(features), self.dimension), np.float32)
        for start in range(0, len(features), _ROWS):
            vectors = self._apply(features[start : start + _ROWS])
            norms = np.linalg.norm(vectors, axis=1, keepdims=True)
            vectors[norms[:, 0] == 0, 0] = norms[norms == 0] = 1
            made[start : start + _ROWS] = vectors / norms
        return made

    def guess_turned(self, vectors: NDArray[np.float32]) -> NDArray[np.float32] | None:
        """About the vectors of the same pictures turned left by 90, 180 and 270°.

        Args:
            vectors: (N, dimension), of this projection.

        Returns:
            (3, N, dimension) float32 unit rows; None where the maps were not fitted.
        """
        if self.turns is None:
            return None
        guessed = vectors @ self.turns.astype(np.float32)
        norms: NDArray[np.float32] = np.linalg.norm(guessed, axis=2, keepdims=True)
        return (guessed / np.maximum(norms, np.finfo(np.float32).tiny)).astype(np.float32, copy=False)

    def norms(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """(N,) float64: how long the vectors of features are before they are brought to norm 1.

        Raises `ModelError` for features of another dimension.
        """
        self.check_fits(features.shape[1])
        found = np.empty(len(features))
        for start in range(0, len(features), _ROWS):
            vectors = self._apply(features[start : start + _ROWS])
            found[start : start + _ROWS] = np.linalg.norm(vectors, axis=1)
        return found

    def _apply(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        # In float64, because whitening amplifies small differences, rounding errors included.
        vectors = features.astype(np.float64)
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            vectors = (np.maximum(vectors, 0) if i else vectors) @ weight.T.astype(np.float64) + bias
        return vectors

    def check_fits(self, dimension: int) -> None:
        """Raise `ModelError` unless it takes features of this dimension."""
        if dimension != self.input_dimension:
            takes = f"it takes features of dimension {self.input_dimension}"
            raise ModelError(
                f"The projection ({self.kind}) does not fit: {takes}, and these have {dimension}."
            )

    def save(self, path: PathLike) -> None:
        """Write the file, whole or not at all. Raises OSError."""
        tensors: dict[str, NDArray[Any]] = {f"{i}.weight": weight for i, weight in enumerate(self.weights)}
        tensors |= {f"{i}.bias": bias for i, bias in enumerate(self.biases)}
        if self.turns is not None:
            tensors["turns"] = self.turns
        metadata = {"format": _FORMAT, "kind": self.kind, "digest": self.digest}
        metadata["provenance"] = json.dumps(dict(self.provenance), sort_keys=True)
        if self.calibration is not None:
            metadata["calibration"] = json.dumps(asdict(self.calibration))
        with write_atomically(Path(path)) as file:
            file.write(safetensors.numpy.save(tensors, metadata))

    def store(self, folder: PathLike) -> Path:
        """Save it in `folder`, which is created if needed, under its digest.

        A sound file there is kept, unless its calibration is another one, or it lacks the turns.
        """
        path = projection_path(folder, self.digest)
        with suppress(ModelError):
            there = Projection.read(path)
            measured = self.calibration in (None, there.calibration)
            fitted = self.turns is None or there.turns is not None
            if there.digest == self.digest and measured and fitted:
                return path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.save(path)
        return path

    @classmethod
    def read(cls, path: PathLike) -> Self:
        """The projection in a file.

        Raises:
            ModelNotFound: Where there is no such file.
            CheckpointError: Where it is something else, damaged, or its values do not match its digest.
        """
        where = display_path(path)
        try:
            metadata, content = _read_file(path)
            tensors = safetensors.numpy.load(content)
            turns = tensors.pop("turns", None)
            maps = range(len(tensors) // 2)
            weights, biases = [tensors[f"{i}.weight"] for i in maps], [tensors[f"{i}.bias"] for i in maps]
            kind, provenance = metadata["kind"], json.loads(metadata["provenance"])
            calibration = _calibration(metadata.get("calibration"))
            found = cls(weights, biases, kind, provenance, calibration, turns)
        except FileNotFoundError:
            raise ModelNotFound(f"{where}: there is no such projection file.") from None
        except OSError as error:
            raise CheckpointError(f"{where} cannot be read: {error.strerror or error}.") from error
        except (SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise CheckpointError(f"{where} is not a projection file, or is damaged.") from error
        except ModelError as error:
            raise CheckpointError(f"{where}: {error}") from error
        if found.digest != metadata.get("digest"):
            raise CheckpointError(f"{where} is damaged: its values are not those of its digest.")
        return found

    @classmethod
    def read_stored(cls, folder: PathLike, digest: str) -> Self:
        """The projection that `store` saved.

        Args:
            folder: Where it was stored.
            digest: Its digest.

        Raises:
            ModelNotFound: Where there is no such file.
            CheckpointError: Where it is damaged, or another projection.
        """
        path = projection_path(folder, digest)
        found = cls.read(path)
        if found.digest != digest:
            raise CheckpointError(f"{display_path(path)} is damaged: it holds another projection.")
        return found


def projection_path(folder: PathLike, digest: str) -> Path:
    """Where `Projection.store` saves a projection.

    Args:
        folder: The folder that it is stored in.
        digest: Its digest.
    """
    return Path(folder) / f"{digest}.safetensors"


def _calibration(text: str | None) -> ScoreCalibration | None:
    """What the metadata says that scores mean. Raises ValueError or TypeError for anything else."""
    if text is None:
        return None
    found = ScoreCalibration(**json.loads(text))
    if any(score is not None and not -1 <= score <= 1 for score in (found.same, found.alike)):
        raise ValueError("no scores")
    return found


def _read_only_copy(array: NDArray[Any]) -> NDArray[np.float32]:
    copy = np.array(array, np.float32, order="C")
    copy.flags.writeable = False
    return copy


def _checked_turns(turns: NDArray[Any], dimension: int) -> NDArray[np.float16]:
    """A copy that cannot be written to. Raises `ModelError` for turns that do not fit."""
    copy = np.array(turns, np.float16, order="C")
    if copy.shape != (3, dimension, dimension) or not np.isfinite(copy).all():
        raise ModelError(
            f"The projection's turns have the shape {copy.shape}, or values that are not finite."
        )
    copy.flags.writeable = False
    return copy


def _check_maps(weights: Sequence[NDArray[np.float32]], biases: Sequence[NDArray[np.float32]]) -> None:
    if not weights or len(weights) != len(biases):
        raise ModelError(f"A projection has as many weights as biases, not {len(weights)} and {len(biases)}.")
    bound = 1.0
    for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        if weight.ndim != 2 or weight.size == 0 or bias.shape != weight.shape[:1]:
            raise ModelError(f"Map {i} of the projection has shapes {weight.shape} and {bias.shape}.")
        if i and weight.shape[1] != len(biases[i - 1]):
            gives = len(biases[i - 1])
            raise ModelError(f"Map {i} of the projection takes {weight.shape[1]} numbers and gets {gives}.")
        bound = bound * float(np.linalg.norm(weight.astype(np.float64))) + float(
            np.linalg.norm(bias.astype(np.float64))
        )
        if not bound < _MAX_NORM:  # NaN too
            raise ModelError(f"Map {i} of the projection has values that are not finite, or too large.")


def _digest(weights: Sequence[NDArray[np.float32]], biases: Sequence[NDArray[np.float32]]) -> str:
    digest = hashlib.sha256()
    for array in (*weights, *biases):
        digest.update(json.dumps(array.shape).encode())
        digest.update(array.astype("<f4").tobytes())
    return digest.hexdigest()


def _read_file(path: PathLike) -> tuple[dict[str, str], bytes]:
    """Metadata and content. Raises ValueError before it reads a large file that is something else."""
    with open_regular_file(path) as file:
        size = file.read(8)
        length = int.from_bytes(size, "little")
        if length > _MAX_HEADER_BYTES:
            raise ValueError("no header")
        header = file.read(length)
        tensors = json.loads(header)
        metadata = tensors.get("__metadata__") if isinstance(tensors, dict) else None
        if not isinstance(metadata, dict) or metadata.get("format") != _FORMAT:
            raise ValueError("no projection")
        return metadata, size + header + file.read()
