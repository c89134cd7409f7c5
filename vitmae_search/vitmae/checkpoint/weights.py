"""Read and write weights: safetensors files, alone or in shards with an index, and torch files without code.

The JSON files of a model (its index, configuration and preprocessor) are read and written here too.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pickle
import re
import warnings
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor
from torch.torch_version import TorchVersion

from vitmae_search.atomic import sweep, temporary_beside
from vitmae_search.errors import CheckpointError, ConfigError, display_path
from vitmae_search.regular_file import open_regular_file
from vitmae_search.vitmae.checkpoint.formats import (
    check_safetensors,
    check_torch,
    damaged_error,
    unreadable_error,
)

WEIGHTS_NAME = "model.safetensors"
INDEX_NAME = "model.safetensors.index.json"
_INDEX_SUFFIX = ".safetensors.index.json"
_SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
_SAFE_TORCH = TorchVersion("2.10")
"""The first version whose `weights_only` holds against the files that are known."""
_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def read_weights(path: Path) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
    """Read a weights file onto the CPU.

    Integer tensors (counters, position ids) are returned as they are; whether one is needed depends on the
    model.

    Args:
        path: A safetensors file, the index of a sharded one, or a torch file.

    Returns:
        The state dict, and the training arguments that the authors' saves carry beside it.

    Raises:
        CheckpointError: The file is truncated or something else, holds code, no floating point tensors, or
            a value that is not finite.
    """
    arguments: Mapping[str, Any] = {}
    if ".safetensors" in path.suffixes:
        state = {}
        for shard in shards(path):
            state.update(_read_safetensors(shard))
    else:
        state, arguments = _read_torch(path)
    floating = {name: value for name, value in state.items() if value.is_floating_point()}
    _check_weights(floating or state, path)
    return state, arguments


def shards(path: Path) -> list[Path]:
    """The files that hold the tensors: `path` itself, or those that a sharded index names beside it."""
    if not path.name.endswith(_INDEX_SUFFIX):
        return [path]
    weight_map = read_json(path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{display_path(path)} names no files: it has no weight_map.")
    names = sorted({str(name) for name in weight_map.values()})
    if any(os.path.basename(name) != name for name in names):
        raise CheckpointError(f"{display_path(path)} names files outside its own folder.")
    return [path.with_name(name) for name in names]


def digest_files(paths: list[Path]) -> str:
    """SHA-256 in hex of one file, or of the digests of several, in their order."""
    digests = []
    for path in paths:
        try:
            with open_regular_file(path) as file:
                digests.append(hashlib.file_digest(file, "sha256").hexdigest())
        except OSError as error:
            raise unreadable_error(path, error) from error
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def weights_digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes and fp32 values, in hex: the same for every layout, file and file dtype."""
    names = sorted(state)
    with ThreadPoolExecutor() as pool:  # hashing releases the GIL
        digests = list(pool.map(lambda name: _tensor_digest(state[name]), names))
    lines = [f"{n} {list(state[n].shape)} {digest}\n" for n, digest in zip(names, digests, strict=True)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _tensor_digest(tensor: Tensor) -> str:
    values = tensor.detach().to("cpu", torch.float32).contiguous().numpy()
    return hashlib.sha256(values.data).hexdigest()


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    check_safetensors(path)
    try:
        # Read, not mapped: if a mapped file is cut or its disk fails, the process ends, not the reading.
        return safetensors.torch.load(path.read_bytes())
    except safetensors.SafetensorError as error:
        where = display_path(path)
        raise CheckpointError(f"{where} is truncated or not a safetensors file: {error}") from error
    except OSError as error:
        raise unreadable_error(path, error) from error


def _read_torch(path: Path) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
    """A state dict that lies bare in the file, or under "model" or "state_dict" with "args" beside it."""
    check_torch(path)
    _check_torch_version(path)
    content = _load_pickle(path)
    if not isinstance(content, dict):
        raise CheckpointError(f"{display_path(path)} holds no state dict.")
    inner = content.get("model", content.get("state_dict", content))
    pairs = inner.items() if isinstance(inner, dict) else ()
    state = {name: value for name, value in pairs if isinstance(name, str) and isinstance(value, Tensor)}
    arguments = content.get("args")
    return state, vars(arguments) if isinstance(arguments, argparse.Namespace) else {}


def _check_torch_version(path: Path) -> None:
    """Refuse torch files with a torch that a hostile one can make write beyond its memory."""
    if TorchVersion(torch.__version__) < _SAFE_TORCH:
        raise CheckpointError(
            f"{display_path(path)} is a torch file, which torch {torch.__version__} does not read safely "
            "(CVE-2026-24747); install torch 2.10 or newer, or use the weights as safetensors."
        )


def _load_pickle(path: Path) -> Any:
    """The content of a torch file, read without running code. Raises `CheckpointError`."""
    try:
        # A damaged pickle may make torch warn before it raises.
        with warnings.catch_warnings(action="ignore"), torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "Unsupported operand" in str(error):
            raise damaged_error(path) from error
        raise CheckpointError(
            f"{display_path(path)} holds more than tensors, and opening it could run code; "
            "save its state dict as safetensors where you trust it."
        ) from error
    except OSError as error:
        raise unreadable_error(path, error) from error
    except MemoryError:
        raise
    except Exception as error:  # a damaged pickle can raise anything
        raise damaged_error(path) from error


def write_shards(state: Mapping[str, Tensor], folder: Path, max_shard_size: int | str) -> None:
    """Write weights into a folder: model.safetensors, or shards and an index where that would be too large.

    What an earlier save left in the other form is removed after the new one is complete.

    Args:
        state: The weights, all floating point and finite.
        folder: The folder, which exists.
        max_shard_size: Bytes in one file at most, a number or "5GB"; one larger tensor has its own file.

    Raises:
        CheckpointError: A value is not finite; nothing is written.
        ConfigError: `max_shard_size` is no size.
    """
    _check_weights(state, folder / WEIGHTS_NAME)
    groups = _group_by_size(state, parse_size(max_shard_size))
    if len(groups) == 1:
        _write_safetensors(state, folder / WEIGHTS_NAME)
        _remove_weights(folder, keep={WEIGHTS_NAME})
        return
    weight_map = {}
    for number, names in enumerate(groups, start=1):
        file = f"model-{number:05d}-of-{len(groups):05d}.safetensors"
        _write_safetensors({name: state[name] for name in names}, folder / file)
        weight_map.update(dict.fromkeys(names, file))
    metadata = {
        "total_parameters": sum(value.numel() for value in state.values()),
        "total_size": sum(value.nbytes for value in state.values()),
    }
    write_json(folder / INDEX_NAME, {"metadata": metadata, "weight_map": weight_map})
    _remove_weights(folder, keep={INDEX_NAME, *weight_map.values()})


def parse_size(size: int | str) -> int:
    """Bytes, of a number of them or of "200KB", "5GB", "1GiB". Raises `ConfigError` for anything else."""
    match = re.fullmatch(r"(\d+)\s*([KMG]I?B)?", str(size).upper())
    count = int(match[1]) * _UNITS[match[2] or ""] if match else 0
    if count <= 0:
        raise ConfigError("max_shard_size", size, 'must be bytes, or as "5GB"')
    return count


def _group_by_size(state: Mapping[str, Tensor], limit: int) -> list[list[str]]:
    """Names in their order, as many in a group as fit; a tensor beyond the limit is a group of its own."""
    groups: list[list[str]] = [[]]
    size = 0
    for name, value in state.items():
        if groups[-1] and size + value.nbytes > limit:
            groups.append([])
            size = 0
        groups[-1].append(name)
        size += value.nbytes
    return groups


def _write_safetensors(state: Mapping[str, Tensor], path: Path) -> None:
    """Write a file by renaming a temporary one, so that `path` never has half of its content."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    sweep(path.parent)
    unfinished = temporary_beside(path)
    try:
        safetensors.torch.save_file(tensors, unfinished, metadata={"format": "pt"})
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def _remove_weights(folder: Path, keep: set[str]) -> None:
    """Remove the weights files that a save writes, except those to keep."""
    for path in folder.iterdir():
        written = path.name in (WEIGHTS_NAME, INDEX_NAME) or _SHARD.fullmatch(path.name)
        if written and path.name not in keep:
            path.unlink()


def _check_weights(state: Mapping[str, Tensor], path: Path) -> None:
    """Raise `CheckpointError`, naming `path`, unless all tensors are floating point and finite."""
    if not state:
        raise CheckpointError(f"{display_path(path)} holds no tensors.")
    for name, value in state.items():
        if not value.is_floating_point():
            raise CheckpointError(f"{display_path(path)}: {name} is {value.dtype}, not floating point.")
        if not _is_finite(value):
            raise CheckpointError(f"{display_path(path)}: {name} has a value that is not finite.")


def _is_finite(value: Tensor) -> bool:
    """Whether all values are finite, by their sum first.

    NaN and infinity carry into the sum, which is far quicker to compute; only where it overflows by itself
    is every value looked at.
    """
    return bool(value.sum(dtype=torch.float32).isfinite()) or bool(torch.isfinite(value).all())


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The JSON object in a file. Raises `CheckpointError` for anything else."""
    try:
        with open_regular_file(path) as file:
            values = json.load(file)
    except OSError as error:
        raise unreadable_error(Path(path), error) from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{display_path(path)} cannot be read as JSON: {error}") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{display_path(path)} does not hold a JSON object.")
    return values


def write_json(path: str | os.PathLike[str], values: Mapping[str, Any]) -> None:
    """Write a JSON object, indented, with its keys sorted.

    Args:
        path: The file, which is overwritten.
        values: What `json.dump` can write.
    """
    with open(path, "w", encoding="utf-8") as file:
        json.dump(values, file, indent=2, sort_keys=True)
        file.write("\n")
