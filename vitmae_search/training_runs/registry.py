"""Which folders on this machine hold training runs: a small file in the user's data folder remembers them.

It is a convenience for lists of models and runs. Nothing depends on it, so whatever goes wrong with it is
logged and never raised.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

from filelock import FileLock, Timeout

from vitmae_search.atomic import write_atomically
from vitmae_search.errors import display_path
from vitmae_search.settings import settings

log = logging.getLogger(__name__)

REGISTRY_NAME = "training-runs.json"
REMEMBERED = 500
_WAIT_SECONDS = 5.0


def remember_run(folder: str | os.PathLike[str]) -> None:
    """Note that `folder` holds a training run, as the newest. Failure is a warning in the log."""
    registry = settings().data / REGISTRY_NAME
    path = os.path.abspath(folder)
    try:
        registry.parent.mkdir(parents=True, exist_ok=True)
        # Two runs may begin at once; without the lock one of them would be forgotten.
        with FileLock(f"{registry}.lock", timeout=_WAIT_SECONDS):
            others = [known for known in _read(registry) if known != path]
            text = json.dumps({"runs": [path, *others][:REMEMBERED]}, indent=1)  # surrogates are escaped
            with write_atomically(registry, durable=False) as stream:
                stream.write(text.encode("ascii"))
    except (OSError, Timeout) as error:
        log.warning("the run in %s will not be listed: %s", display_path(path), error)


def trained_runs() -> list[Path]:
    """The folders of training runs that are on disk, absolute, the one that began last first."""
    return [Path(path) for path in _read(settings().data / REGISTRY_NAME) if os.path.isdir(path)]


def _read(registry: Path) -> list[str]:
    """What the file says; nothing where it is not there or says nothing of use."""
    try:
        paths = json.loads(registry.read_bytes())["runs"]
        return [path for path in paths if isinstance(path, str) and os.path.isabs(path)]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("%s cannot be read: %s", display_path(registry), error)
        return []
