"""Files that torch.save wrote, read without running code."""

from __future__ import annotations

import argparse
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitmae_search.errors import CheckpointError, display_path
from vitmae_search.vitmae.checkpoint.formats import check_torch, damaged, unreadable


def read_torch(path: Path) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
    """A state dict, alone or under "model" or "state_dict" with "args" beside it.

    Raises `CheckpointError`.
    """
    check_torch(path)
    content = _load(path)
    if not isinstance(content, dict):
        raise CheckpointError(f"{display_path(path)} holds no state dict.")
    inner = content.get("model", content.get("state_dict", content))
    pairs = inner.items() if isinstance(inner, dict) else ()
    state = {name: value for name, value in pairs if isinstance(name, str) and isinstance(value, Tensor)}
    arguments = content.get("args")
    return state, vars(arguments) if isinstance(arguments, argparse.Namespace) else {}


def _load(path: Path) -> Any:
    try:
        # A damaged pickle may lead to what torch warns of, before it leads to an error.
        with warnings.catch_warnings(action="ignore"), torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "Unsupported operand" in str(error):
            raise damaged(path) from error
        raise CheckpointError(
            f"{display_path(path)} holds more than tensors, and opening it could run code; "
            "save its state dict as safetensors where you trust it."
        ) from error
    except OSError as error:
        raise unreadable(path, error) from error
    except MemoryError:
        raise
    except Exception as error:  # a damaged pickle raises whatever its bytes lead to
        raise damaged(path) from error
