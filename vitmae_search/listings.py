"""What lists of models and plugins hold: the frozen objects that `records` has from here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ModelListing:
    """A model that can be named: where it is, what it has, and how fast it is here.

    `source`: "bundled", "trained" (a training run's folder on this machine), "cached" (from the hub), or
    "hub" (to be downloaded). `dimension` is the length of the vectors that are searched without a word of
    layers, pooling and projection. `bytes` and `parameters` are those of its weights. `decoder` says
    whether it can reconstruct, `projection` whether one comes with it; None where that is not known.

    The host fills in the rest: the `plugin` that named it, and what `models --speed` found on this machine,
    `images_per_second` through its encoder on `measured_on`, a device and a precision.
    """

    name: str
    source: str
    path: str | None
    dimension: int | None
    image_size: int | None
    parameters: int | None
    bytes: int | None
    note: str = ""
    decoder: bool | None = None
    projection: bool | None = None
    plugin: str = ""
    images_per_second: float | None = None
    measured_on: str = ""


@dataclass(frozen=True, slots=True)
class IndexListing:
    """What a space is searched with: `kind` is "exact" or the name of an approximate index, whose `recall`
    (of the ten best, 0 to 1) was measured. `vectors` and `bytes` are those of its files; `reason` says why.
    """

    kind: str
    vectors: int
    bytes: int
    recall: float | None
    reason: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.reason}"


@dataclass(frozen=True, slots=True)
class PluginListing:
    """A plugin as discovery found it; `error` is set where it did not load."""

    name: str
    title: str
    origin: str
    api_version: int | None
    vector_revision: int | None
    capabilities: tuple[str, ...]
    options: Mapping[str, object]
    error: str | None = None
