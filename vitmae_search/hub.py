"""Files of a hub model: from the local cache, or downloaded. Torch-free, so that lists of models are too.

The one file that imports huggingface_hub, and only when a hub id is asked for: it is slow to import.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from vitmae_search.errors import ModelNotFound

_PROBE_SECONDS = 1.5
"""How long the hub may take to give any answer. Without this, no network costs many retries."""


def hub_files(
    model_id: str,
    needed: str,
    weights: Sequence[str],
    optional: Sequence[str],
    *,
    shards: Callable[[Path], list[Path]],
    revision: str | None = None,
    local_files_only: bool = False,
) -> dict[str, Path]:
    """File names to local paths: `needed`, the first of `weights` that there is, and the `optional` ones.

    `shards` says which files a weights file consists of, beside it. A model that is in the cache is taken
    from there, and the network is not asked. Raises `ModelNotFound` where the hub has no such model, or
    cannot be reached: within two seconds.
    """
    cached = _from_cache(model_id, needed, weights, optional, revision, shards)
    if cached is not None:
        return cached
    _ask(model_id, local_files_only)
    paths = {needed: _download(model_id, needed, revision)}
    for name in weights:
        path = paths[name] = _download(model_id, name, revision)
        if path is not None:
            _download_shards(model_id, [part for part in shards(path) if part != path], revision)
            break
    paths.update((name, _download(model_id, name, revision)) for name in optional)
    found = {name: path for name, path in paths.items() if path is not None}
    if needed not in found or not any(name in found for name in weights):
        raise ModelNotFound(f"{model_id} on the hub has no {needed} with {' or '.join(weights)}.")
    return found


def hub_file(
    model_id: str, name: str, sibling: str, *, revision: str | None = None, local_files_only: bool = False
) -> Path | None:
    """One file's local path, from the cache or downloaded; None where the model has none.

    Where the hub cannot be asked, a cached `sibling` is taken to mean that all there is is cached. Raises
    `ModelNotFound` as `hub_files` does.
    """
    cached = _cached(model_id, name, revision)
    if cached is not None:
        return cached
    try:
        _ask(model_id, local_files_only)
    except ModelNotFound:
        if _cached(model_id, sibling, revision) is None:
            raise
        return None
    return _download(model_id, name, revision)


def cached_models() -> dict[str, Path]:
    """The ids of the models in the local cache, and the folder of each that has its config.json.

    Which of its files are there is for the caller to see. The network is not asked.
    """
    from huggingface_hub import constants

    found = {}
    for folder in sorted(Path(constants.HF_HUB_CACHE).glob("models--*")):
        model_id = folder.name.removeprefix("models--").replace("--", "/")
        with suppress(ModelNotFound):  # a folder that the hub's client did not make
            config = _cached(model_id, "config.json")
            if config is not None:
                found[model_id] = config.parent
    return found


def _download_shards(model_id: str, parts: Sequence[Path], revision: str | None) -> None:
    for part in parts:
        if _download(model_id, part.name, revision) is None:
            raise ModelNotFound(f"{model_id} on the hub lacks {part.name}, which its index names.")


def _ask(model_id: str, local_files_only: bool) -> None:
    """Raise `ModelNotFound` where the hub may not be asked, or does not answer."""
    if local_files_only:
        raise ModelNotFound(f"{model_id} is not in the local cache, and downloads are switched off.")
    _probe(model_id)


def _download(model_id: str, name: str, revision: str | None = None) -> Path | None:
    """One file's local path, downloaded unless it is cached; None where the model has no such file."""
    from huggingface_hub import errors, hf_hub_download

    try:
        return Path(hf_hub_download(model_id, name, revision=revision, etag_timeout=5))
    except errors.LocalEntryNotFoundError as error:
        raise _unreachable(model_id) from error
    except errors.EntryNotFoundError:
        return None
    except errors.GatedRepoError as error:
        raise ModelNotFound(f"{model_id} asks you to accept its terms on the hub first.") from error
    except errors.RepositoryNotFoundError as error:
        raise ModelNotFound(f"the hub has no model {model_id}, or it is private.") from error
    except errors.RevisionNotFoundError as error:
        raise ModelNotFound(f"{model_id} has no revision {revision!r}.") from error
    except Exception as error:  # the HTTP library beneath it, and so its errors, differ by version
        raise ModelNotFound(f"{model_id}: the download of {name} failed: {error}") from error


def _from_cache(
    model_id: str,
    needed: str,
    weights: Sequence[str],
    optional: Sequence[str],
    revision: str | None,
    shards: Callable[[Path], list[Path]],
) -> dict[str, Path] | None:
    """What is cached, where it is a whole model."""
    names = {name: _cached(model_id, name, revision) for name in (needed, *weights, *optional)}
    paths = {name: path for name, path in names.items() if path is not None}
    chosen = next((paths[name] for name in weights if name in paths), None)
    if needed not in paths or chosen is None:
        return None
    return paths if all(part.exists() for part in shards(chosen)) else None


def _cached(model_id: str, name: str, revision: str | None = None) -> Path | None:
    from huggingface_hub import errors, try_to_load_from_cache

    try:
        path = try_to_load_from_cache(model_id, name, revision=revision)
    except errors.HFValidationError as error:
        raise ModelNotFound(f"{model_id} is neither a file, a folder nor a hub id.") from error
    return Path(path) if isinstance(path, str) else None


def _probe(model_id: str) -> None:
    """Raise `ModelNotFound` unless the hub answers, whatever it says.

    In a thread of its own, because a name look-up has no time limit.
    """
    from huggingface_hub import constants, get_session

    answered = threading.Event()

    def ask() -> None:
        try:
            get_session().head(constants.ENDPOINT, timeout=_PROBE_SECONDS)
        except Exception:
            return  # offline mode, a refused connection, a proxy's error: all are "no answer"
        answered.set()

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_PROBE_SECONDS)
    if not answered.is_set():
        raise _unreachable(model_id)


def _unreachable(model_id: str) -> ModelNotFound:
    from huggingface_hub import constants

    return ModelNotFound(
        f"{model_id} is not in the local cache and {constants.ENDPOINT} cannot be reached; "
        "connect to the network, or give the path of a downloaded model."
    )
