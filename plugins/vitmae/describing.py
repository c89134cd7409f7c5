"""What lies in a checkpoint's folder, from its JSON and the headers of its weights. Needs no torch."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitmae_search.embedding import Projection
from vitmae_search.errors import ModelError
from vitmae_search.records import ModelListing

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
