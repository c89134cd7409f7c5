"""Labels of photos: the first folder that a photo lies in, or a CSV file."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vitmae_search.errors import LabelsError, UnreadablePhoto, display_path
from vitmae_search.photos.scan import is_photo_name, stamp_file
from vitmae_search.records import Stamp

_LISTED_ROWS = 3  # bad rows that an error lists


@dataclass(frozen=True, slots=True)
class LabelledFiles:
    """Files and their labels, row by row, sorted by path.

    Attributes:
        files: Stamps of the photos.
        labels: The label of each.
        unlabelled: Number of photos that were left out for lack of a label.
    """

    files: tuple[Stamp, ...]
    labels: tuple[str, ...]
    unlabelled: int = 0

    def __len__(self) -> int:
        return len(self.files)


def folder_label(path: str, root: str) -> str | None:
    """Return the name of the first folder on the way from `root` to `path`.

    Args:
        path: A photo under `root`.
        root: The folder of all photos.

    Returns:
        The label; None for a photo that lies in `root` itself.
    """
    parts = os.path.relpath(path, root).split(os.sep)
    return display_path(parts[0]) if len(parts) > 1 else None


def labels_of_csv(table: str | os.PathLike[str], folder: str | os.PathLike[str]) -> LabelledFiles:
    """Read the labels of photos from a CSV file; photos that it does not list are left out.

    Args:
        table: UTF-8 with a header, and the columns path (relative to `folder`) and label. Other columns are
            ignored.
        folder: The folder of the photos.

    Raises:
        LabelsError: A column is missing or empty, or a path leads out of the folder, is no photo, is absent,
            or comes twice. The error names the lines.
    """
    root, where = os.path.abspath(os.fspath(folder)), display_path(table)
    seen: dict[str, int] = {}
    rows: list[tuple[Stamp, str]] = []
    wrong: list[str] = []
    for line, row in _rows(Path(table)):
        stamp = _stamp(row, root)
        if isinstance(stamp, str):
            wrong.append(f"line {line}: {stamp}")
        elif stamp.path in seen:
            wrong.append(f"line {line}: {row['path']} is also on line {seen[stamp.path]}")
        else:
            seen[stamp.path] = line
            rows.append((stamp, row["label"].strip()))
    if wrong:
        more = f"; and {len(wrong) - _LISTED_ROWS} more" if len(wrong) > _LISTED_ROWS else ""
        raise LabelsError(f"{where} has {len(wrong)} bad rows: {'; '.join(wrong[:_LISTED_ROWS])}{more}")
    if not rows:
        raise LabelsError(f"{where} lists no photo")
    files, labels = zip(*sorted(rows, key=lambda pair: pair[0].path), strict=True)
    return LabelledFiles(files, labels)


def _rows(table: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield line numbers and rows, with path and label as text, "" where they are missing."""
    where = display_path(table)
    try:
        with table.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            columns = Counter(reader.fieldnames or ())
            if columns["path"] != 1 or columns["label"] != 1:
                found = ", ".join(columns) or "none"
                raise LabelsError(f"{where} needs the columns path and label, once each; it has {found}")
            for row in reader:
                yield reader.line_num, {name: row[name] or "" for name in ("path", "label")}
    except OSError as error:
        raise LabelsError(f"{where} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise LabelsError(f"{where} is not UTF-8") from error
    except csv.Error as error:
        raise LabelsError(f"{where}, line {reader.reader.line_num}: {error}") from error


def _stamp(row: dict[str, str], root: str) -> Stamp | str:
    """Return the stamp of a row's photo, or what is wrong with the row."""
    path, label = row["path"], row["label"].strip()
    if not path or not label:
        return "no path" if not path else "no label"
    joined = os.path.normpath(os.path.join(root, path))
    if os.path.isabs(path) or not joined.startswith(os.path.join(root, "")):
        return f"{display_path(path)} is not a path under the folder"
    if not is_photo_name(joined):
        return f"{display_path(path)} is not a photo"
    try:
        return stamp_file(joined)
    except UnreadablePhoto as error:
        return f"{display_path(path)}: {error.reason}"
