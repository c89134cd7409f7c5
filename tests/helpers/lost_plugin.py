"""A plugin for tests: vitmae on a device that is lost in its third batch, unless a file `sound` is here.

A CUDA device really is: a kernel of it reads beyond the end of a tensor, after which the process can use it
no more. In a CPU's place is a network that raises what torch raises then.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vitmae_search.bundled import bundled
from vitmae_search.embedding import EmbedderPlugin, Options, load_drop_in

SOUND = Path(__file__).with_name("sound")
FATAL = 3

_vitmae: Any = load_drop_in(bundled("plugins") / "vitmae")


class Plugin(EmbedderPlugin):
    info = replace(_vitmae.info, name="lost", title="Lost", capabilities=frozenset({"embed"}))

    def open(self, options: Options, *, device: str, precision: str) -> Any:
        embedder = _vitmae.open(options, device=device, precision=precision)
        calls, embed = 0, embedder.embed

        def lost(batch: np.ndarray) -> np.ndarray:
            nonlocal calls
            calls += 1
            if calls == FATAL and not SOUND.exists():
                lose(embedder)
            vectors: np.ndarray = embed(batch)
            return vectors

        embedder.embed = lost
        return embedder


def lose(embedder: Any) -> None:
    import torch

    def beyond(rows: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("CUDA error: device-side assert triggered\nIt may be reported late.")

    on = embedder._device
    if on.type == "cuda":  # nothing is raised here: whoever waits for the device next is told
        torch.zeros(4, device=on)[torch.full((1,), 99, device=on)]
    else:
        embedder._engine._network = beyond


plugin = Plugin()
