"""What the checks run in a fresh process: `main(question, answer)`, the paths of two files."""

from __future__ import annotations

import pickle
import sys
import traceback
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from vitmae_search.embedding.guard import open_embedder
from vitmae_search.embedding.testing.images import sample_images
from vitmae_search.embedding.testing.subject import load_source

HEAVY = ("torch", "tensorflow", "jax", "transformers", "torchvision", "onnxruntime")
"""What listing plugins and preparing images must not load."""


class _Blocker(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] in HEAVY:
            raise ImportError(f"{fullname} is imported, which is not there where images are prepared")
        return None


def loaded_by_listing(request: dict[str, Any]) -> list[str]:
    """The heavy packages that importing the plugin and reading its `info` loads."""
    load_source(request["source"]).info  # noqa: B018 - it may be a property that does something
    return [name for name in HEAVY if name in sys.modules]


def prepare_without_torch(request: dict[str, Any]) -> list[Any]:
    """The sample images through the pickled `prepare`, with every heavy package blocked."""
    sys.meta_path.insert(0, _Blocker())
    prepare = pickle.loads(request["payload"])  # noqa: S301 - the parent wrote it
    return [prepare(image) for image in sample_images()]


def embed(request: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The sample images' vectors, and the identity, of an embedder opened anew."""
    plugin = load_source(request["source"])
    with open_embedder(plugin, request["options"], request["device"], request["precision"]) as embedder:
        batch = np.stack([embedder.prepare(image) for image in sample_images()])
        return embedder.embed(batch), embedder.identity


_TASKS = {task.__name__: task for task in (loaded_by_listing, prepare_without_torch, embed)}


def main(question: str, answer: str) -> None:
    """Read the request, run its task, write {"value": ...} or {"error": ...}."""
    request = pickle.loads(Path(question).read_bytes())  # noqa: S301 - the parent wrote it
    result: dict[str, Any]
    try:
        result = {"value": _TASKS[request["task"]](request)}
    except BaseException as error:
        traceback.print_exc()
        result = {"error": f"{type(error).__name__}: {error}"}
    Path(answer).write_bytes(pickle.dumps(result))
