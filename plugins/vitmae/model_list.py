"""The models that can be named: bundled, trained here, in the hub's cache, and the authors' on the hub.

What a listing says is read from a checkpoint's JSON files and from the headers of its weights, without torch.
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
from vitmae_search.errors import ModelError, ModelNotFound, did_you_mean, display_path
from vitmae_search.hub import cached_models
from vitmae_search.records import ModelListing
from vitmae_search.regular_file import open_regular_file
from vitmae_search.training_runs import list_training_runs

_HUB_MODELS = {
    "facebook/vit-mae-base": (768, 111_907_840),
    "facebook/vit-mae-large": (1024, 329_541_888),
    "facebook/vit-mae-huge": (1280, 657_074_508),
}
"""The authors' own checkpoints: hidden size and number of parameters; all are made for 224 pixels."""

_MODEL_TYPES = ("vit_mae", "vit")
_READ_ERRORS = (OSError, ValueError, KeyError, TypeError, AttributeError)
"""What reading a damaged file raises."""
_PROJECTION = "projection.safetensors"
_MAX_HEADER_BYTES = 100_000_000
"""The limit of safetensors itself; a damaged file may name any length."""


def locate_model(model: str) -> tuple[str, str]:
    """Where to load `model` from (a path or a hub id), and its short name for people.

    Bundled names are tried first, then paths, then hub ids. Raises `ModelNotFound` for a name that is neither
    bundled nor on disk, and cannot be a hub id.
    """
    bare = os.path.basename(model) == model and model not in ("", ".", "..")
    if bare and (_bundled_folder() / model).is_dir():
        return os.fspath(_bundled_folder() / model), model
    path = Path(model).expanduser()
    if model and path.exists():
        resolved = path.resolve()
        is_weights = resolved.is_file() and resolved.stem not in ("model", "pytorch_model")
        return os.fspath(path), display_path(
            resolved.stem if is_weights else _containing_folder(resolved).name
        )
    if bare or not model:
        names = [listing.name for listing in _bundled_models()]
        raise ModelNotFound(
            f"no model {display_path(model)!r}: it is no file or folder, and no bundled model "
            f"({', '.join(names) or 'none'}); a hub id looks like facebook/vit-mae-base."
            f"{did_you_mean(model, names)}"
        )
    return model, display_path(model)


def list_models() -> list[ModelListing]:
    """The bundled models, those trained here, those in the hub's cache, and the authors' own on the hub.

    Opens no model, imports no torch, and uses no network.
    """
    cached = _cached_models()
    names = {listing.name for listing in cached}
    hub = [_hub_listing(name) for name in _HUB_MODELS if name not in names]
    return [*_bundled_models(), *_trained_models(), *cached, *hub]


def _bundled_folder() -> Path:
    return bundled("data") / "models"


def _containing_folder(path: Path) -> Path:
    return path if path.is_dir() else path.parent


def _bundled_models() -> list[ModelListing]:
    if not _bundled_folder().is_dir():
        return []
    folders = [path for path in sorted(_bundled_folder().iterdir()) if (path / "config.json").is_file()]
    return [_model_listing(path, path.name, "bundled") for path in folders]


def _trained_models() -> list[ModelListing]:
    """Named by their paths, which `--model` takes."""
    return [
        _model_listing(folder, display_path(folder), "trained")
        for folder in list_training_runs()
        if _is_usable(folder)
    ]


def _cached_models() -> list[ModelListing]:
    found = cached_models().items()
    return [_model_listing(folder, model_id, "cached") for model_id, folder in found if _is_usable(folder)]


def _hub_listing(name: str) -> ModelListing:
    dimension, parameters = _HUB_MODELS[name]
    note = "the authors' own; downloaded at first use"
    size = parameters * 4  # float32; the header adds some kilobytes
    return ModelListing(name, "hub", None, dimension, 224, parameters, size, note, decoder=True)


def _is_usable(folder: Path) -> bool:
    """Whether it has weights of a ViTMAE or ViT, even damaged ones."""
    try:
        return _config_of(folder).get("model_type") in _MODEL_TYPES and bool(_weights_of(folder))
    except _READ_ERRORS:
        return False


def _model_listing(folder: Path, name: str, source: str) -> ModelListing:
    """The listing of a folder that has a config.json. What cannot be read is None, and the note says so."""
    try:
        config, files = _config_of(folder), _weights_of(folder)
        headers = [_read_header(path) for path in files if path.suffix == ".safetensors"]
        size = sum(path.stat().st_size for path in files) or None
        note = _note(config) if files else "its weights are not there"
    except _READ_ERRORS:
        config, size, headers, note = {}, None, [], "its files are damaged"
    side = config.get("image_size")
    return ModelListing(
        name,
        source,
        os.fspath(folder),
        dimension=_projected_dimension(folder) or config.get("hidden_size"),
        image_size=side if isinstance(side, int) else None,
        parameters=sum(header.parameters for header in headers) if headers else None,
        bytes=size,
        note=note,
        decoder=any(header.decoder for header in headers) if headers else None,
        projection=(folder / _PROJECTION).is_file(),
    )


def _projected_dimension(folder: Path) -> int | None:
    """The dimension of the vectors that the projection beside it gives."""
    try:
        return Projection.read(folder / _PROJECTION).dimension
    except ModelError:
        return None


def _note(config: dict[str, Any]) -> str:
    classifies = "ViTForImageClassification" in (config.get("architectures") or ())
    return "a classifier, for `classify`; it embeds too" if classifies else ""


def _config_of(folder: Path) -> dict[str, Any]:
    config = json.loads(_read(folder / "config.json"))
    if not isinstance(config, dict):
        raise ValueError("config.json is no object")
    return config


def _weights_of(folder: Path) -> list[Path]:
    """The files of its weights, found in the order in which loading looks for them; may be empty."""
    if (whole := folder / "model.safetensors").is_file():
        return [whole]
    if (index := folder / "model.safetensors.index.json").is_file():
        parts = json.loads(_read(index))["weight_map"].values()
        paths = [folder / part for part in sorted(set(parts))]
        return paths if all(path.is_file() for path in paths) else []
    pickled = folder / "pytorch_model.bin"
    return [pickled] if pickled.is_file() else []


def _read(path: Path) -> bytes:
    with open_regular_file(path) as file:
        return file.read()


@dataclass(frozen=True, slots=True)
class _Header:
    """What the header of a safetensors file says."""

    parameters: int
    decoder: bool


def _read_header(path: Path) -> _Header:
    """Read 8 bytes of length, then JSON. Raises one of `_READ_ERRORS` for another kind of file."""
    with open_regular_file(path) as file:
        length = int.from_bytes(file.read(8), "little")
        if length > _MAX_HEADER_BYTES:
            raise ValueError("no safetensors header")
        tensors = json.loads(file.read(length))
    tensors.pop("__metadata__", None)
    count = sum(math.prod(entry["shape"]) for entry in tensors.values())
    return _Header(count, any(name.startswith("decoder") for name in tensors))
