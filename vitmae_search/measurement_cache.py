"""Measurements of this machine, kept in JSON files of the user's cache folder.

Machines may share that folder, so each figure has a key that includes the machine. Figures decide nothing but
speed and what lists show, so errors are logged and never raised.
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
    """Make the key of a measurement on this machine.

    Args:
        *facts: What else the figure depends on, as JSON values.
    """
    machine = (platform.node(), platform.machine(), os.cpu_count())
    return hashlib.sha256(json.dumps([facts, machine]).encode()).hexdigest()


def load_cached(name: str) -> dict[str, Any]:
    """The figures in the file `name` of the cache folder, by key; none where it is absent or damaged."""
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
    """Write a figure into a file of the cache folder, beside those that are there.

    Args:
        name: The file's name.
        key: What `machine_key` gives.
        figure: The measurement, as JSON values.
        what: Names the figure in the warning that is logged where it cannot be written.
    """
    path = settings().cache / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figures = {**load_cached(name), key: figure}
        with write_atomically(path, durable=False) as stream:
            stream.write(json.dumps(figures, indent=1).encode())
    except OSError as error:
        log.warning("%s is not kept: %s", what, error)
