"""Settings from environment variables, which are read here alone.

- `VITMAE_SEARCH_DATA`: the folder for a person's own data (default: the platform's user-data folder).
- `VITMAE_SEARCH_CACHE`: the folder for what can be made again (default: the platform's user-cache folder).
- `VITMAE_SEARCH_LIBRARY`: the library's folder (default: `library` in the data folder).
- `VITMAE_SEARCH_LIBRARIES`: folders of libraries, separated as in PATH, which the app offers and the command
  line knows by the folder's name.
- `VITMAE_SEARCH_PLUGINS`: a folder of the person's own plugins (default: `plugins` in the data folder).
- `VITMAE_SEARCH_ALLOWED_HOSTS`: host names, separated by commas, under which the app may be opened beside
  those of this machine.
- `VITMAE_SEARCH_PASSWORD`: what the app asks for before it shows anything, or
- `VITMAE_SEARCH_PASSWORD_FILE`: a file that holds it, which only its owner may read.
- `VITMAE_SEARCH_DEVICE`: auto, cpu, cuda, cuda:N or mps (default: auto).
- `VITMAE_SEARCH_WEB_PICTURES`: "on" lets a search begin with a picture that is named by its address on the
  web (default: off).
- `VITMAE_SEARCH_CATALOG`: the address of a PostgreSQL database that holds the catalogue, in place of the file
  in the library's folder.
- `VITMAE_SEARCH_VECTORS`: the address of a vector database, where one searches in place of the library's
  files.
- `VITMAE_SEARCH_IDLE_MINUTES`: minutes without use after which the app's model leaves the GPU's memory
  (default: 10; 0 is never).
"""

from __future__ import annotations

import functools
import math
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from vitmae_search.errors import ConfigError, VitmaeSearchError, display_path
from vitmae_search.regular_file import open_regular_file

DATA = "VITMAE_SEARCH_DATA"
CACHE = "VITMAE_SEARCH_CACHE"
LIBRARY = "VITMAE_SEARCH_LIBRARY"
LIBRARIES = "VITMAE_SEARCH_LIBRARIES"
PLUGINS = "VITMAE_SEARCH_PLUGINS"
ALLOWED_HOSTS = "VITMAE_SEARCH_ALLOWED_HOSTS"
PASSWORD = "VITMAE_SEARCH_PASSWORD"  # noqa: S105  a variable's name
PASSWORD_FILE = "VITMAE_SEARCH_PASSWORD_FILE"  # noqa: S105
DEVICE = "VITMAE_SEARCH_DEVICE"
WEB_PICTURES = "VITMAE_SEARCH_WEB_PICTURES"
IDLE_MINUTES = "VITMAE_SEARCH_IDLE_MINUTES"
CATALOG = "VITMAE_SEARCH_CATALOG"
VECTORS = "VITMAE_SEARCH_VECTORS"
_READ = (DATA, CACHE, LIBRARY, LIBRARIES, PLUGINS, ALLOWED_HOSTS, DEVICE, IDLE_MINUTES, WEB_PICTURES)
"""What `settings` reads."""
_BASES = (
    *("HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"),
    *("USERPROFILE", "HOMEDRIVE", "HOMEPATH", "APPDATA", "LOCALAPPDATA"),
)
"""What `~` and the platform's folders depend on."""

PASSWORD_LENGTH = 8
"""The least number of characters of the app's password."""

_PASSWORD_BYTES = 1024


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings, with defaults filled in. The folders are absolute and need not exist.

    Attributes:
        data: The person's own data.
        cache: What can be made again.
        library: The library.
        libraries: That one, and then the others that are listed.
        plugins: The person's own plugins.
        allowed_hosts: Host names in lower case, beside this machine's own.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        idle_minutes: Without use, until the app's model leaves the GPU's memory; 0 is never.
        web_pictures: Whether pictures that are named by their addresses on the web are fetched.
    """

    data: Path
    cache: Path
    library: Path
    libraries: tuple[Path, ...]
    plugins: Path
    allowed_hosts: tuple[str, ...]
    device: str
    idle_minutes: float
    web_pictures: bool


def set_defaults(variables: Mapping[str, str]) -> None:
    """Set environment variables that another package reads, where the person has not."""
    for name, value in variables.items():
        os.environ.setdefault(name, value)


def settings(environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the environment, anew at each call. Raises `ConfigError` for values that are none."""
    own = tuple((name, environ[name]) for name in _READ if name in environ)
    return _settings(own, tuple(map(os.environ.get, _BASES)), _current_folder())


@functools.lru_cache(maxsize=4)  # every thumbnail asks
def _settings(own: tuple[tuple[str, str], ...], bases: tuple[str | None, ...], current: str) -> Settings:
    """The settings that the variables say; `bases` and `current` decide what relative paths mean."""
    environ = dict(own)
    data = _folder(environ.get(DATA) or _user_folder("user_data_dir"))
    listed = [_folder(path) for path in environ.get(LIBRARIES, "").split(os.pathsep) if path]
    library = _folder(environ[LIBRARY]) if environ.get(LIBRARY) else [*listed, _folder(data / "library")][0]
    hosts = (host.strip().lower() for host in environ.get(ALLOWED_HOSTS, "").split(","))
    return Settings(
        data=data,
        cache=_folder(environ.get(CACHE) or _user_folder("user_cache_dir")),
        library=library,
        libraries=tuple(dict.fromkeys((library, *listed))),
        plugins=_folder(environ.get(PLUGINS) or data / "plugins"),
        allowed_hosts=tuple(host for host in hosts if host),
        device=environ.get(DEVICE) or "auto",
        idle_minutes=_minutes(environ.get(IDLE_MINUTES) or "10"),
        web_pictures=_is_on(WEB_PICTURES, environ.get(WEB_PICTURES) or "off"),
    )


