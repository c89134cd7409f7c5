"""The plugin under test, in this process and in fresh ones."""

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

_TIMEOUT = 600  # seconds for a fresh process; a large model on a slow disk takes a while to load


class ConformanceError(AssertionError):
    """The plugin breaks the contract. The message says where and how."""


class PluginUnderTest:
    """The plugin under test, how to open it, and what the checks share, so that the model is loaded once.

    Use it as a context manager, or call `close`.
    """

    def __init__(
        self,
        source: str | os.PathLike[str],
        options: Mapping[str, object] | None = None,
        *,
        device: str = "cpu",
        precision: str = "auto",
    ) -> None:
        """Load nothing yet.

        Args:
            source: The path of a drop-in as a `Path`, or "module" or "module:attribute" of an installed
                package, so that a fresh process can find it too.
            options: The plugin's options; those left out take their defaults.
            device: As for `open_embedder`.
            precision: As for `open_embedder`.
        """
        self.source = source if isinstance(source, str) else Path(os.path.abspath(source))
        self.options = dict(options or {})
        self.device, self.precision = device, precision

    @cached_property
    def plugin(self) -> EmbedderPlugin:
        """The plugin, loaded but with no model open."""
        return load_source(self.source)

    @property
    def info(self) -> PluginInfo:
        """The plugin's info."""
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
        """Another embedder, opened in the same way, or with other options."""
        chosen = self.options if options is None else options
        return open_embedder(self.plugin, chosen, self.device, self.precision)

    @cached_property
    def batch(self) -> NDArray[Any]:
        """(8, *shape): the sample images, prepared. Read-only, so that a plugin that writes to it fails."""
        # Copied at once, in case `prepare` fills and returns the same buffer each time.
        batch = np.stack([self.embedder.prepare(image).copy() for image in sample_images()])
        batch.flags.writeable = False
        return batch

    def in_fresh_process(self, task: str, payload: bytes = b"") -> Any:
        """What a task gives in a new interpreter with our import path.

        Args:
            task: The name of a function in `testing.subprocess_tasks`.
            payload: More for the task, pickled.

        Raises:
            ConformanceError: Where the task fails, or the process dies.
        """
        request = {
            "task": task,
            "source": self.source,
            "options": self.options,
            "device": self.device,
            "precision": self.precision,
            "payload": payload,
        }
        with tempfile.TemporaryDirectory(prefix="vitmae-search-") as folder:
            request_path, response_path = os.path.join(folder, "request"), os.path.join(folder, "response")
            Path(request_path).write_bytes(pickle.dumps(request))
            _run_subprocess(request_path, response_path)
            response = pickle.loads(Path(response_path).read_bytes())  # noqa: S301 - our own child wrote it
        if "error" in response:
            raise ConformanceError(f"in a fresh process: {response['error']}")
        return response["value"]

    def close(self) -> None:
        """Close the embedder, where it is open."""
        if "guarded" in self.__dict__:
            self.guarded.close()

    def __enter__(self) -> PluginUnderTest:
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


def _run_subprocess(request_path: str, response_path: str) -> None:
    import_path = [os.path.abspath(entry) for entry in sys.path]
    code = (
        f"import sys; sys.path[:] = {import_path!r}; "
        "from vitmae_search.embedding.testing.subprocess_tasks import main; main(*sys.argv[1:])"
    )
    done = subprocess.run(  # noqa: S603 - this interpreter, our own module
        [sys.executable, "-c", code, request_path, response_path],
        capture_output=True,
        text=True,
        timeout=_TIMEOUT,
        check=False,
    )
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise ConformanceError(f"in a fresh process: {last[0]}")
