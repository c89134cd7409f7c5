"""The folder of a run: one process at a time in it, and run.json, which says how it began.

Files of a folder, each replaced as a whole, one after the other.

What a run needs to go on exactly: weights, optimiser, step, time. Everything random follows the step.
"""

from __future__ import annotations

import json
import os
import pickle
import platform
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import torch
from filelock import FileLock, Timeout

from vitmae_search.atomic import sync_folder, write_atomically
from vitmae_search.errors import TrainingError, display_path
from vitmae_search.training_runs import LOCK_FILE, REPORT_FILE, RUN_FILE, remember_run

_LOCK_SECONDS = 2.0
"""Whoever looks whether a run goes on holds its lock for a moment."""


@contextmanager
def locked_folder(output: str | os.PathLike[str], *, remember: bool = True) -> Iterator[Path]:
    """The folder `output`, made where it is not there, and this process's alone inside the block.

    It is remembered as one of the machine's training runs, unless `remember` is false. Raises
    `TrainingError` for a second process, and for what the disk refuses inside the block.
    """
    place = Path(output)
    try:
        place.mkdir(parents=True, exist_ok=True)
        with FileLock(place / LOCK_FILE, timeout=_LOCK_SECONDS):
            if remember:
                remember_run(place)
            yield place
    except Timeout as error:
        raise TrainingError(f"another process is training in {display_path(place)}") from error
    except OSError as error:
        raise TrainingError(f"{display_path(place)} cannot be written: {error.strerror or error}") from error


def read_run(place: Path, kind: str) -> dict[str, Any] | None:
    """What run.json in `place` says, or None. Raises `TrainingError` for a run of another kind."""
    path = place / RUN_FILE
    if not path.exists():
        return None
    try:
        saved = json.loads(path.read_bytes())
        found = saved.get("kind", "pretrain")
    except (ValueError, AttributeError) as error:
        raise damaged_run(place, error) from error
    if found != kind:
        raise TrainingError(f"{display_path(place)} holds a {found} run: choose another output folder")
    return saved  # type: ignore[no-any-return]


def damaged_run(place: Path, error: Exception) -> TrainingError:
    """The error for a run.json that says nothing of use."""
    path = display_path(place / RUN_FILE)
    return TrainingError(f"{path} is damaged ({error}): choose another output folder")


def write_run(place: Path, kind: str, described: Mapping[str, Any]) -> None:
    machine = {"torch": torch.__version__, "machine": platform.processor() or platform.machine()}
    _write_json(place / RUN_FILE, {"kind": kind, **described, **machine})


def write_report(place: Path, report: Mapping[str, Any]) -> None:
    """Say in `place` what the run came to: `steps` and `interrupted` tell whether it is over."""
    _write_json(place / REPORT_FILE, report)


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    with write_atomically(path) as stream:
        stream.write((json.dumps(value, indent=2) + "\n").encode())


@contextmanager
def replace_files(folder: Path) -> Iterator[Path]:
    """A new folder whose files replace those of the same name in `folder` when the block ends."""
    temporary = Path(tempfile.mkdtemp(dir=folder, prefix=".saving-"))
    try:
        yield temporary
        for made in sorted(temporary.iterdir()):
            with made.open("rb") as stream:
                os.fsync(stream.fileno())
            os.replace(made, folder / made.name)
        sync_folder(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


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
