"""What becomes of a checkpoint's names in a model that wants others."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from vitmae_search.errors import CheckpointError, ConfigError, display_path
from vitmae_search.vitmae.checkpoint.checkpoint import Checkpoint
from vitmae_search.vitmae.checkpoint.keys import DECODER_LAYERS, ENCODER_LAYERS

Mismatch = tuple[str, tuple[int, ...], tuple[int, ...]]
"""A name, its shape in the checkpoint, and its shape in the model."""


@dataclass(frozen=True, slots=True)
class LoadingInfo:
    """What loading did: names newly made, names that found no place, and names of other shapes.

    All are the hub's names (`checkpoint_keys`). Those of other shapes are newly made too, and not in `new`.
    """

    new: tuple[str, ...]
    unused: tuple[str, ...]
    mismatched: tuple[Mismatch, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As the reference returns it for `output_loading_info`."""
        return {
            "missing_keys": set(self.new),
            "unexpected_keys": set(self.unused),
            "mismatched_keys": set(self.mismatched),
            "error_msgs": [],
        }


def match_names(
    expected: Mapping[str, torch.Size],
    checkpoint: Checkpoint,
    newly_made: Collection[str],
    *,
    ignore_mismatched_sizes: bool = False,
) -> LoadingInfo:
    """Which of the `expected` names the checkpoint gives, and which are to be newly made.

    A group of names that starts with one of `newly_made` (a head's) may be missing as a whole. Raises
    `CheckpointError` for anything else that is missing, for layers beyond the configuration's, and, unless
    they are ignored, for tensors of other shapes.
    """
    state, where = checkpoint.state, display_path(checkpoint.files.weights)
    missing = [name for name in expected if name not in state]
    absent = tuple(head for head in newly_made if not any(name.startswith(head) for name in state))
    needed = [name for name in missing if not name.startswith(absent)]
    if needed:
        raise CheckpointError(f"{where} lacks {_some(needed)}, which its configuration calls for.")
    stacks = [s for s in (ENCODER_LAYERS, DECODER_LAYERS) if any(name.startswith(s) for name in expected)]
    surplus = sorted(n for n in state if n.startswith(tuple(stacks)) and n not in expected)
    if surplus:
        raise CheckpointError(f"{where} has {_some(surplus)}, for which its configuration has no place.")
    wrong = [
        (name, tuple(state[name].shape), tuple(shape))
        for name, shape in expected.items()
        if name in state and state[name].shape != shape
    ]
    if wrong and not ignore_mismatched_sizes:
        sizes = [f"{name} is {found} and should be {wanted}" for name, found, wanted in wrong]
        raise CheckpointError(f"{where} does not have its configuration's sizes: {_some(sizes)}.")
    return LoadingInfo(tuple(missing), tuple(sorted(state.keys() - expected.keys())), tuple(wrong))


def choose_dtype(wanted: torch.dtype | str | None, checkpoint: Checkpoint) -> torch.dtype:
    """A dtype or its name; "auto" is the file's own, None is float32. Raises `ConfigError` for others."""
    if wanted == "auto":
        return next(iter(checkpoint.state.values())).dtype
    if isinstance(wanted, str):
        wanted = getattr(torch, wanted.removeprefix("torch."), wanted)
    wanted = torch.float32 if wanted is None else wanted
    if not isinstance(wanted, torch.dtype) or not wanted.is_floating_point:
        raise ConfigError("dtype", wanted, 'must be a floating point dtype, its name, or "auto"')
    return wanted


def _some(names: list[str], limit: int = 3) -> str:
    rest = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {rest} more" if rest > 0 else "")
