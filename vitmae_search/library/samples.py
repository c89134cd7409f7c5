"""A sample folder for `demo`: real photos from installed packages, each in ten views.

A search with one view has a known right answer: the nine others.
"""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path

from PIL import Image

from vitmae_search.bundled import bundled
from vitmae_search.errors import LibraryError, StorageError, display_path
from vitmae_search.photos.views import VIEWS

MARKER = "ABOUT-THESE-SAMPLES.txt"
"""The file in a sample folder by which the app knows it."""


def write_samples(folder: Path) -> int:
    """Write the sample photos into `folder`, except those that are there, and return how many there are.

    Raises:
        LibraryError: The packages of the `demo` extra are not installed.
        StorageError: The folder cannot be written.
    """
    listed = json.loads(bundled("data/samples.json").read_text("utf-8"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for sample in listed["photos"]:
            source = _package_file(sample["package"], sample["file"])
            _write_views(source, folder, sample["name"])
        credits_ = "\n".join(f"{sample['name']}: {sample['credit']}" for sample in listed["photos"])
        (folder / MARKER).write_text(f"{listed['about']}\n\n{credits_}\n", "utf-8")
    except OSError as error:
        raise StorageError(f"cannot write samples to {display_path(folder)}: {error}") from error
    return len(listed["photos"]) * len(VIEWS)


def is_sample_folder(folder: str | os.PathLike[str]) -> bool:
    """Whether `write_samples` made this folder."""
    return os.path.isfile(os.path.join(folder, MARKER))


def _package_file(package: str, file: str) -> Path:
    """A file inside an installed package, found without importing it."""
    spec = importlib.util.find_spec(package)
    path = Path(spec.origin).parent / file if spec and spec.origin else None
    if path is None or not path.is_file():
        raise LibraryError(
            "the sample photos come with scikit-image and scikit-learn; "
            "install them with: pip install 'vitmae-search[demo]'"
        )
    return path


def _write_views(source: Path, folder: Path, name: str) -> None:
    missing = [
        (folder / f"{name}-{i:02d}-{view}.jpg", make)
        for i, (view, make) in enumerate(VIEWS)
        if not (folder / f"{name}-{i:02d}-{view}.jpg").exists()
    ]
    if not missing:
        return
    with Image.open(source) as opened:
        image = opened.convert("RGB")
    for path, make in missing:
        partial = path.with_suffix(".partial")
        make(image).save(partial, "JPEG", quality=90)
        partial.replace(path)
