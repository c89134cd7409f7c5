"""Files of a model on the Hugging Face hub: taken from the local cache, or downloaded.

This is the one file that imports huggingface_hub, which is slow to import: each function imports it when it
is called. Nothing here imports torch, so lists of models stay cheap.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from vitmae_search.errors import ConfigError, ModelNotFound, mask_credentials

_PROBE_SECONDS = 1.5
"""How long the hub may take to answer at all. Without this limit the client retries for some 20 seconds."""


@dataclass(frozen=True, slots=True)
class HubOptions:
    """How files are taken from the hub, as `from_pretrained` of the reference names it.

    Raises `ConfigError` for options that exclude each other.

    Attributes:
        revision: A branch, tag or commit; None is "main".
        cache_dir: The cache's folder; None is the client's own (`HF_HUB_CACHE`).
        token: An access token, True for the one that `hf auth login` stored, False for none; None is the
            stored one where there is one.
        force_download: Download again what is cached.
        local_files_only: Take files from the cache alone; nothing goes to the network.
        subfolder: The folder inside the repository that holds the files.
    """

    revision: str | None = None
    cache_dir: str | os.PathLike[str] | None = None
    token: str | bool | None = None
    force_download: bool = False
    local_files_only: bool = False
    subfolder: str = ""

    def __post_init__(self) -> None:
        if self.force_download and self.local_files_only:
            raise ConfigError("force_download", True, "needs the network, which local_files_only forbids")

    def in_repository(self, name: str) -> str:
        """The path of a file from the repository's top: `subfolder`, then the file's name."""
        folder = self.subfolder.strip("/")
        return f"{folder}/{name}" if folder else name


def _mask(record: logging.LogRecord) -> bool:
    """A filter that masks credentials in a log record; it drops none."""
    record.msg, record.args = mask_credentials(record.getMessage()), None
    return True


def _mask_log() -> None:
    """Let the hub's client, which logs the addresses that it retries, show no credentials."""
    import huggingface_hub  # noqa: F401  its logger has its handler from here on

    for handler in logging.getLogger("huggingface_hub").handlers:
        handler.addFilter(_mask)  # adding it twice changes nothing


def hub_files(
    model_id: str,
    needed: str,
    weights: Sequence[str],
    optional: Sequence[str],
    *,
    shards: Callable[[Path], list[Path]],
    options: HubOptions | None = None,
) -> dict[str, Path]:
    """Find the files of a whole model, in the cache or else on the hub.

    A model that is wholly cached is taken from there, and nothing goes to the network.

    Args:
        model_id: "owner/name".
        needed: The file without which there is no model, config.json.
        weights: Names of weights files; the first that exists is taken.
        optional: Files that are taken where they exist.
        shards: Gives the files that a weights file consists of: itself, or those that an index names.
        options: Which revision, which cache, and whether to download.

    Returns:
        Local paths by file name.

    Raises:
        ModelNotFound: The hub has no such model or revision, or it cannot be reached (known within about
            two seconds).
    """
    options = options or HubOptions()
    if not options.force_download:
        cached = _from_cache(model_id, needed, weights, optional, shards, options)
        if cached is not None:
            return cached
    _check_reachable(model_id, options)
    paths = {needed: _download(model_id, needed, options)}
    for name in weights:
        path = paths[name] = _download(model_id, name, options)
        if path is not None:
            _download_shards(model_id, [part for part in shards(path) if part != path], options)
            break
    paths.update((name, _download(model_id, name, options)) for name in optional)
    found = {name: path for name, path in paths.items() if path is not None}
    if needed not in found or not any(name in found for name in weights):
        where = f"{model_id} on the hub" + (f", in {options.subfolder}," if options.subfolder else "")
        raise ModelNotFound(f"{where} has no {needed} with {' or '.join(weights)}.")
    return found


def hub_file(model_id: str, name: str, sibling: str, *, options: HubOptions | None = None) -> Path | None:
    """Find one file of a model, in the cache or else on the hub.

    Args:
        model_id: "owner/name".
        name: The file.
        sibling: A file that every model has. Where the hub cannot be reached and this one is cached, the
            cache is taken to hold all files of the model.
        options: Which revision, which cache, and whether to download.

    Returns:
        The local path, or None where the model has no such file.

    Raises:
        ModelNotFound: The hub has no such model or revision, or it cannot be reached.
    """
    options = options or HubOptions()
    if not options.force_download:
        cached = _cached(model_id, name, options)
        if cached is not None:
            return cached
    try:
        _check_reachable(model_id, options)
    except ModelNotFound:
        if options.force_download or _cached(model_id, sibling, options) is None:
            raise
        return None
    return _download(model_id, name, options)


