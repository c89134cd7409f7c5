"""Which folders on this machine hold training runs, in a small file in the user's data folder.

It serves lists of models and runs. Nothing depends on it, so problems with it are logged and never raised.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

from vitmae_search.atomic import write_atomically
from vitmae_search.errors import display_path
from vitmae_search.settings import settings

log = logging.getLogger(__name__)

REGISTRY_NAME = "training-runs.json"
MAX_RUNS = 500
_LOCK_SECONDS = 5.0


def remember_run(folder: str | os.PathLike[str]) -> None:
    """Register `folder` as the newest training run. A failure is a warning in the log."""
    from filelock import FileLock, Timeout  # here because readers do not need it, and it takes a while

    registry = settings().data / REGISTRY_NAME
    path = os.path.abspath(folder)
    try:
        registry.parent.mkdir(parents=True, exist_ok=True)
        # Of two runs that start at the same time one would be lost without the lock.
        with FileLock(f"{registry}.lock", timeout=_LOCK_SECONDS):
            others = [known for known in _read(registry) if known != path]
            text = json.dumps({"runs": [path, *others][:MAX_RUNS]}, indent=1)  # surrogates are escaped
            with write_atomically(registry, durable=False) as stream:
                stream.write(text.encode("ascii"))
    except (OSError, Timeout) as error:
        log.warning("the run in %s will not be listed: %s", display_path(path), error)


def list_training_runs() -> list[Path]:
    """The absolute folders of the registered runs that still exist, the last one started first."""
    return [Path(path) for path in _read(settings().data / REGISTRY_NAME) if os.path.isdir(path)]


def _read(registry: Path) -> list[str]:
    """The registered paths; none where the file is missing or damaged."""
    try:
        paths = json.loads(registry.read_bytes())["runs"]
        return [path for path in paths if isinstance(path, str) and os.path.isabs(path)]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("%s cannot be read: %s", display_path(registry), error)
        return []
