"""Models by name: the bundled ones, and the authors' on the hub."""

from __future__ import annotations

import os
from pathlib import Path

from vitmae_search.bundled import bundled
from vitmae_search.errors import ModelNotFound, display_path
from vitmae_search.hub import cached_models
from vitmae_search.records import ModelListing
from vitmae_search.training_runs import trained_runs

from .describing import describe, usable

DEFAULT_MODEL = "vitmae-tiny-patch8-64"

_HUB = {
    "facebook/vit-mae-base": (768, 111_907_840),
    "facebook/vit-mae-large": (1024, 329_541_888),
    "facebook/vit-mae-huge": (1280, 657_074_508),
}
"""The authors' own checkpoints: their widths, and how many numbers they are; all are made for 224 pixels."""


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
    """The bundled models, those trained here, those in the hub's cache, and the authors' own on the hub.

    Opens no model, loads no torch, asks no network.
    """
    cached = _cached_models()
    names = {listing.name for listing in cached}
    hub = [_on_hub(name) for name in _HUB if name not in names]
    return [*_bundled_models(), *_trained_models(), *cached, *hub]


def _folder() -> Path:
    return bundled("data") / "models"


def _folder_of(path: Path) -> Path:
    return path if path.is_dir() else path.parent


def _bundled_models() -> list[ModelListing]:
    if not _folder().is_dir():
        return []
    folders = [path for path in sorted(_folder().iterdir()) if (path / "config.json").is_file()]
    return [describe(path, path.name, "bundled") for path in folders]


def _trained_models() -> list[ModelListing]:
    """By their paths: that is what `--model` takes."""
    return [describe(folder, display_path(folder), "trained") for folder in trained_runs() if usable(folder)]


def _cached_models() -> list[ModelListing]:
    found = cached_models().items()
    return [describe(folder, model_id, "cached") for model_id, folder in found if usable(folder)]


def _on_hub(name: str) -> ModelListing:
    dimension, parameters = _HUB[name]
    note = "the authors' own; downloaded at first use"
    size = parameters * 4  # float32; what is around them is some kilobytes
    return ModelListing(name, "hub", None, dimension, 224, parameters, size, note, decoder=True)