def cached_models() -> dict[str, Path]:
    """Models of the local cache by id, each with the snapshot folder that holds its config.json.

    Which other files a model has is for the caller to check. Nothing goes to the network.
    """
    from huggingface_hub import constants

    found = {}
    for folder in sorted(Path(constants.HF_HUB_CACHE).glob("models--*")):
        model_id = folder.name.removeprefix("models--").replace("--", "/")
        with suppress(ModelNotFound):  # a folder that the hub's client did not make
            config = _cached(model_id, "config.json", HubOptions())
            if config is not None:
                found[model_id] = config.parent
    return found


def _from_cache(
    model_id: str,
    needed: str,
    weights: Sequence[str],
    optional: Sequence[str],
    shards: Callable[[Path], list[Path]],
    options: HubOptions,
) -> dict[str, Path] | None:
    """The cached files, or None unless the needed file and all parts of the weights are cached."""
    names = {name: _cached(model_id, name, options) for name in (needed, *weights, *optional)}
    paths = {name: path for name, path in names.items() if path is not None}
    chosen = next((paths[name] for name in weights if name in paths), None)
    if needed not in paths or chosen is None:
        return None
    return paths if all(part.exists() for part in shards(chosen)) else None


def _cached(model_id: str, name: str, options: HubOptions) -> Path | None:
    from huggingface_hub import errors, try_to_load_from_cache

    file = options.in_repository(name)
    try:
        path = try_to_load_from_cache(
            model_id, file, cache_dir=_cache_folder(options), revision=options.revision
        )
    except errors.HFValidationError as error:
        raise ModelNotFound(f"{model_id} is neither a file, a folder nor a hub id.") from error
    return Path(path) if isinstance(path, str) else None


def _cache_folder(options: HubOptions) -> str | None:
    return None if options.cache_dir is None else os.fspath(Path(options.cache_dir).expanduser())


def _download_shards(model_id: str, parts: Sequence[Path], options: HubOptions) -> None:
    for part in parts:
        if _download(model_id, part.name, options) is None:
            raise ModelNotFound(f"{model_id} on the hub lacks {part.name}, which its index names.")


def _download(model_id: str, name: str, options: HubOptions) -> Path | None:
    """One file's local path, downloaded unless it is cached; None where the model has no such file."""
    from huggingface_hub import errors, hf_hub_download

    try:
        path = hf_hub_download(
            model_id,
            options.in_repository(name),
            revision=options.revision,
            cache_dir=_cache_folder(options),
            token=options.token,
            force_download=options.force_download,
            etag_timeout=5,
        )
    except errors.LocalEntryNotFoundError as error:
        raise _unreachable(model_id, options) from error
    except errors.EntryNotFoundError:
        return None
    except errors.GatedRepoError as error:
        raise ModelNotFound(f"{model_id} asks you to accept its terms on the hub first.") from error
    except errors.RepositoryNotFoundError as error:
        raise ModelNotFound(f"the hub has no model {model_id}, or it is private.") from error
    except errors.RevisionNotFoundError as error:
        raise ModelNotFound(f"{model_id} has no revision {options.revision!r}.") from error
    except Exception as error:  # the errors of the HTTP library below differ by its version
        raise ModelNotFound(f"{model_id}: the download of {name} failed: {error}") from error
    return Path(path)


def _check_reachable(model_id: str, options: HubOptions) -> None:
    """Raise `ModelNotFound` where downloads are switched off, or the hub does not answer in time."""
    _mask_log()
    if options.local_files_only:
        raise ModelNotFound(f"{model_id} is not in the local cache, and downloads are switched off.")
    if not _hub_answers():
        raise _unreachable(model_id, options)


def _hub_answers() -> bool:
    """Whether the hub gives any answer within `_PROBE_SECONDS`.

    It is asked in a thread, because looking up the host's name has no time limit of its own.
    """
    from huggingface_hub import constants, get_session

    answered = threading.Event()

    def ask() -> None:
        try:
            get_session().head(constants.ENDPOINT, timeout=_PROBE_SECONDS)
        except Exception:
            return  # offline mode, a refused connection, a proxy's error: none is an answer
        answered.set()

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_PROBE_SECONDS)
    return answered.is_set()


def _unreachable(model_id: str, options: HubOptions) -> ModelNotFound:
    from huggingface_hub import constants

    why = "is to be downloaded again" if options.force_download else "is not in the local cache"
    return ModelNotFound(
        f"{model_id} {why} and {constants.ENDPOINT} cannot be reached; "
        "connect to the network, or give the path of a downloaded model."
    )
