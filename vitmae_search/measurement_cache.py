"""What was measured of this machine, remembered in the user's cache folder.

Machines may share that folder, so that every figure lies under a key that names the machine. Nothing depends
on a figure but speed and what lists show: whatever goes wrong is logged, and never raised.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
from typing import Any

from vitmae_search.atomic import write_atomically
from vitmae_search.errors import display_path
from vitmae_search.settings import settings

log = logging.getLogger(__name__)


def machine_key(*facts: object) -> str:
    """The key of what was measured of these facts (plain JSON) on this machine."""
    machine = (platform.node(), platform.machine(), os.cpu_count())
    return hashlib.sha256(json.dumps([facts, machine]).encode()).hexdigest()


def load_cached(name: str) -> dict[str, Any]:
    """All that the file `name` of the cache folder says, by key; nothing where it is absent or damaged."""
    path = settings().cache / name
    try:
        figures = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        log.warning("%s cannot be read: %s", display_path(path), error)
        return {}
    return figures if isinstance(figures, dict) else {}


def save_cached(name: str, key: str, figure: object, what: str) -> None:
    """Keep a figure (plain JSON) in the file `name`; `what` says in the log's warning what is not kept."""
    path = settings().cache / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figures = {**load_cached(name), key: figure}
        with write_atomically(path, durable=False) as stream:
            stream.write(json.dumps(figures, indent=1).encode())
    except OSError as error:
        log.warning("%s is not kept: %s", what, error)
