"""Models by name: the bundled ones, and the authors' on the hub.

What lies in a checkpoint's folder, from its JSON and the headers of its weights. Needs no torch.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitmae_search.bundled import bundled
from vitmae_search.embedding import Projection
from vitmae_search.errors import ModelError, ModelNotFound, display_path
from vitmae_search.hub import cached_models
from vitmae_search.records import ModelListing
from vitmae_search.training_runs import trained_runs

_ENCODERS = ("vit_mae", "vit")
_DAMAGE = (OSError, ValueError, KeyError, TypeError, AttributeError)
"""What reading raises where a file's JSON is none, or is not what it should be."""
_PROJECTION = "projection.safetensors"
_LONGEST_HEADER = 100_000_000
"""What safetensors itself allows; a damaged file may claim any length."""


def usable(folder: Path) -> bool:
    """Whether it holds weights that a ViTMAE's encoder can be opened from, whole or damaged."""
    try:
        return _config_of(folder).get("model_type") in _ENCODERS and bool(_weights_of(folder))
    except _DAMAGE:
        return False


def describe(folder: Path, name: str, source: str) -> ModelListing:
    """The listing of a folder that has a config.json. What cannot be read is None, and told in the note."""
    try:
        config, files = _config_of(folder), _weights_of(folder)
        read = [_read_header(path) for path in files if path.suffix == ".safetensors"]
        size = sum(path.stat().st_size for path in files) or None
        note = _note(config) if files else "its weights are not there"
    except _DAMAGE:
        config, size, read, note = {}, None, [], "its files are damaged"
    side = config.get("image_size")
    return ModelListing(
        name,
        source,
        os.fspath(folder),
        dimension=_dimension(folder) or config.get("hidden_size"),
        image_size=side if isinstance(side, int) else None,
        parameters=sum(header.parameters for header in read) if read else None,
        bytes=size,
        note=note,
        decoder=any(header.decoder for header in read) if read else None,
        projection=(folder / _PROJECTION).is_file(),
    )


def _dimension(folder: Path) -> int | None:
    """The length of the vectors that its own projection gives."""
    try:
        return Projection.read(folder / _PROJECTION).dimension
    except ModelError:
        return None


def _note(config: dict[str, Any]) -> str:
    classifies = "ViTForImageClassification" in (config.get("architectures") or ())
    return "a classifier, for `classify`; it embeds too" if classifies else ""


def _config_of(folder: Path) -> dict[str, Any]:
    config = json.loads((folder / "config.json").read_bytes())
    if not isinstance(config, dict):
        raise ValueError("config.json is no object")
    return config


def _weights_of(folder: Path) -> list[Path]:
    """The files that the weights are in, in the order in which loading looks for them; none: empty."""
    if (whole := folder / "model.safetensors").is_file():
        return [whole]
    if (index := folder / "model.safetensors.index.json").is_file():
        parts = json.loads(index.read_bytes())["weight_map"].values()
        paths = [folder / part for part in sorted(set(parts))]
        return paths if all(path.is_file() for path in paths) else []
    pickled = folder / "pytorch_model.bin"
    return [pickled] if pickled.is_file() else []


@dataclass(frozen=True, slots=True)
class _Header:
    """What a safetensors file says of its tensors before their values."""

    parameters: int
    decoder: bool


def _read_header(path: Path) -> _Header:
    """8 bytes of length, then JSON. Raises one of `_DAMAGE` for another file."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > _LONGEST_HEADER:
            raise ValueError("no safetensors header")
        tensors = json.loads(file.read(length))
    tensors.pop("__metadata__", None)
    count = sum(math.prod(entry["shape"]) for entry in tensors.values())
    return _Header(count, any(name.startswith("decoder") for name in tensors))


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
