"""The plugin that is being checked, here and in fresh processes."""

from __future__ import annotations

import importlib
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitmae_search.embedding.guard import GuardedEmbedder, open_embedder
from vitmae_search.embedding.plugin import Embedder, EmbedderPlugin, PluginInfo
from vitmae_search.embedding.plugin_host import load_drop_in, validate_plugin
from vitmae_search.embedding.testing.images import sample_images

_TIME_LIMIT = 600  # seconds for a fresh process; a large model on a slow disk takes a while to load


class ConformanceError(AssertionError):
    """The plugin breaks the contract. The message says where and how."""


class Subject:
    """A plugin, how to open it, and what the checks share, so that the model is loaded once.

    `source` is the path of a drop-in, or "module" or "module:attribute" of an installed package, so that a
    fresh process can find it too. Use it as a context manager, or call `close`.
    """

    def __init__(
        self,
        source: str | os.PathLike[str],
        options: Mapping[str, object] | None = None,
        *,
        device: str = "cpu",
        precision: str = "auto",
    ) -> None:
        self.source = source if isinstance(source, str) else Path(os.path.abspath(source))
        self.options = dict(options or {})
        self.device, self.precision = device, precision

    @cached_property
    def plugin(self) -> EmbedderPlugin:
        """The plugin, loaded but with no model open."""
        return load_source(self.source)

    @property
    def info(self) -> PluginInfo:
        return self.plugin.info

    @cached_property
    def guarded(self) -> GuardedEmbedder:
        """The open embedder behind the guard."""
        return self.open()

    @property
    def embedder(self) -> Embedder:
        """The same embedder without the guard, so that a check sees what the plugin itself does."""
        return self.guarded._embedder

    def open(self, options: Mapping[str, object] | None = None) -> GuardedEmbedder:
        """Another open embedder of the same making, or with other options."""
        chosen = self.options if options is None else options
        return open_embedder(self.plugin, chosen, self.device, self.precision)

    @cached_property
    def batch(self) -> NDArray[Any]:
        """(8, *shape): the sample images, prepared. Read-only, so that a plugin that writes to it is seen."""
        # Copied at once: a plugin that gives one buffer again and again must not fill every row with it.
        batch = np.stack([self.embedder.prepare(image).copy() for image in sample_images()])
        batch.flags.writeable = False
        return batch

    def in_fresh_process(self, task: str, payload: bytes = b"") -> Any:
        """The answer of `testing.child`'s function `task` in a new interpreter with our import path."""
        request = {
            "task": task,
            "source": self.source,
            "options": self.options,
            "device": self.device,
            "precision": self.precision,
            "payload": payload,
        }
        with tempfile.TemporaryDirectory(prefix="vitmae-search-") as folder:
            question, answer = os.path.join(folder, "question"), os.path.join(folder, "answer")
            Path(question).write_bytes(pickle.dumps(request))
            _run_child(question, answer)
            result = pickle.loads(Path(answer).read_bytes())  # noqa: S301 - our own child wrote it
        if "error" in result:
            raise ConformanceError(f"in a fresh process: {result['error']}")
        return result["value"]

    def close(self) -> None:
        if "guarded" in self.__dict__:
            self.guarded.close()

    def __enter__(self) -> Subject:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def load_source(source: str | Path) -> EmbedderPlugin:
    """The plugin of a drop-in's path, or of "module" or "module:attribute"."""
    if isinstance(source, Path):
        return load_drop_in(source)
    module, _, attribute = source.partition(":")
    found: object = importlib.import_module(module)
    for name in filter(None, attribute.split(".")):
        found = getattr(found, name)
    return validate_plugin(found)


def _run_child(question: str, answer: str) -> None:
    path = [os.path.abspath(entry) for entry in sys.path]
    code = (
        f"import sys; sys.path[:] = {path!r}; "
        "from vitmae_search.embedding.testing.child import main; main(*sys.argv[1:])"
    )
    done = subprocess.run(  # noqa: S603 - this interpreter, our own module
        [sys.executable, "-c", code, question, answer],
        capture_output=True,
        text=True,
        timeout=_TIME_LIMIT,
        check=False,
    )
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise ConformanceError(f"in a fresh process: {last[0]}")
