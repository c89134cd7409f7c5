"""What a run needs to go on exactly: weights, optimiser, step, time. Everything random follows the step."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import torch

from vitmae_search.atomic import write_atomically
from vitmae_search.errors import TrainingError

STATE_FILE = "state.pt"


@dataclass(frozen=True, slots=True)
class RunState:
    """`step` steps are done, in `seconds`; `pending` are values of steps not yet in the log.

    Those are (loss, gradient norm), then the loss's two terms. `projector` belongs to the contrastive one,
    `average` are the averaged weights.
    """

    step: int
    seconds: float
    pending: list[tuple[Any, ...]]
    signature: str
    model: dict[str, Any]
    optimizer: dict[str, Any]
    projector: dict[str, Any] | None = None
    average: dict[str, Any] | None = None


class _State(Protocol):
    """A dataclass of tensors, and of containers and values that need no pickled class."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


S = TypeVar("S", bound=_State)


def save_state(folder: Path, state: _State) -> None:
    with write_atomically(folder / STATE_FILE) as stream:
        torch.save({field.name: getattr(state, field.name) for field in fields(state)}, stream)


def load_state(folder: Path) -> RunState | None:
    """The state of a pretraining in `folder`, or None. Raises as `load_state_as`."""
    return load_state_as(RunState, folder)


def load_state_as(kind: type[S], folder: Path) -> S | None:
    """The state in `folder`, or None. Raises `TrainingError` for a file that is not one of this kind."""
    path = folder / STATE_FILE
    if not path.exists():
        return None
    try:
        return kind(**torch.load(path, map_location="cpu", weights_only=True))
    except (OSError, RuntimeError, TypeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise TrainingError(
            f"{path} cannot be read ({type(error).__name__}): delete it to start the run again"
        ) from error
