"""Weights files: safetensors, sharded safetensors, and torch files without code in them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from vitmae_search.errors import CheckpointError, display_path
from vitmae_search.vitmae.checkpoint.formats import check_safetensors, unreadable
from vitmae_search.vitmae.json_files import read_json
from vitmae_search.vitmae.torch_files import read_torch

WEIGHTS_NAME = "model.safetensors"
INDEX_SUFFIX = ".safetensors.index.json"
INDEX_NAME = "model.safetensors.index.json"


def shards(path: Path) -> list[Path]:
    """The files that hold the tensors: `path` itself, or those that a sharded index names beside it."""
    if not path.name.endswith(INDEX_SUFFIX):
        return [path]
    weight_map = read_json(path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{display_path(path)} names no files: it has no weight_map.")
    names = sorted({str(name) for name in weight_map.values()})
    if any(os.path.basename(name) != name for name in names):
        raise CheckpointError(f"{display_path(path)} names files outside its own folder.")
    return [path.with_name(name) for name in names]


def read_weights(path: Path) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
    """A weights file's state dict on the CPU, and the arguments that the authors' training saves carry.

    Raises `CheckpointError` for a file that is truncated or something else, holds code, no tensors, or a
    value that is not finite.
    """
    arguments: Mapping[str, Any] = {}
    if ".safetensors" in path.suffixes:
        state = {}
        for shard in shards(path):
            state.update(_read_safetensors(shard))
    else:
        state, arguments = read_torch(path)
    check_weights(state, path)
    return state, arguments


def write_weights(state: Mapping[str, Tensor], path: Path) -> None:
    """Write a safetensors file; `path` has the old content or the new one, never half of it.

    Raises `CheckpointError` for a value that is not finite.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    check_weights(tensors, path)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        safetensors.torch.save_file(tensors, unfinished, metadata={"format": "pt"})
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def digest_files(paths: list[Path]) -> str:
    """SHA-256 in hex of one file, or of the digests of several, in their order."""
    digests = []
    for path in paths:
        try:
            with open(path, "rb") as file:
                digests.append(hashlib.file_digest(file, "sha256").hexdigest())
        except OSError as error:
            raise unreadable(path, error) from error
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def check_weights(state: Mapping[str, Tensor], path: Path) -> None:
    """Raise `CheckpointError`, naming `path`, unless all of it is finite floating point."""
    if not state:
        raise CheckpointError(f"{display_path(path)} holds no tensors.")
    for name, value in state.items():
        if not value.is_floating_point():
            raise CheckpointError(f"{display_path(path)}: {name} is {value.dtype}, not floating point.")
        if not _is_finite(value):
            raise CheckpointError(f"{display_path(path)}: {name} has a value that is not finite.")


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    check_safetensors(path)
    try:
        return safetensors.torch.load_file(path)
    except safetensors.SafetensorError as error:
        where = display_path(path)
        raise CheckpointError(f"{where} is truncated or not a safetensors file: {error}") from error
    except OSError as error:
        raise unreadable(path, error) from error


def _is_finite(value: Tensor) -> bool:
    """A sum has every NaN and infinity in it, and is far quicker; only it may overflow by itself."""
    return bool(value.sum(dtype=torch.float32).isfinite()) or bool(torch.isfinite(value).all())
