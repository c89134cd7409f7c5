"""Where a model's files are: a folder, a file, or the hub."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from vitmae_search.errors import ModelNotFound, display_path
from vitmae_search.hub import hub_file, hub_files
from vitmae_search.vitmae.checkpoint.weights import INDEX_NAME, WEIGHTS_NAME, digest_files, shards

CONFIG_NAME = "config.json"
PREPROCESSOR_NAME = "preprocessor_config.json"
PROJECTION_NAME = "projection.safetensors"
_WEIGHTS = (WEIGHTS_NAME, INDEX_NAME, "pytorch_model.bin")
_JSON_NAMES = {CONFIG_NAME, PREPROCESSOR_NAME, INDEX_NAME}
_WEIGHTS_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")


@dataclass(frozen=True, slots=True)
class CheckpointFiles:
    """Paths of a model's files. `weights` may be a sharded index; the others may be absent."""

    weights: Path
    config: Path | None = None
    preprocessor: Path | None = None
    projection: Path | None = None
    """What turns its features into vectors for searching; nothing of it is read here."""

    def digest(self) -> str:
        """SHA-256 of the weights, in hex. Raises `CheckpointError` where they cannot be read."""
        return digest_files(shards(self.weights))


def find_checkpoint(
    name_or_path: str | os.PathLike[str], *, revision: str | None = None, local_files_only: bool = False
) -> CheckpointFiles:
    """The files of a folder, of a weights file (and what lies beside it), or of a hub id.

    Raises `ModelNotFound`.
    """
    path = _on_disk(name_or_path)
    if path is not None:
        return _beside(_weights_in(path) if path.is_dir() else path)
    found = hub_files(
        os.fspath(name_or_path),
        CONFIG_NAME,
        _WEIGHTS,
        (PREPROCESSOR_NAME, PROJECTION_NAME),
        shards=shards,
        revision=revision,
        local_files_only=local_files_only,
    )
    weights = next(found[candidate] for candidate in _WEIGHTS if candidate in found)
    return CheckpointFiles(
        weights, found[CONFIG_NAME], found.get(PREPROCESSOR_NAME), found.get(PROJECTION_NAME)
    )


def find_config(
    name_or_path: str | os.PathLike[str], *, revision: str | None = None, local_files_only: bool = False
) -> Path:
    """The config.json of a folder or of a hub id, or the file itself. Raises `ModelNotFound`."""
    return _find_json(name_or_path, CONFIG_NAME, revision, local_files_only)


def find_preprocessor(
    name_or_path: str | os.PathLike[str], *, revision: str | None = None, local_files_only: bool = False
) -> Path:
    """As `find_config`, for preprocessor_config.json. No weights are downloaded for it."""
    return _find_json(name_or_path, PREPROCESSOR_NAME, revision, local_files_only)


def _find_json(
    name_or_path: str | os.PathLike[str], file: str, revision: str | None, local_files_only: bool
) -> Path:
    path = _on_disk(name_or_path)
    if path is not None:
        if path.suffix == ".json" and path.is_file() and path.name not in _JSON_NAMES - {file}:
            return path  # under whatever name it was saved
        beside = path / file if path.is_dir() else path.with_name(file)
        found = beside if beside.is_file() else None
    else:
        found = hub_file(
            os.fspath(name_or_path), file, CONFIG_NAME, revision=revision, local_files_only=local_files_only
        )
    if found is None:
        raise ModelNotFound(f"{display_path(name_or_path)} has no {file}.")
    return found


def _on_disk(name_or_path: str | os.PathLike[str]) -> Path | None:
    """The file or folder that is there; None for what may be a hub id. Raises `ModelNotFound`."""
    path = Path(name_or_path).expanduser()
    if path.exists():
        return path
    name = os.fspath(name_or_path)
    if name.startswith((".", "~", os.sep)) or name.endswith(_WEIGHTS_SUFFIXES) or name.count("/") > 1:
        raise ModelNotFound(f"{display_path(name)}: no such file or folder.")
    return None


def _weights_in(folder: Path) -> Path:
    for name in _WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    others = sorted(
        p for p in folder.iterdir() if p.suffix in _WEIGHTS_SUFFIXES and p.name != PROJECTION_NAME
    )
    if len(others) != 1:
        what = f"{len(others)} weights files" if others else "no weights file"
        raise ModelNotFound(f"{display_path(folder)} has {what}; {WEIGHTS_NAME} is what is looked for.")
    return others[0]


def _beside(weights: Path) -> CheckpointFiles:
    names = (CONFIG_NAME, PREPROCESSOR_NAME, PROJECTION_NAME)
    found = (path if path.is_file() else None for path in map(weights.with_name, names))
    return CheckpointFiles(weights, *found)
