"""How many images a second each model embeds on this machine: measured on demand, then cached.

The figures are shown in lists of models. They lie in the user's cache folder, by model and machine, since two
machines may share that folder. A model is known by its path, size and shape, so it need not be opened.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitmae_search.embedding import GuardedEmbedder
from vitmae_search.errors import DeviceError, VitmaeSearchError
from vitmae_search.library.embedders import Embedders
from vitmae_search.measurement_cache import load_cached, machine_key, save_cached
from vitmae_search.records import ModelListing

SPEEDS_NAME = "model-speeds.json"
_BATCHES = 5
_WARM_UP = 8
"""Batches before the measured ones: an embedder may tune itself on its first ones."""
_BATCH_SECONDS = 0.25
_LARGEST_BATCH = 64


def measure_models(embedders: Embedders, on_model: Callable[[str], None] | None = None) -> list[ModelListing]:
    """See `Library.measure_models`.

    Args:
        embedders: The library's embedders.
        on_model: Called with each model's name before it is measured.
    """
    notes: dict[str, str] = {}
    missing: list[DeviceError] = []
    measured = 0
    listings = embedders.models()
    for listing in listings:
        if listing.path is None:
            continue
        if on_model is not None:
            on_model(listing.name)
        try:
            with embedders.load(listing.plugin, {"model": listing.path}) as embedder:
                store_speed(listing, *measure_speed(embedder))
            measured += 1
        except (VitmaeSearchError, MemoryError) as error:
            notes[listing.path] = str(error)
            missing += [error] if isinstance(error, DeviceError) else []
    if missing and not measured:
        raise missing[0]
    return with_speeds([replace(model, note=notes.get(model.path or "", model.note)) for model in listings])


def measure_speed(embedder: GuardedEmbedder) -> tuple[float, str]:
    """Images a second through `embed`, and on what: the median of several batches, after some to warm up.

    Batches are as large as a quarter of a second allows. Decoding and `prepare` are not counted: in an index
    run they happen in parallel. Takes a few seconds; raises what `embed` raises.
    """
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    ready = embedder.prepare(Image.fromarray(noise))[None]
    embedder.embed(ready)
    rows = min(_LARGEST_BATCH, max(1, int(_BATCH_SECONDS / _seconds(embedder, ready))))
    batch = np.repeat(ready, rows, axis=0)
    for _ in range(_WARM_UP):
        embedder.embed(batch)
    rate = rows / statistics.median(_seconds(embedder, batch) for _ in range(_BATCHES))
    places = (embedder.provenance.get(key) for key in ("device", "precision"))
    return rate, ", ".join(str(word) for word in places if word)


def store_speed(listing: ModelListing, images_per_second: float, measured_on: str) -> None:
    """Store a model's figure in the user's cache folder. Failure is a warning in the log.

    Args:
        listing: The model.
        images_per_second: The figure.
        measured_on: The device and precision, as text.
    """
    figure = {"images_per_second": images_per_second, "measured_on": measured_on}
    save_cached(SPEEDS_NAME, _key(listing), figure, f"the speed of {listing.name}")


def with_speeds(listings: Sequence[ModelListing]) -> list[ModelListing]:
    """The listings with the figures that are stored for this machine."""
    known = load_cached(SPEEDS_NAME)
    return [_with(listing, known.get(_key(listing))) for listing in listings]


def _with(listing: ModelListing, figure: Any) -> ModelListing:
    try:
        speed, measured_on = float(figure["images_per_second"]), str(figure["measured_on"])
    except (KeyError, TypeError, ValueError):  # none, or another version's
        return listing
    return replace(listing, images_per_second=speed, measured_on=measured_on)


def _seconds(embedder: GuardedEmbedder, batch: NDArray[Any]) -> float:
    started = time.perf_counter()
    embedder.embed(batch)
    return max(time.perf_counter() - started, 1e-9)


def _key(listing: ModelListing) -> str:
    return machine_key(listing.plugin, listing.path, listing.bytes, listing.dimension, listing.image_size)
