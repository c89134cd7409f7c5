"""Models by name: the bundled ones, and the authors' on the hub."""

from __future__ import annotations

import json
import math
import os
import struct
from pathlib import Path

from vitmae_search.bundled import bundled
from vitmae_search.errors import ModelNotFound, display_path
from vitmae_search.records import ModelListing

DEFAULT_MODEL = "vitmae-tiny-patch8-64"

_HUB = {"facebook/vit-mae-base": 768, "facebook/vit-mae-large": 1024, "facebook/vit-mae-huge": 1280}
"""The authors' own checkpoints, and their widths; all are made for 224 pixels."""


def locate(model: str) -> tuple[str, str]:
    """Where to load `model` from (a path or a hub id), and its short name for people.

    A bundled name comes first, then what is on disk, then a hub id. Raises `ModelNotFound` for a bare
    name that is neither bundled nor on disk.
    """
    bare = os.path.basename(model) == model and model not in ("", ".", "..")
    if bare and (_folder() / model).is_dir():
        return os.fspath(_folder() / model), model
    path = Path(model).expanduser()
    if model and path.exists():
        resolved = path.resolve()
        is_weights = resolved.is_file() and resolved.stem not in ("model", "pytorch_model")
        return os.fspath(path), display_path(resolved.stem if is_weights else _folder_of(resolved).name)
    if bare or not model:
        names = ", ".join(listing.name for listing in _bundled_models()) or "none"
        raise ModelNotFound(
            f"no model {display_path(model)!r}: it is no file or folder, and no bundled model ({names}); "
            "a hub id looks like facebook/vit-mae-base"
        )
    return model, display_path(model)


def list_models() -> list[ModelListing]:
    """The bundled models and the authors' own. Opens no model, loads no torch, asks no network."""
    note = "the authors' own; downloaded at first use, unless it is in the hub's cache"
    hub = [ModelListing(name, "hub", None, width, 224, None, None, note) for name, width in _HUB.items()]
    return [*_bundled_models(), *hub]


def _folder() -> Path:
    return bundled("data") / "models"


def _folder_of(path: Path) -> Path:
    return path if path.is_dir() else path.parent


def _bundled_models() -> list[ModelListing]:
    if not _folder().is_dir():
        return []
    return [_listing(path) for path in sorted(_folder().iterdir()) if (path / "config.json").is_file()]


def _listing(folder: Path) -> ModelListing:
    config = json.loads((folder / "config.json").read_text("utf-8"))
    weights = folder / "model.safetensors"
    there = weights.is_file()
    size = config.get("image_size")
    return ModelListing(
        name=folder.name,
        source="bundled",
        path=os.fspath(folder),
        dimension=config.get("hidden_size"),
        image_size=size if isinstance(size, int) else None,
        parameters=_count(weights) if there else None,
        bytes=weights.stat().st_size if there else None,
        note="" if there else "its weights are not there",
    )


def _count(weights: Path) -> int:
    """The numbers in a safetensors file, from its header: 8 bytes of length, then JSON."""
    with open(weights, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    return sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
