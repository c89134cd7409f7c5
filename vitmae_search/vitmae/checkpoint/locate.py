"""Find a model's files: in a folder, beside a weights file, or on the hub.

The three `find_` functions take the keyword arguments by which the reference's `from_pretrained` chooses
files: `revision`, `cache_dir`, `token`, `force_download` and `local_files_only` matter for hub ids alone,
`subfolder` for folders too, `use_safetensors` for weights.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vitmae_search.errors import ModelNotFound, display_path
from vitmae_search.hub import HubOptions, hub_file, hub_files
from vitmae_search.vitmae.checkpoint.weights import INDEX_NAME, WEIGHTS_NAME, digest_files, shards

CONFIG_NAME = "config.json"
PREPROCESSOR_NAME = "preprocessor_config.json"
PROJECTION_NAME = "projection.safetensors"
_SAFETENSORS_NAMES = (WEIGHTS_NAME, INDEX_NAME)
_TORCH_NAMES = ("pytorch_model.bin",)
_SAFETENSORS_SUFFIXES = (".safetensors",)
_TORCH_SUFFIXES = (".pth", ".pt", ".bin")
_JSON_NAMES = {CONFIG_NAME, PREPROCESSOR_NAME, INDEX_NAME}


@dataclass(frozen=True, slots=True)
class CheckpointFiles:
    """Paths of a model's files.

    Attributes:
        weights: A safetensors file, the index of a sharded one, or a torch file.
        config: config.json, where there is one.
        preprocessor: preprocessor_config.json, where there is one.
        projection: The map from features to vectors for searching, where there is one; this package only
            finds it.
    """

    weights: Path
    config: Path | None = None
    preprocessor: Path | None = None
    projection: Path | None = None

    def digest(self) -> str:
        """SHA-256 of the weights, in hex. Raises `CheckpointError` where they cannot be read."""
        return digest_files(shards(self.weights))


def find_checkpoint(
    name_or_path: str | os.PathLike[str],
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
    force_download: bool = False,
    local_files_only: bool = False,
    subfolder: str = "",
    use_safetensors: bool | None = None,
    more: Sequence[str] = (),
) -> CheckpointFiles:
    """Find the weights of a model, and its other files beside them.

    Args:
        name_or_path: A folder, a weights file, or a hub id.
        revision: The hub's branch, tag or commit; None is "main".
        cache_dir: The folder of the local cache; None is the hub client's own.
        token: The hub's access token; True for the stored one, False for none.
        force_download: Download again what is cached.
        local_files_only: Take files from the cache alone.
        subfolder: The folder inside the folder or repository that holds the files.
        use_safetensors: True for safetensors weights only, False for torch files only, None for either,
            safetensors first.
        more: Names of further files of a hub id, which are downloaded with it where it has them.

    Returns:
        The paths of the files.

    Raises:
        ModelNotFound: There is no such folder, file or hub id, or no weights file of that kind in it.
        ConfigError: `force_download` and `local_files_only` are both on.
    """
    options = HubOptions(revision, cache_dir, token, force_download, local_files_only, subfolder)
    path = _on_disk(name_or_path, subfolder)
    if path is not None:
        weights = _weights_in(path, use_safetensors) if path.is_dir() else path
        _check_kind(weights, use_safetensors)
        return _files_beside(weights)
    names = _weights_names(use_safetensors)
    found = hub_files(
        os.fspath(name_or_path),
        CONFIG_NAME,
        names,
        (PREPROCESSOR_NAME, PROJECTION_NAME, *more),
        shards=shards,
        options=options,
    )
    weights = next(found[name] for name in names if name in found)
    return CheckpointFiles(
        weights, found[CONFIG_NAME], found.get(PREPROCESSOR_NAME), found.get(PROJECTION_NAME)
    )


def find_config(
    name_or_path: str | os.PathLike[str],
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
    force_download: bool = False,
    local_files_only: bool = False,
    subfolder: str = "",
) -> Path:
    """Find a model's config.json. No weights are downloaded for it.

    Args:
        name_or_path: A folder, a file in it, a JSON file of any other name, or a hub id.
        revision: The hub's branch, tag or commit; None is "main".
        cache_dir: The folder of the local cache; None is the hub client's own.
        token: The hub's access token; True for the stored one, False for none.
        force_download: Download again what is cached.
        local_files_only: Take the file from the cache alone.
        subfolder: The folder inside the folder or repository that holds the file.

    Raises:
        ModelNotFound: There is no such folder, file or hub id, or no such file in it.
        ConfigError: `force_download` and `local_files_only` are both on.
    """
    options = HubOptions(revision, cache_dir, token, force_download, local_files_only, subfolder)
    return _find_json(name_or_path, CONFIG_NAME, options)


def find_preprocessor(
    name_or_path: str | os.PathLike[str],
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
    force_download: bool = False,
    local_files_only: bool = False,
    subfolder: str = "",
) -> Path:
    """Find a model's preprocessor_config.json, as `find_config` finds its config.json.

    Args:
        name_or_path: A folder, a file in it, a JSON file of any other name, or a hub id.
        revision: The hub's branch, tag or commit; None is "main".
        cache_dir: The folder of the local cache; None is the hub client's own.
        token: The hub's access token; True for the stored one, False for none.
        force_download: Download again what is cached.
        local_files_only: Take the file from the cache alone.
        subfolder: The folder inside the folder or repository that holds the file.

    Raises:
        ModelNotFound: There is no such folder, file or hub id, or no such file in it.
        ConfigError: `force_download` and `local_files_only` are both on.
    """
    options = HubOptions(revision, cache_dir, token, force_download, local_files_only, subfolder)
    return _find_json(name_or_path, PREPROCESSOR_NAME, options)


def source_files(files: CheckpointFiles, *more: str | os.PathLike[str]) -> tuple[str, ...]:
    """Absolute paths of all that decides what is loaded: the files, and the folder, which may get new ones.

    In the hub's cache also the file that says which revision the model's name means.

    Args:
        files: The model's.
        more: Further paths that decide it.
    """
    folder = files.weights.parent
    found = (files.config, files.preprocessor, files.projection)
    paths = {folder, files.weights, *shards(files.weights), *more}
    paths.update(path for path in found if path is not None)
    if folder.parent.name == "snapshots":
        paths.add(folder.parent.parent / "refs" / "main")
    return tuple(sorted(os.path.abspath(path) for path in paths))


def _find_json(name_or_path: str | os.PathLike[str], file: str, options: HubOptions) -> Path:
    path = _on_disk(name_or_path, options.subfolder)
    if path is not None:
        if path.suffix == ".json" and path.is_file() and path.name not in _JSON_NAMES - {file}:
            return path  # under whatever name it was saved
        beside = path / file if path.is_dir() else path.with_name(file)
        found = beside if beside.is_file() else None
    else:
        found = hub_file(os.fspath(name_or_path), file, CONFIG_NAME, options=options)
    if found is None:
        where = os.path.join(name_or_path, options.subfolder) if options.subfolder else name_or_path
        raise ModelNotFound(f"{display_path(where)} has no {file}.")
    return found


def _on_disk(name_or_path: str | os.PathLike[str], subfolder: str) -> Path | None:
    """The file or folder that is there; None for what may be a hub id. Raises `ModelNotFound`."""
    path = Path(name_or_path).expanduser()
    if path.exists():
        if not subfolder:
            return path
        if not (path / subfolder).is_dir():
            raise ModelNotFound(f"{display_path(path / subfolder)}: no such folder.")
        return path / subfolder
    name = os.fspath(name_or_path)
    suffixes = _weights_suffixes(None)
    if name.startswith((".", "~", os.sep)) or name.endswith(suffixes) or name.count("/") > 1:
        raise ModelNotFound(f"{display_path(name)}: no such file or folder.")
    return None


def _weights_names(use_safetensors: bool | None) -> tuple[str, ...]:
    """The names under which the hub has weights, in the order in which they are looked for."""
    if use_safetensors is None:
        return _SAFETENSORS_NAMES + _TORCH_NAMES
    return _SAFETENSORS_NAMES if use_safetensors else _TORCH_NAMES


def _weights_suffixes(use_safetensors: bool | None) -> tuple[str, ...]:
    if use_safetensors is None:
        return _SAFETENSORS_SUFFIXES + _TORCH_SUFFIXES
    return _SAFETENSORS_SUFFIXES if use_safetensors else _TORCH_SUFFIXES


def _check_kind(weights: Path, use_safetensors: bool | None) -> None:
    """Raise `ModelNotFound` for a file that `use_safetensors` excludes."""
    is_safetensors = ".safetensors" in weights.suffixes
    if use_safetensors is not None and use_safetensors != is_safetensors:
        kind = "a safetensors file" if is_safetensors else "no safetensors file"
        raise ModelNotFound(f"{display_path(weights)} is {kind}, and use_safetensors is {use_safetensors}.")


def _weights_in(folder: Path, use_safetensors: bool | None) -> Path:
    """The weights file of a folder: by the hub's names, or else the only one there is."""
    names = _weights_names(use_safetensors)
    try:
        files = sorted(folder.iterdir())
        for name in names:
            if (folder / name).is_file():
                return folder / name
    except OSError as error:
        raise ModelNotFound(f"{display_path(folder)} cannot be read: {error.strerror or error}.") from error
    suffixes = _weights_suffixes(use_safetensors)
    others = [p for p in files if p.suffix in suffixes and p.name != PROJECTION_NAME]
    if len(others) != 1:
        what = f"{len(others)} weights files" if others else "no weights file"
        raise ModelNotFound(f"{display_path(folder)} has {what}; {names[0]} is what is looked for.")
    return others[0]


def _files_beside(weights: Path) -> CheckpointFiles:
    names = (CONFIG_NAME, PREPROCESSOR_NAME, PROJECTION_NAME)
    found = (path if path.is_file() else None for path in map(weights.with_name, names))
    return CheckpointFiles(weights, *found)
