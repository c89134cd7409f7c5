"""The only reader of the environment.

- `VITMAE_SEARCH_LIBRARY`: the library's folder (default: in the platform's user-data folder).
- `VITMAE_SEARCH_PLUGINS`: a folder of your own plugins (default: beside that).
- `VITMAE_SEARCH_ALLOWED_HOSTS`: host names, comma-separated, that may ask the app beside this machine's own.
- `VITMAE_SEARCH_DEVICE`: auto, cpu, cuda, cuda:N or mps (default: auto).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import platformdirs

LIBRARY = "VITMAE_SEARCH_LIBRARY"
PLUGINS = "VITMAE_SEARCH_PLUGINS"
ALLOWED_HOSTS = "VITMAE_SEARCH_ALLOWED_HOSTS"
DEVICE = "VITMAE_SEARCH_DEVICE"


@dataclass(frozen=True, slots=True)
class Settings:
    """What the environment says, with the defaults filled in. Folders need not exist."""

    library: Path
    plugins: Path
    allowed_hosts: tuple[str, ...]
    device: str


def settings(environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the environment afresh."""
    data = Path(platformdirs.user_data_dir("vitmae-search", appauthor=False))
    library = Path(environ[LIBRARY]).expanduser() if environ.get(LIBRARY) else data / "library"
    plugins = Path(environ[PLUGINS]).expanduser() if environ.get(PLUGINS) else data / "plugins"
    hosts = (host.strip().lower() for host in environ.get(ALLOWED_HOSTS, "").split(","))
    return Settings(
        library=library.absolute(),
        plugins=plugins.absolute(),
        allowed_hosts=tuple(host for host in hosts if host),
        device=environ.get(DEVICE) or "auto",
    )


def environment_for(library: Path) -> dict[str, str]:
    """The environment of a child process that works on `library`."""
    return {**os.environ, LIBRARY: str(library.absolute())}
