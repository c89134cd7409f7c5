"""The files that an embedder was read from."""

from __future__ import annotations

import os

from vitmae_search.vitmae import CheckpointFiles
from vitmae_search.vitmae.checkpoint.weights import shards


def source_files(files: CheckpointFiles) -> tuple[str, ...]:
    """Absolute paths: the files, and the folder, in which another file may come to lie.

    In the hub's cache also the note that says which revision the model's name means.
    """
    folder = files.weights.parent
    paths = {folder, files.weights, *shards(files.weights)}
    paths.update(path for path in (files.config, files.preprocessor, files.projection) if path is not None)
    if folder.parent.name == "snapshots":
        paths.add(folder.parent.parent / "refs" / "main")
    return tuple(sorted(os.path.abspath(path) for path in paths))
