"""The only reader of the environment.

- `VITMAE_SEARCH_DATA`: the folder for what is kept of yours (default: the platform's user-data folder).
- `VITMAE_SEARCH_CACHE`: the folder for what can be made again (default: the platform's user-cache folder).
- `VITMAE_SEARCH_LIBRARY`: the library's folder (default: `library` in the data folder).
- `VITMAE_SEARCH_PLUGINS`: a folder of your own plugins (default: `plugins` in the data folder).
- `VITMAE_SEARCH_ALLOWED_HOSTS`: host names, comma-separated, that may ask the app beside this machine's own.
- `VITMAE_SEARCH_DEVICE`: auto, cpu, cuda, cuda:N or mps (default: auto).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import platformdirs

DATA = "VITMAE_SEARCH_DATA"
CACHE = "VITMAE_SEARCH_CACHE"
LIBRARY = "VITMAE_SEARCH_LIBRARY"
PLUGINS = "VITMAE_SEARCH_PLUGINS"
ALLOWED_HOSTS = "VITMAE_SEARCH_ALLOWED_HOSTS"
DEVICE = "VITMAE_SEARCH_DEVICE"


@dataclass(frozen=True, slots=True)
class Settings:
    """What the environment says, with the defaults filled in. Folders need not exist."""

    data: Path
    cache: Path
    library: Path
    plugins: Path
    allowed_hosts: tuple[str, ...]
    device: str


def settings(environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the environment afresh."""
    data = _folder(environ.get(DATA) or platformdirs.user_data_dir("vitmae-search", appauthor=False))
    hosts = (host.strip().lower() for host in environ.get(ALLOWED_HOSTS, "").split(","))
    return Settings(
        data=data,
        cache=_folder(environ.get(CACHE) or platformdirs.user_cache_dir("vitmae-search", appauthor=False)),
        library=_folder(environ.get(LIBRARY) or data / "library"),
        plugins=_folder(environ.get(PLUGINS) or data / "plugins"),
        allowed_hosts=tuple(host for host in hosts if host),
        device=environ.get(DEVICE) or "auto",
    )


def _folder(path: str | Path) -> Path:
    return Path(path).expanduser().absolute()


def environment_for(library: Path) -> dict[str, str]:
    """The environment of a child process that works on `library`."""
    return {**os.environ, LIBRARY: str(library.absolute())}
