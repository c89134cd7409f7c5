"""What a run needs to go on exactly: weights, optimiser, step, time. Everything random follows the step."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vitmae_search.errors import TrainingError
from vitmae_search.training.files import write_atomically

STATE_FILE = "state.pt"


@dataclass(frozen=True, slots=True)
class RunState:
    """`step` steps are done, in `seconds`; `pending` are (loss, gradient norm) not yet in the log."""

    step: int
    seconds: float
    pending: list[tuple[float, float]]
    signature: str
    model: dict[str, Any]
    optimizer: dict[str, Any]


def save_state(folder: Path, state: RunState) -> None:
    with write_atomically(folder / STATE_FILE) as stream:
        torch.save({name: getattr(state, name) for name in RunState.__slots__}, stream)


def load_state(folder: Path) -> RunState | None:
    """The state in `folder`, or None. Raises `TrainingError` for a file that is not one of ours."""
    path = folder / STATE_FILE
    if not path.exists():
        return None
    try:
        return RunState(**torch.load(path, map_location="cpu", weights_only=True))
    except (OSError, RuntimeError, TypeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise TrainingError(
            f"{path} cannot be read ({type(error).__name__}): delete it to start the run again"
        ) from error
