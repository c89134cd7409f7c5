"""Weights in one file, or in several with an index."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from vitmae_search.errors import ConfigError
from vitmae_search.vitmae.checkpoint.weights import INDEX_NAME, WEIGHTS_NAME, check_weights, write_weights
from vitmae_search.vitmae.json_files import write_json

_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
_SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")


def write_shards(state: Mapping[str, Tensor], folder: Path, max_shard_size: int | str) -> None:
    """Write model.safetensors, or where that would be larger, shards and model.safetensors.index.json.

    What an earlier save left in the other form is removed, once the new one is there. Raises
    `CheckpointError` for a value that is not finite, before anything is written.
    """
    check_weights(state, folder / WEIGHTS_NAME)
    groups = _group(state, parse_size(max_shard_size))
    if len(groups) == 1:
        write_weights(state, folder / WEIGHTS_NAME)
        _remove(folder, keep={WEIGHTS_NAME})
        return
    weight_map = {}
    for number, names in enumerate(groups, start=1):
        file = f"model-{number:05d}-of-{len(groups):05d}.safetensors"
        write_weights({name: state[name] for name in names}, folder / file)
        weight_map.update(dict.fromkeys(names, file))
    metadata = {
        "total_parameters": sum(value.numel() for value in state.values()),
        "total_size": sum(value.nbytes for value in state.values()),
    }
    write_json(folder / INDEX_NAME, {"metadata": metadata, "weight_map": weight_map})
    _remove(folder, keep={INDEX_NAME, *weight_map.values()})


def parse_size(size: int | str) -> int:
    """Bytes, of a number of them or of "200KB", "5GB", "1GiB". Raises `ConfigError` for anything else."""
    match = re.fullmatch(r"(\d+)\s*([KMG]I?B)?", str(size).upper())
    count = int(match[1]) * _UNITS[match[2] or ""] if match else 0
    if count <= 0:
        raise ConfigError("max_shard_size", size, 'must be bytes, or as "5GB"')
    return count


def _group(state: Mapping[str, Tensor], limit: int) -> list[list[str]]:
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


def _remove(folder: Path, keep: set[str]) -> None:
    for path in folder.iterdir():
        ours = path.name in (WEIGHTS_NAME, INDEX_NAME) or _SHARD.fullmatch(path.name)
        if ours and path.name not in keep:
            path.unlink()
