"""What the checks run in a fresh process: `main` reads a request from a file and writes the response."""

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
from vitmae_search.embedding.testing.plugin_under_test import load_source

HEAVY = ("torch", "tensorflow", "jax", "transformers", "torchvision", "onnxruntime")
"""Packages that listing plugins and preparing images must not load."""


class _ImportBlocker(MetaPathFinder):
    """Makes every heavy package fail to import."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] in HEAVY:
            raise ImportError(
                f"{fullname} is imported, which may be missing in processes that prepare images"
            )
        return None


def loaded_by_listing(request: dict[str, Any]) -> list[str]:
    """The heavy packages that importing the plugin and reading its `info` loads."""
    load_source(request["source"]).info  # noqa: B018 - it may be a property that does something
    return [name for name in HEAVY if name in sys.modules]


def prepare_without_torch(request: dict[str, Any]) -> list[Any]:
    """The sample images through the pickled `prepare`, with every heavy package blocked."""
    sys.meta_path.insert(0, _ImportBlocker())
    prepare = pickle.loads(request["payload"])  # noqa: S301 - the parent wrote it
    return [prepare(image) for image in sample_images()]


def embed(request: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The sample images' vectors, and the identity, of a newly opened embedder."""
    plugin = load_source(request["source"])
    with open_embedder(plugin, request["options"], request["device"], request["precision"]) as embedder:
        batch = np.stack([embedder.prepare(image) for image in sample_images()])
        return embedder.embed(batch), embedder.identity


_TASKS = {task.__name__: task for task in (loaded_by_listing, prepare_without_torch, embed)}


def main(request_path: str, response_path: str) -> None:
    """Run one task.

    Args:
        request_path: A pickled dict, with the name of the task.
        response_path: Where {"value": ...} or {"error": ...} is written, pickled.
    """
    request = pickle.loads(Path(request_path).read_bytes())  # noqa: S301 - the parent wrote it
    response: dict[str, Any]
    try:
        response = {"value": _TASKS[request["task"]](request)}
    except BaseException as error:
        traceback.print_exc()
        response = {"error": f"{type(error).__name__}: {error}"}
    Path(response_path).write_bytes(pickle.dumps(response))
