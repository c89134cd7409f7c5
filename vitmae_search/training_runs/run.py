"""One training run, read from its folder: its options, its log, and whether it is running."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vitmae_search.errors import TrainingError, display_path

RUN_FILE = "run.json"
LOCK_FILE = "run.lock"
LOG_FILE = "log.jsonl"
REPORT_FILE = "report.json"
CHECKPOINT_FILES = ("config.json", "model.safetensors")

_PROBE_LOCK = threading.Lock()
"""A status check holds a run's lock briefly; two checks must not take each other for a training process."""

TrainingState = Literal["running", "finished", "interrupted"]


@dataclass(frozen=True, slots=True, eq=False)
class TrainingRun:
    """A snapshot of a run's folder.

    Attributes:
        folder: Absolute.
        kind: "pretrain", "finetune" or another command's name; "" while its photos are being read.
        state: Whether it is running, finished, or interrupted.
        metadata: The contents of run.json.
        lines: The lines of the log, each with finite numbers only: `step`, `epoch`, `seconds` (training time
            over all resumes), and what else was measured.
    """

    folder: Path
    kind: str
    state: TrainingState
    metadata: Mapping[str, Any]
    lines: tuple[Mapping[str, float], ...]

    @property
    def options(self) -> Mapping[str, Any]:
        """The options of the command."""
        options = self.metadata.get("options")
        return options if isinstance(options, dict) else {}

    @property
    def photos_folder(self) -> str | None:
        """The folder of photos that it trains on."""
        folder = self.metadata.get("folder")
        return folder if isinstance(folder, str) else None

    @property
    def checkpoint(self) -> Path | None:
        """The folder, once it holds a complete checkpoint."""
        complete = all((self.folder / name).is_file() for name in CHECKPOINT_FILES)
        return self.folder if complete else None

    @property
    def fraction(self) -> float:
        """How far the training is, 0 to 1: by epochs, or by limited time if that is further."""
        if self.state == "finished":
            return 1.0
        last = self.lines[-1] if self.lines else {}
        by_epochs = _ratio(last.get("epoch"), self.options.get("epochs"))
        by_time = _ratio(last.get("seconds"), self.options.get("max_minutes")) / 60
        return min(1.0, max(0.0, by_epochs, by_time))

    @property
    def remaining(self) -> float | None:
        """Seconds left at the pace so far; None where that is unknown."""
        seconds = self.lines[-1].get("seconds") if self.lines else None
        if self.state != "running" or seconds is None or self.fraction <= 0:
            return None
        return seconds / self.fraction * (1 - self.fraction)


def read_training_run(folder: str | os.PathLike[str]) -> TrainingRun:
    """Read the run in `folder`.

    The folder may be written to at the same time; half-written files and lines are skipped.

    Raises:
        TrainingError: The folder does not exist or holds no training run.
    """
    run_folder = Path(os.path.abspath(folder))
    if not run_folder.is_dir():
        raise TrainingError(f"{display_path(run_folder)} is not a folder on this machine, or not any more")
    running = _is_locked(run_folder)
    metadata = _json_object(run_folder / RUN_FILE)
    if metadata is None and not running:
        raise TrainingError(
            f"{display_path(run_folder)} holds no training run: it has no readable {RUN_FILE}"
        )
    lines = _log_lines(run_folder / LOG_FILE)
    kind = "" if metadata is None else str(metadata.get("kind", "pretrain"))
    state: TrainingState = "running" if running else _final_state(run_folder, lines)
    return TrainingRun(run_folder, kind, state, metadata or {}, tuple(lines))


def _final_state(folder: Path, lines: list[dict[str, float]]) -> TrainingState:
    report = _json_object(folder / REPORT_FILE) or {}
    steps, logged = report.get("steps"), lines[-1].get("step", 0) if lines else 0
    # A run that was resumed and then killed has logged more steps than its last report has.
    finished = report.get("interrupted") is False and isinstance(steps, int | float) and steps >= logged
    return "finished" if finished else "interrupted"


def _is_locked(folder: Path) -> bool:
    """Whether a process is training here. The operating system frees the lock of one that has ended."""
    from filelock import FileLock, Timeout  # imported here because lists of models do not need it

    lock = folder / LOCK_FILE
    if not lock.is_file():
        return False
    try:
        with _PROBE_LOCK, FileLock(lock, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # a read-only folder, in which no process of this user trains
        return False


def _json_object(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _log_lines(path: Path) -> list[dict[str, float]]:
    """The complete lines of the log, each with its finite numbers."""
    try:
        text = path.read_text("utf-8", "replace")
    except OSError:
        return []
    lines = []
    for line in text.splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        values = value.items() if isinstance(value, dict) else ()
        numbers = {name: number for name, field in values if (number := finite_number(field)) is not None}
        if "step" in numbers:
            lines.append(numbers)
    return lines


def finite_number(value: object) -> float | None:
    """The value as a float if it is a finite number, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) <= sys.float_info.max else None


def _ratio(part: object, whole: object) -> float:
    """`part / whole`, or 0 where that is undefined."""
    numerator, denominator = finite_number(part), finite_number(whole)
    return numerator / denominator if numerator is not None and denominator else 0.0
