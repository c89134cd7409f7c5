"""The only reader of the environment.

- `VITMAE_SEARCH_DATA`: the folder for what is kept of yours (default: the platform's user-data folder).
- `VITMAE_SEARCH_CACHE`: the folder for what can be made again (default: the platform's user-cache folder).
- `VITMAE_SEARCH_LIBRARY`: the library's folder (default: `library` in the data folder).
- `VITMAE_SEARCH_PLUGINS`: a folder of your own plugins (default: `plugins` in the data folder).
- `VITMAE_SEARCH_ALLOWED_HOSTS`: host names, comma-separated, that may ask the app beside this machine's own.
- `VITMAE_SEARCH_DEVICE`: auto, cpu, cuda, cuda:N or mps (default: auto).
- `VITMAE_SEARCH_IDLE_MINUTES`: after how long without a use the app's model gives a GPU's memory back
  (default: 10; 0 is never).
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vitmae_search.errors import ConfigError

DATA = "VITMAE_SEARCH_DATA"
CACHE = "VITMAE_SEARCH_CACHE"
LIBRARY = "VITMAE_SEARCH_LIBRARY"
PLUGINS = "VITMAE_SEARCH_PLUGINS"
ALLOWED_HOSTS = "VITMAE_SEARCH_ALLOWED_HOSTS"
DEVICE = "VITMAE_SEARCH_DEVICE"
IDLE_MINUTES = "VITMAE_SEARCH_IDLE_MINUTES"


@dataclass(frozen=True, slots=True)
class Settings:
    """What the environment says, with the defaults filled in. Folders need not exist."""

    data: Path
    cache: Path
    library: Path
    plugins: Path
    allowed_hosts: tuple[str, ...]
    device: str
    idle_minutes: float


def settings(environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the environment afresh. Raises `ConfigError` for minutes that are no number."""
    data = _folder(environ.get(DATA) or _of_user("user_data_dir"))
    hosts = (host.strip().lower() for host in environ.get(ALLOWED_HOSTS, "").split(","))
    return Settings(
        data=data,
        cache=_folder(environ.get(CACHE) or _of_user("user_cache_dir")),
        library=_folder(environ.get(LIBRARY) or data / "library"),
        plugins=_folder(environ.get(PLUGINS) or data / "plugins"),
        allowed_hosts=tuple(host for host in hosts if host),
        device=environ.get(DEVICE) or "auto",
        idle_minutes=_minutes(environ.get(IDLE_MINUTES) or "10"),
    )


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = math.nan
    if not 0 <= minutes < math.inf:
        raise ConfigError(IDLE_MINUTES, text, "must be a number of minutes, or 0 for never")
    return minutes


def _of_user(kind: str) -> str:
    import platformdirs  # a machine that only trains may lack it, and names both folders

    folder: str = getattr(platformdirs, kind)("vitmae-search", appauthor=False)
    return folder


def _folder(path: str | Path) -> Path:
    return Path(path).expanduser().absolute()


def environment_for(library: Path) -> dict[str, str]:
    """The environment of a child process that works on `library`."""
    return {**os.environ, LIBRARY: str(library.absolute())}
