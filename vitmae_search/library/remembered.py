"""What embedders are, remembered between runs, so that a model need not be loaded to know its space.

A description holds while the plugin's code, ours, and every file that the embedder was read from are as they
were. It lies in the user's cache folder. Where anything is in doubt there is none, and the model is opened.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from vitmae_search.atomic import write_atomically
from vitmae_search.embedding import EmbedderDescription, GuardedEmbedder, PluginInfo, canonical_json, stamp
from vitmae_search.settings import settings

log = logging.getLogger(__name__)

FOLDER_NAME = "embedders"
SETTLED_SECONDS = 2.0
"""How long before it is read a file must have changed last: clocks of file systems tick slowly."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What decides an embedder, beside its files. `code` is a digest of what would open it, where known."""

    info: PluginInfo
    code: str | None
    options: Mapping[str, Any]
    device: str
    precision: str

    @property
    def path(self) -> Path:
        """Where its description lies."""
        asked = canonical_json([self.info.name, dict(self.options), self.device, self.precision])
        return settings().cache / FOLDER_NAME / f"{hashlib.sha256(asked.encode()).hexdigest()}.json"


def recall(asked: Asked) -> EmbedderDescription | None:
    """What the embedder is, without opening it; None where that is not known for sure."""
    if asked.code is None:
        return None
    try:
        found = json.loads(asked.path.read_bytes())
        if found["code"] != asked.code or _stamps(list(found["files"])) != found["files"]:
            return None
        return EmbedderDescription(info=asked.info, **found["embedder"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("%s is passed over: %s", asked.path, error)
        return None


def remember(asked: Asked, embedder: GuardedEmbedder, opened_at: float) -> None:
    """Keep what the embedder is, which was opened at that time (`time.time()`), or later.

    It is also kept under the options that it chose, with which it opens as it is. Failure is a warning in
    the log.
    """
    if embedder.source_files is None or asked.code is None:
        return
    try:
        files = _stamps(embedder.source_files)
        if not _settled(files, opened_at):
            return
        _write(asked, files, embedder.description)
        if embedder.options != asked.options:
            _write(
                replace(asked, options=embedder.options),
                files,
                replace(embedder.description, left_options={}),
            )
    except OSError as error:
        log.warning("what %s is cannot be kept: %s", embedder.model, error)


def _write(asked: Asked, files: Mapping[str, Any], description: EmbedderDescription) -> None:
    values = {one.name: getattr(description, one.name) for one in fields(description) if one.name != "info"}
    asked.path.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(asked.path, durable=False) as stream:
        stream.write(json.dumps({"code": asked.code, "files": files, "embedder": values}).encode())


def _stamps(paths: Sequence[str]) -> dict[str, list[int] | None]:
    """As JSON gives them back."""
    stamps = {path: stamp(path) for path in paths}
    return {path: None if one is None else list(one) for path, one in stamps.items()}


def _settled(files: Mapping[str, list[int] | None], opened_at: float) -> bool:
    """Whether no file has changed since the embedder was opened, or just before it."""
    before = (min(opened_at, time.time()) - SETTLED_SECONDS) * 1e9
    return all(one is None or max(one[1], one[2]) < before for one in files.values())
