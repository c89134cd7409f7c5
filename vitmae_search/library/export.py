"""Write photos, with their vectors or scores, for other programs: Parquet, NPZ, CSV, JSON, or links."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from vitmae_search.address import is_address
from vitmae_search.atomic import write_atomically
from vitmae_search.errors import LibraryError, StorageError, display_path
from vitmae_search.photos import read_photo
from vitmae_search.photos.stored_file import open_file
from vitmae_search.records import Marks, Photo, is_video_name

Columns = Mapping[str, Sequence[Any]]
"""Values by column, all of one length."""


@dataclass(frozen=True, slots=True, eq=False)
class Embeddings:
    """The vectors of a space's photos on disk, one row for each photo; copies have equal rows.

    Attributes:
        photo_ids: (N,) int64.
        paths: The N files.
        digests: SHA-256 of their contents, in hex.
        vectors: (N, D) float32, of unit length.
        space_id: The space.
    """

    photo_ids: NDArray[np.int64]
    paths: tuple[str, ...]
    digests: tuple[str, ...]
    vectors: NDArray[np.float32]
    space_id: int

    def __len__(self) -> int:
        return len(self.paths)


def photo_columns(photos: Sequence[Photo], marks: Mapping[str, Marks]) -> dict[str, list[Any]]:
    """What is known of photos, as columns.

    Args:
        photos: The photos.
        marks: What a person said of them, by digest.
    """
    said = [marks.get(photo.digest, Marks()) for photo in photos]
    return {
        "photo_id": [photo.photo_id for photo in photos],
        "path": [photo.path for photo in photos],
        "digest": [photo.digest for photo in photos],
        "date": [None if photo.date[0] is None else photo.date[0].isoformat() for photo in photos],
        "camera": [photo.metadata.camera for photo in photos],
        "lens": [photo.metadata.lens for photo in photos],
        "width": [photo.metadata.width for photo in photos],
        "height": [photo.metadata.height for photo in photos],
        "format": [photo.metadata.format for photo in photos],
        "bytes": [photo.size for photo in photos],
        "favourite": [one.favourite for one in said],
        "rating": [one.rating for one in said],
    }


def place_columns(photos: Sequence[Photo]) -> dict[str, list[Any]]:
    """Where photos were taken, as columns."""
    return {
        "latitude": [photo.metadata.latitude for photo in photos],
        "longitude": [photo.metadata.longitude for photo in photos],
    }


def write_table(
    output: Path, columns: Columns, vectors: NDArray[np.float32] | None = None, suffix: str | None = None
) -> None:
    """Write columns to a file, in the format that its suffix names; an older file is replaced.

    Args:
        output: The file: `.parquet`, `.npz`, `.csv` or `.json`.
        columns: Values by column.
        vectors: (N, D), one for each row; None for none.
        suffix: Names the format in place of that of `output`.

    Raises:
        LibraryError: The suffix is none of these.
        StorageError: The file cannot be written.
    """
    writer = _WRITERS.get(output.suffix.lower() if suffix is None else suffix)
    if writer is None:
        raise LibraryError(f"{display_path(output)} should end in {', '.join(_WRITERS)}")
    try:
        with write_atomically(output) as stream:
            writer(stream, columns, vectors)
    except OSError as error:
        raise StorageError(f"{display_path(output)} cannot be written: {error.strerror or error}.") from error


def write_links(folder: Path, paths: Sequence[str]) -> None:
    """Fill a new or empty folder with symbolic links to files, numbered in their order.

    Of a photo on an object storage it is a copy.

    Args:
        folder: The folder.
        paths: The files, which are not touched.

    Raises:
        PhotoError: A photo on a storage cannot be read.
        LibraryError: The folder holds something.
        StorageError: It cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise LibraryError(f"{display_path(folder)} is not empty; name a new folder for the links")
        digits = len(str(len(paths)))
        for number, path in enumerate(paths, start=1):
            name = f"{number:0{digits}d} {os.path.basename(path)}"
            target = folder / os.fsdecode(os.fsencode(name)[-255:])
            if is_address(path):
                _copy(path, target)
            else:
                os.symlink(path, target)
    except OSError as error:
        raise StorageError(f"{display_path(folder)} cannot be written: {error.strerror or error}.") from error


def _copy(address: str, target: Path) -> None:
    """Copy an object of a storage; a video may have more bytes than fit in memory."""
    if not is_video_name(address):
        target.write_bytes(read_photo(address))
        return
    with open_file(address) as file, target.open("wb") as copy:
        shutil.copyfileobj(file, copy)


def _write_json(stream: IO[bytes], columns: Columns, vectors: NDArray[np.float32] | None) -> None:
    """One object a row, in a list. Bytes of a path that are not UTF-8 become escaped surrogates."""
    text = io.TextIOWrapper(stream, "ascii", write_through=True)
    text.write("[")
    for i, values in enumerate(zip(*columns.values(), strict=True)):
        row = dict(zip(columns, values, strict=True))
        if vectors is not None:
            row["vector"] = [float(f"{number:.8g}") for number in vectors[i].tolist()]
        text.write(("," if i else "") + "\n" + json.dumps(row))
    text.write("\n]\n")
    text.detach()


def _write_csv(stream: IO[bytes], columns: Columns, vectors: NDArray[np.float32] | None) -> None:
    """A path keeps its bytes, also those that are not UTF-8. Vectors are the columns v0, v1, ..."""
    text = io.TextIOWrapper(stream, "utf-8", "surrogateescape", newline="", write_through=True)
    writer = csv.writer(text)
    width = 0 if vectors is None else vectors.shape[1]
    writer.writerow([*columns, *(f"v{i}" for i in range(width))])
    for i, values in enumerate(zip(*columns.values(), strict=True)):
        numbers = [] if vectors is None else [f"{number:.8g}" for number in vectors[i].tolist()]
        writer.writerow([*("" if value is None else value for value in values), *numbers])
    text.detach()


def _write_npz(stream: IO[bytes], columns: Columns, vectors: NDArray[np.float32] | None) -> None:
    """Arrays by column, without pickles; what is not known is "" or NaN."""
    arrays: dict[str, Any] = {name: _array(name, values) for name, values in columns.items()}
    if vectors is not None:
        arrays["vectors"] = vectors
    np.savez_compressed(stream, **arrays)


def _array(name: str, values: Sequence[Any]) -> NDArray[Any]:
    if name in ("latitude", "longitude", "score"):
        return np.array([np.nan if value is None else value for value in values], np.float64)
    if all(value is None or isinstance(value, str) for value in values):
        return np.array(["" if value is None else value for value in values], np.str_)
    return np.array(values)


def _write_parquet(stream: IO[bytes], columns: Columns, vectors: NDArray[np.float32] | None) -> None:
    """`vector` is a list of D floats. Bytes of a path that are not UTF-8 are written as \\xNN."""
    import pyarrow
    import pyarrow.parquet

    arrays = {name: pyarrow.array(list(map(_valid_text, values))) for name, values in columns.items()}
    if vectors is not None:
        flat = pyarrow.array(np.ascontiguousarray(vectors).reshape(-1))
        arrays["vector"] = pyarrow.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
    pyarrow.parquet.write_table(pyarrow.table(arrays), stream)


def _valid_text(value: Any) -> Any:
    return (
        value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        if isinstance(value, str)
        else value
    )


_Writer = Callable[[IO[bytes], Columns, NDArray[np.float32] | None], None]

_WRITERS: dict[str, _Writer] = {
    ".parquet": _write_parquet,
    ".npz": _write_npz,
    ".csv": _write_csv,
    ".json": _write_json,
}
