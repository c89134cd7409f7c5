"""The folder of a training run: its lock, run.json, report.json, and the state that a resume reads."""

from __future__ import annotations

import json
import os
import pickle
import platform
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import torch
from filelock import FileLock, Timeout

from vitmae_search.atomic import sync_folder, write_atomically
from vitmae_search.errors import ModelNotFound, TrainingError, display_path
from vitmae_search.training_runs import LOCK_FILE, REPORT_FILE, RUN_FILE, remember_run

STATE_FILE = "state.pt"
_SAVING = ".saving-"

_LOCK_SECONDS = 2.0
"""Lock timeout: status checks hold the lock briefly."""


@contextmanager
def locked_folder(output: str | os.PathLike[str], *, remember: bool = True) -> Iterator[Path]:
    """Create the folder `output` if needed, and hold its lock inside the block.

    Args:
        output: The run's folder.
        remember: List it among the training runs of this machine.

    Raises:
        TrainingError: Another process is training there, or the disk refuses a write inside the block.
    """
    folder = Path(output)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / LOCK_FILE, timeout=_LOCK_SECONDS):
            if remember:
                remember_run(folder)
            yield folder
    except Timeout as error:
        raise TrainingError(f"another process is training in {display_path(folder)}") from error
    except ModelNotFound:  # an OSError as well, and no trouble with the disk
        raise
    except OSError as error:
        raise TrainingError(f"{display_path(folder)} cannot be written: {error.strerror or error}") from error


def read_run(folder: Path, kind: str) -> dict[str, Any] | None:
    """The contents of run.json, or None where there is none.

    Args:
        folder: The run's folder.
        kind: The command that wants to resume: "pretrain" or "finetune".

    Raises:
        TrainingError: The file is damaged, or the folder holds a run of another command.
    """
    path = folder / RUN_FILE
    if not path.exists():
        return None
    try:
        saved = json.loads(path.read_bytes())
        found = saved.get("kind", "pretrain")
    except (ValueError, AttributeError) as error:
        raise damaged_run_error(folder, error) from error
    if found != kind:
        raise TrainingError(f"{display_path(folder)} holds a {found} run: choose another output folder")
    return saved  # type: ignore[no-any-return]


def damaged_run_error(folder: Path, error: Exception) -> TrainingError:
    """The error to raise for a run.json without the expected contents.

    Args:
        folder: The run's folder.
        error: What reading it raised.
    """
    path = display_path(folder / RUN_FILE)
    return TrainingError(f"{path} is damaged ({error}): choose another output folder")


def write_run(folder: Path, kind: str, description: Mapping[str, Any]) -> None:
    """Write run.json.

    Args:
        folder: The run's folder.
        kind: "pretrain" or "finetune".
        description: What the run was started with, as JSON values. The torch version and the machine are
            added.
    """
    machine = {"torch": torch.__version__, "machine": platform.processor() or platform.machine()}
    _write_json(folder / RUN_FILE, {"kind": kind, **description, **machine})


def write_report(folder: Path, report: Mapping[str, Any]) -> None:
    """Write report.json.

    Args:
        folder: The run's folder.
        report: The result, as JSON values. Its `steps` and `interrupted` say whether the run is finished.
    """
    _write_json(folder / REPORT_FILE, report)


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    with write_atomically(path) as stream:
        stream.write((json.dumps(value, indent=2) + "\n").encode())


@contextmanager
def replace_files(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder whose files replace those of the same name in `folder` after the block."""
    for left in folder.glob(f"{_SAVING}*"):  # a killed run's: a run folder has one writer
        shutil.rmtree(left, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(dir=folder, prefix=_SAVING))
    try:
        yield temporary
        for file in sorted(temporary.iterdir()):
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
            os.replace(file, folder / file.name)
        sync_folder(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


class _State(Protocol):
    """A dataclass of tensors, numbers, strings and containers, which `torch.load` reads with weights_only."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


S = TypeVar("S", bound=_State)


def save_state(folder: Path, state: _State) -> None:
    """Write the training state.

    Args:
        folder: The run's folder.
        state: What a resume needs to continue exactly; everything random follows from seed and step.
    """
    with write_atomically(folder / STATE_FILE) as stream:
        torch.save({field.name: getattr(state, field.name) for field in fields(state)}, stream)


def load_state(state_type: type[S], folder: Path) -> S | None:
    """Read the training state, or None where there is none.

    Args:
        state_type: The dataclass that was saved.
        folder: The run's folder.

    Raises:
        TrainingError: The file is damaged, or holds another kind of state.
    """
    path = folder / STATE_FILE
    if not path.exists():
        return None
    try:
        return state_type(**torch.load(path, map_location="cpu", weights_only=True))
    except (OSError, RuntimeError, TypeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise TrainingError(
            f"{path} cannot be read ({type(error).__name__}): delete it to start the run again"
        ) from error
