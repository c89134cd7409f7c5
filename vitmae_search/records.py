"""The frozen objects that cross rooms. They hold values, and no behaviour beyond a derived figure.

Paths are absolute `str` as the operating system gives them (`os.fsdecode`: bytes that are not UTF-8
come through as surrogates). Show them with `errors.display_path`.

What lists of models and plugins hold: the frozen objects that `records` has from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

import numpy as np
from numpy.typing import NDArray


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


@dataclass(frozen=True, slots=True)
class Stamp:
    """What `stat` says of a file; equal stamps mean that it need not be read again.

    `mtime_ns` in nanoseconds since the epoch, `device` is `st_dev`.
    """

    path: str
    size: int
    mtime_ns: int
    device: int = field(compare=False)


@dataclass(frozen=True, slots=True)
class ScanProblem:
    """A folder or entry that the walk could not look into."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class PhotoMetadata:
    """What belongs to a content: `width` and `height` in pixels as shown (after orientation).

    `taken_at` is the camera's local time, without a zone. Latitude and longitude in degrees, north and
    east positive.
    """

    width: int
    height: int
    format: str
    taken_at: datetime | None = None
    camera: str | None = None
    latitude: float | None = None
    longitude: float | None = None


@dataclass(frozen=True, slots=True)
class Photo:
    """A file in the catalogue, with the metadata of its content. `digest` is SHA-256 in hex."""

    photo_id: int
    path: str
    size: int
    mtime_ns: int
    missing: bool
    content_id: int
    digest: str
    metadata: PhotoMetadata


@dataclass(frozen=True, slots=True)
class Failure:
    """A file without a vector in one space, and why."""

    path: str
    reason: str
    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Space:
    """One embedding space: vectors that may be compared with each other.

    `identity` is what `fingerprint` hashes; `provenance` (device, precision, batch size, versions) is
    recorded and not hashed. `options` reopen the embedder. The vectors of a derived space are a projection
    (its digest) of its parent's, the features.
    """

    space_id: int
    fingerprint: str
    plugin: str
    model: str
    dimension: int
    decode: str
    options: Mapping[str, object]
    identity: Mapping[str, object]
    provenance: Mapping[str, object]
    revision: int
    vectors: int
    current: bool
    created_at: datetime
    parent_id: int | None = None
    projection: str | None = None

    @property
    def features_id(self) -> int:
        """The space that has its features: its parent, or itself."""
        return self.parent_id or self.space_id

    @property
    def kind(self) -> str:
        """A word for people: "features", or what its projection is ("head", "whitening")."""
        return "features" if self.parent_id is None else str(self.provenance.get("kind", "projection"))


@dataclass(frozen=True, slots=True)
class SearchFilter:
    """Which photos may be hits. `under` is a folder; dates are compared with `taken_at`, inclusive.

    `tag` is a whole tag, written as the classifier writes it; `min_confidence` (0 to 1) is that of the
    tag, and filters nothing without one.
    """

    under: str | None = None
    after: datetime | None = None
    before: datetime | None = None
    camera: str | None = None
    tag: str | None = None
    min_confidence: float = 0.0

    @property
    def empty(self) -> bool:
        return self == SearchFilter()


@dataclass(frozen=True, slots=True)
class Tag:
    """A word that a classifier gave a content. `confidence` is 0 to 1, `classifier` the model's name."""

    name: str
    confidence: float
    classifier: str


@dataclass(frozen=True, slots=True)
class Hit:
    """One content found. `score` is the cosine, -1 to 1, higher is better; `rank` starts at 1.

    `photo` is the first of its photos on disk, `copies` the paths of the others.
    """

    rank: int
    score: float
    photo: Photo
    copies: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SearchResult:
    """`known` says that the query's digest was in the catalogue, so that no model ran."""

    hits: tuple[Hit, ...]
    space: Space
    known: bool
    seconds: float


@dataclass(frozen=True, slots=True)
class IndexProgress:
    """A moment of a run that indexes, classifies, evaluates or adapts. `phase` names the step.

    Counts are files; those of "training" are passes over the photos.
    """

    phase: Literal[
        "scanning", "indexing", "classifying", "evaluating", "encoding", "training", "finishing", "done"
    ]
    done: int
    total: int | None
    failed: int
    seconds: float
    photos_per_second: float
    current: str | None = None


@dataclass(frozen=True, slots=True)
class IndexReport:
    """What an index run did. `failed` counts every file of the walk without a vector, tried now or known.

    found = added + updated + moved + unchanged + failed. `missing` counts photos that this run found gone;
    `offline` holds the roots that are away. `interrupted` is true after Ctrl-C or a cancellation.
    """

    found: int
    added: int
    updated: int
    moved: int
    unchanged: int
    missing: int
    failed: int
    offline: tuple[str, ...]
    failures: tuple[Failure, ...]
    problems: tuple[ScanProblem, ...]
    seconds: float
    model: str
    space: int | None
    interrupted: bool = False

    @property
    def photos_per_second(self) -> float:
        """Photos that got their vector in this run, a second of wall-clock time."""
        return (self.added + self.updated) / self.seconds if self.seconds > 0 else 0.0


@dataclass(frozen=True, slots=True)
class ClassifyReport:
    """What a classifying run did. Counts are distinct pictures on disk: copies share their tags.

    `unchanged` had been classified by this very classifier before. `labels` are all that it can say.
    """

    classified: int
    unchanged: int
    failed: int
    failures: tuple[Failure, ...]
    labels: tuple[str, ...]
    seconds: float
    model: str
    interrupted: bool = False


JobState = Literal["running", "done", "failed", "cancelled", "interrupted"]


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A long job as the catalogue has it. `interrupted` means that its process is gone without a word.

    `pid` is a process of the machine called `host`.
    """

    run_id: int
    key: str
    kind: str
    arguments: Mapping[str, object]
    state: JobState
    host: str
    pid: int
    started_at: datetime
    ended_at: datetime | None
    progress: Mapping[str, object]
    report: Mapping[str, object] | None
    error: str | None


@dataclass(frozen=True, slots=True)
class Root:
    """A folder that the person asked to index. `offline` as the last run found it."""

    root_id: int
    path: str
    device: int | None
    offline: bool
    photos: int


@dataclass(frozen=True, slots=True)
class LibraryStatus:
    """Counts for `status`: `photos` on disk, `missing`, and files that failed in the current space."""

    library: str
    photos: int
    contents: int
    missing: int
    failed: int
    roots: tuple[Root, ...]
    spaces: tuple[Space, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Reconstruction:
    """What the decoder makes of the visible patches.

    The four panels are (H, W, 3) uint8. `mask` is (gh, gw) bool, True where a patch was removed.
    `error` is (gh, gw) float32, the mean squared error of each patch in the loss's own units.
    `loss` is its mean over the removed patches, None where nothing was removed.
    `statistics` says whose mean and deviation brought a norm_pix_loss prediction back to pixels:
    "none" (not needed) or "visible" (the neighbouring visible patches').
    """

    original: NDArray[np.uint8]
    masked: NDArray[np.uint8]
    reconstruction: NDArray[np.uint8]
    pasted: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    error: NDArray[np.float32]
    loss: float | None
    mask_ratio: float
    statistics: str


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What `check` looked at, what was wrong, and what `--repair` mended, in sentences."""

    checked: tuple[str, ...]
    problems: tuple[str, ...]
    repaired: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return len(self.problems) == len(self.repaired)
