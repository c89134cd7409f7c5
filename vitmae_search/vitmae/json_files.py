"""JSON objects in files."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from vitmae_search.errors import CheckpointError, display_path


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The JSON object in a file. Raises `CheckpointError` for anything else."""
    try:
        with open(path, encoding="utf-8") as file:
            values = json.load(file)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{display_path(path)} cannot be read as JSON: {error}") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{display_path(path)} does not hold a JSON object.")
    return values


def write_json(path: str | os.PathLike[str], values: Mapping[str, Any]) -> None:
    """Write a JSON object, indented, with its keys sorted."""
    with open(path, "w", encoding="utf-8") as file:
        json.dump(values, file, indent=2, sort_keys=True)
        file.write("\n")
