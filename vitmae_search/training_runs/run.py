"""One training run, read from its folder: what it was told, its log, and whether it goes on."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from vitmae_search.errors import TrainingError, display_path

RUN_FILE = "run.json"
LOCK_FILE = "run.lock"
LOG_FILE = "log.jsonl"
REPORT_FILE = "report.json"
CHECKPOINT_FILES = ("config.json", "model.safetensors")

_LOOKING = threading.Lock()
"""To look is to hold a run's lock for a moment; two visitors must not take each other for a training."""

TrainingState = Literal["running", "finished", "interrupted"]


@dataclass(frozen=True, slots=True, eq=False)
class TrainingRun:
    """What the folder of a run says at one moment.

    `kind` is "pretrain", "finetune" or another command's name, "" while its photos are being read.
    `described` is run.json (`options` among it), `lines` are the log's, each with finite numbers only:
    `step`, `epoch` and `seconds` (of training, over all resumes), and whatever else was measured.
    """

    folder: Path
    kind: str
    state: TrainingState
    described: Mapping[str, Any]
    lines: tuple[Mapping[str, float], ...]

    @property
    def options(self) -> Mapping[str, Any]:
        options = self.described.get("options")
        return options if isinstance(options, dict) else {}

    @property
    def photos_folder(self) -> str | None:
        """The folder that it trains on."""
        folder = self.described.get("folder")
        return folder if isinstance(folder, str) else None

    @property
    def checkpoint(self) -> Path | None:
        """The folder, once it can be given to `--model`."""
        whole = all((self.folder / name).is_file() for name in CHECKPOINT_FILES)
        return self.folder if whole else None

    @property
    def share(self) -> float:
        """How far the training is, 0 to 1: by epochs or, where time is limited, by time if that is more."""
        if self.state == "finished":
            return 1.0
        last = self.lines[-1] if self.lines else {}
        by_epochs = _ratio(last.get("epoch"), self.options.get("epochs"))
        by_time = _ratio(last.get("seconds"), self.options.get("max_minutes")) / 60
        return min(1.0, max(0.0, by_epochs, by_time))

    @property
    def remaining(self) -> float | None:
        """Seconds that are left at the pace so far; None where that cannot be said."""
        seconds = self.lines[-1].get("seconds") if self.lines else None
        if self.state != "running" or seconds is None or self.share <= 0:
            return None
        return seconds / self.share * (1 - self.share)


def read_training_run(folder: str | os.PathLike[str]) -> TrainingRun:
    """The run in `folder`. Raises `TrainingError` where the folder is gone or holds none."""
    place = Path(os.path.abspath(folder))
    if not place.is_dir():
        raise TrainingError(f"{display_path(place)} is not a folder on this machine, or not any more")
    running = _is_locked(place)
    described = _json_object(place / RUN_FILE)
    if described is None and not running:
        raise TrainingError(f"{display_path(place)} holds no training run: it has no readable {RUN_FILE}")
    lines = _log_lines(place / LOG_FILE)
    kind = "" if described is None else str(described.get("kind", "pretrain"))
    state: TrainingState = "running" if running else _how_it_ended(place, lines)
    return TrainingRun(place, kind, state, described or {}, tuple(lines))


def _how_it_ended(place: Path, lines: list[dict[str, float]]) -> TrainingState:
    report = _json_object(place / REPORT_FILE) or {}
    steps, logged = report.get("steps"), lines[-1].get("step", 0) if lines else 0
    # A run that was resumed and then killed has logged more than its last report tells of.
    whole = report.get("interrupted") is False and isinstance(steps, int | float) and steps >= logged
    return "finished" if whole else "interrupted"


def _is_locked(place: Path) -> bool:
    """Whether a process is training here. The lock of one that is gone is free, however it ended."""
    lock = place / LOCK_FILE
    if not lock.is_file():
        return False
    try:
        with _LOOKING, FileLock(lock, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # a folder that may only be read: nobody trains in it from here
        return False


def _json_object(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _log_lines(path: Path) -> list[dict[str, float]]:
    """The log's whole lines, each with its finite numbers. One that is still being written is left out."""
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
        numbers = {name: number for name, said in values if (number := finite(said)) is not None}
        if "step" in numbers:
            lines.append(numbers)
    return lines


def finite(value: object) -> float | None:
    """A number out of a JSON file; None for anything else, and for one that is not finite."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) <= sys.float_info.max else None


def _ratio(part: object, whole: object) -> float:
    """`part / whole`, 0 where either is no number to divide by."""
    above, below = finite(part), finite(whole)
    return above / below if above is not None and below else 0.0