def named_library(name: Path, environ: Mapping[str, str] = os.environ) -> Path:
    """The folder of the library that a command was given: a path, or the name of a listed one.

    Args:
        name: What was given. Where it is a single name, and no such file or folder is here, it may be the
            last part of a path in `VITMAE_SEARCH_LIBRARIES`.
        environ: The environment.

    Raises:
        VitmaeSearchError: Several listed libraries have this name.
    """
    if name.name != str(name) or name.exists():
        return name
    found = [folder for folder in settings(environ).libraries if folder.name == name.name]
    if len(found) > 1:
        listed = ", ".join(map(display_path, found))
        raise VitmaeSearchError(f"several libraries are named {display_path(name)}: {listed}; give its path")
    return found[0] if found else name


def _is_on(name: str, text: str) -> bool:
    if text.lower() not in ("on", "off"):
        raise ConfigError(name, text, "must be on or off")
    return text.lower() == "on"


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = math.nan
    if not 0 <= minutes < math.inf:
        raise ConfigError(IDLE_MINUTES, text, "must be a number of minutes, or 0 for never")
    return minutes


def _user_folder(kind: str) -> str:
    """The platform's folder of this kind, by the name of the function of platformdirs that gives it."""
    import platformdirs  # here, since a machine that only trains may lack it where both variables are set

    folder: str = getattr(platformdirs, kind)("vitmae-search", appauthor=False)
    return folder


def _current_folder() -> str:
    try:
        return os.getcwd()
    except OSError:  # it was deleted; only relative paths need it
        return ""


def _folder(path: str | Path) -> Path:
    return Path(path).expanduser().absolute()


def password(environ: Mapping[str, str] = os.environ) -> str | None:
    """The app's password: the environment's, else the first line of the file that it names, else None.

    Raises:
        VitmaeSearchError: It is too short, or the file cannot be read, or by others than its owner as well.
    """
    found = environ.get(PASSWORD)
    if not found:
        if not environ.get(PASSWORD_FILE):
            return None
        found = _password_in(_folder(environ[PASSWORD_FILE]))
    if len(found) < PASSWORD_LENGTH:
        raise VitmaeSearchError(f"the app's password must have at least {PASSWORD_LENGTH} characters")
    return found


def vectors_address(environ: Mapping[str, str] = os.environ) -> str | None:
    """The address of the vector database, which may hold a password; None for the library's files."""
    return environ.get(VECTORS) or None


def catalog_address(environ: Mapping[str, str] = os.environ) -> str | None:
    """The address of the catalogue's database, which may hold a password; None for the library's file."""
    return environ.get(CATALOG) or None


def vectors_at(address: str) -> AbstractContextManager[None]:
    """Let this process, and those that it starts meanwhile, use the vector database at an address."""
    return _with_variable(VECTORS, address)


def catalog_at(address: str) -> AbstractContextManager[None]:
    """Let this process, and those that it starts meanwhile, use the catalogue at an address."""
    return _with_variable(CATALOG, address)


@contextmanager
def _with_variable(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _password_in(file: Path) -> str:
    name = display_path(file)
    try:
        with open_regular_file(file) as stream:
            status, line = os.fstat(stream.fileno()), stream.readline(_PASSWORD_BYTES)
    except OSError as error:
        raise VitmaeSearchError(f"the password file {name} cannot be read: {error.strerror}") from error
    if status.st_mode & 0o077:
        raise VitmaeSearchError(f"other users may read the password file {name}; run: chmod 600 {name}")
    return line.decode("utf-8", "surrogateescape").rstrip("\r\n")


def can_open_browser(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether this session can show a browser's window: on Linux it needs a display, or `BROWSER` names one.

    Without a display, Python would start a text browser in the terminal.
    """
    display = any(environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"))
    return display or not sys.platform.startswith("linux")


def environment_without_password() -> dict[str, str]:
    """The environment of a child process that need not know the app's password."""
    return {name: value for name, value in os.environ.items() if name not in (PASSWORD, PASSWORD_FILE)}


def environment_for(library: Path, *others: Path) -> dict[str, str]:
    """The environment of a child process that works on a library.

    Args:
        library: The library.
        *others: Further ones that it may offer; without any, those of this process's environment.
    """
    environment = {**os.environ, LIBRARY: str(library.absolute())}
    if others:
        folders = [str(folder.absolute()) for folder in (library, *others)]
        if any(os.pathsep in folder for folder in folders):
            raise VitmaeSearchError(f"the path of one of several libraries must not have a {os.pathsep}")
        environment[LIBRARIES] = os.pathsep.join(folders)
    return environment
