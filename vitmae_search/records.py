"""Records: the frozen objects that pass between the packages of this project.

They hold values, and no behaviour beyond a derived figure. Paths are absolute `str` as the operating system
gives them (`os.fsdecode`: bytes that are not UTF-8 become surrogates); show them with `errors.display_path`.
Times of `created_at`, `started_at` and `ended_at` are in UTC.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from vitmae_search.notebook import Tile, gallery, panels

# Photos and folders


@dataclass(frozen=True, slots=True)
class Stamp:
    """What `stat` says of a file; a file whose stamp is unchanged need not be read again.

    Attributes:
        path: The file.
        size: In bytes.
        mtime_ns: When it was last modified, in nanoseconds since the epoch.
        device: `st_dev`, the file system; it is not compared.
        ctime_ns: When the file was last changed in any way, which no program can set; None: not known. Only
            `unchanged_since` compares it.
        inode: `st_ino`, 0 where the file system has none, None: not known. It is not compared, as network
            drives number their files anew.
    """

    path: str
    size: int
    mtime_ns: int
    device: int = field(compare=False)
    ctime_ns: int | None = field(default=None, compare=False)
    inode: int | None = field(default=None, compare=False)

    def unchanged_since(self, before: Stamp) -> bool:
        """Whether the file is as it was at `before`: size, time of modification, and ctime where known."""
        return self == before and (before.ctime_ns is None or before.ctime_ns == self.ctime_ns)


METADATA_REVISION = 1
"""Raised when more is read of a photo than before, so that older contents are known."""


@dataclass(frozen=True, slots=True)
class PhotoMetadata:
    """What a photo's content says of itself; copies of a content share it.

    Attributes:
        width: In pixels, as shown (after orientation).
        height: In pixels, as shown.
        format: Pillow's name of the file format, "JPEG".
        taken_at: The camera's local time, without a zone.
        camera: The camera's model.
        latitude: In degrees, north positive.
        longitude: In degrees, east positive.
        taken_from: Where `taken_at` was found: "EXIF", "XMP", "IPTC" or "GPS"; None without it.
        notes: Phrases about what could not be read of it, "its place has no north or south".
        lens: The lens's model.
        revision: The `METADATA_REVISION` that it was read with; 0 before there was one.
    """

    width: int
    height: int
    format: str
    taken_at: datetime | None = None
    camera: str | None = None
    latitude: float | None = None
    longitude: float | None = None
    taken_from: str | None = None
    notes: tuple[str, ...] = ()
    lens: str | None = None
    revision: int = METADATA_REVISION


VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mts", ".m2ts", ".3gp", ".wmv", ".mpg", ".mpeg"}
)
"""Names of files that are taken for videos."""


def is_video_name(name: str) -> bool:
    """Say whether a file of this name is taken for a video: by its suffix, in any letter case."""
    return os.path.splitext(name)[1].lower() in VIDEO_SUFFIXES


_FRAME_PATH = re.compile(r"(.+)#t=(\d{1,6}(?:\.\d{1,3})?)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class VideoFrame:
    """A frame of a video, which is in the catalogue as photos are.

    Attributes:
        video: The video's path.
        seconds: Its time, from the video's beginning.
    """

    video: str
    seconds: float

    @classmethod
    def of(cls, path: str) -> VideoFrame | None:
        """The frame that a photo's path names; None for the path of a file."""
        found = _FRAME_PATH.fullmatch(path) if "#t=" in path else None
        if found is None or os.path.splitext(found[1])[1].lower() not in VIDEO_SUFFIXES:
            return None
        return cls(found[1], float(found[2]))

    @property
    def path(self) -> str:
        """What the catalogue has as its path: the video's with the time, as media fragments are written."""
        return f"{self.video}#t={self.seconds:.3f}"

    @property
    def time(self) -> str:
        """Its time as people read it: 0:12, 1:02:03."""
        minutes, seconds = divmod(int(self.seconds), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def file_of(path: str) -> str:
    """The file that a photo's path names: the video of a frame, else the path itself."""
    frame = VideoFrame.of(path)
    return path if frame is None else frame.video


@dataclass(frozen=True, slots=True)
class Photo:
    """A file in the catalogue.

    Attributes:
        photo_id: Its number in the catalogue.
        path: The file; of a frame of a video `VideoFrame.path`.
        size: In bytes.
        mtime_ns: When it was last modified, in nanoseconds since the epoch.
        missing: Whether the last walk found it gone.
        content_id: The number of its content; copies have the same.
        digest: SHA-256 of the content, in hex.
        metadata: That of the content.
        named_at: The date in its file's name, local time.
    """

    photo_id: int
    path: str
    size: int
    mtime_ns: int
    missing: bool
    content_id: int
    digest: str
    metadata: PhotoMetadata
    named_at: datetime | None = None

    @property
    def frame(self) -> VideoFrame | None:
        """The frame of a video that it is; None for a photo."""
        return VideoFrame.of(self.path)

    @property
    def file(self) -> str:
        """Its file: the video of a frame."""
        return file_of(self.path)

    @property
    def changed_at(self) -> datetime | None:
        """When its file was last changed, in local time; None for a year that the calendar does not have."""
        try:
            return datetime.fromtimestamp(self.mtime_ns / 1e9)
        except (OverflowError, ValueError, OSError):
            return None

    @property
    def date(self) -> tuple[datetime | None, str]:
        """When it was taken, in local time, as far as is known; and what says so.

        That is `metadata.taken_from`, "file name" or, for the time of the file's last change, "file".
        """
        if self.metadata.taken_at is not None:
            return self.metadata.taken_at, self.metadata.taken_from or "EXIF"
        if self.named_at is not None:
            return self.named_at, "file name"
        return self.changed_at, "file"


@dataclass(frozen=True, slots=True)
class Failure:
    """A file without a vector in one space.

    Attributes:
        path: The file.
        reason: A short phrase, without the path.
        size: In bytes, when it was tried.
        mtime_ns: When it was last modified, in nanoseconds since the epoch.
        ctime_ns: When it was last changed in any way; None: not known.
        tried_with: The versions of what it was tried with. An unchanged file is tried again with others
            only. None: it is tried again in any case, because the file was not at fault.
    """

    path: str
    reason: str
    size: int
    mtime_ns: int
    ctime_ns: int | None = None
    tried_with: str | None = None

    def still_holds(self, stamp: Stamp, tried_with: str) -> bool:
        """Whether to try the file again would give the same.

        Args:
            stamp: The file's stamp now.
            tried_with: The versions of what it would be tried with.
        """
        unchanged = (self.size, self.mtime_ns) == (stamp.size, stamp.mtime_ns)
        unchanged = unchanged and (self.ctime_ns is None or self.ctime_ns == stamp.ctime_ns)
        return unchanged and self.tried_with == tried_with


@dataclass(frozen=True, slots=True)
class ScanProblem:
    """A folder or entry that a walk could not read, and why."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Root:
    """A folder that the person has indexed.

    Attributes:
        root_id: Its number in the catalogue.
        path: The folder.
        device: `st_dev`, the file system that it was on; None where that is not known.
        offline: Whether the last run found it away: on another file system than before, without its photos.
        photos: How many photos on disk lie under it.
    """

    root_id: int
    path: str
    device: int | None
    offline: bool
    photos: int


# Embedding spaces and searching


@dataclass(frozen=True, slots=True)
class ScoreCalibration:
    """What the scores of a space mean, as measured on photos that were changed and searched for.

    Attributes:
        same: From this score on 99 of 100 hits are the same photo; None where no score is that sure.
        alike: Below this score a hit is no likelier to be the same photo than one that chance picks; None
            where scores tell nothing.
        photos: How many photos were changed and searched for, among each other.
    """

    same: float | None
    alike: float | None
    photos: int


@dataclass(frozen=True, slots=True)
class Space:
    """An embedding space: vectors that may be compared with each other.

    Attributes:
        space_id: Its number in the catalogue.
        fingerprint: SHA-256 of `identity`, in hex.
        plugin: The name of the plugin that embeds.
        model: The name of its model.
        dimension: The length of a vector.
        decode: "scaled" or "exact", how photos are decoded.
        options: The plugin's options, with which the embedder opens again.
        identity: What decides the vectors, as JSON values.
        provenance: Device, precision, batch size and versions: recorded, and no part of the identity.
        revision: Counts the changes to its vectors.
        vectors: How many it has.
        current: Whether it is the one that is searched by default.
        created_at: When it was made.
        parent_id: Of a derived space, the space that has its features; None for one of features.
        projection: Of a derived space, the digest of the projection that made its vectors of the features.
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
    def knows_words(self) -> bool:
        """Whether words find photos in it: a space of features whose model has learned from texts.

        It was written down when the space was made.
        """
        return self.parent_id is None and self.provenance.get("words") is True

    @property
    def kind(self) -> str:
        """A word for people: "features", or what its projection is ("head", "whitening")."""
        return "features" if self.parent_id is None else str(self.provenance.get("kind", "projection"))

    @property
    def calibration(self) -> ScoreCalibration | None:
        """What its scores mean, where that was measured."""
        values = self.provenance.get("calibration")
        return ScoreCalibration(**values) if isinstance(values, dict) else None


@dataclass(frozen=True, slots=True)
class QueryVariant:
    """How the picture of a query was changed before it was compared.

    Attributes:
        trimmed: Whether its uniform borders were cut off.
        turned: By how many degrees it was turned counter-clockwise: 0, 90, 180 or 270.
    """

    trimmed: bool = False
    turned: int = 0

    @property
    def text(self) -> str:
        """What was done, for people; empty for the picture as it is."""
        done = ["without its borders"] if self.trimmed else []
        done += [_TURNS[self.turned]] if self.turned else []
        return " and ".join(done)


LONGEST_TEXT = 1000
"""Characters of `Words`; models read some fifty words and pass over the others."""


@dataclass(frozen=True, slots=True)
class Words:
    """Words as a query, or as a part of one, in a space whose model knows words.

    Attributes:
        text: What should be on the photos.
    """

    text: str


Orientation = Literal["landscape", "portrait", "square"]
"""Which side of a photo is the longer one."""

PhotoOrder = Literal["newest", "oldest", "name", "largest"]
"""An order of photos: by `Photo.date`, by path, or by the size of the file."""

PhotoKind = Literal[
    "folder",
    "month",
    "camera",
    "lens",
    "place",
    "tag",
    "format",
    "orientation",
    "size",
    "favourite",
    "rating",
    "album",
]
"""What photos are counted by."""


@dataclass(frozen=True, slots=True)
class GeoBox:
    """What lies between two parallels and two meridians, in degrees; north and east are positive.

    Attributes:
        south: -90 to 90.
        west: -180 to 180. Where it is greater than `east`, the box goes across the date line.
        north: -90 to 90, not less than `south`.
        east: -180 to 180.
    """

    south: float
    west: float
    north: float
    east: float


@dataclass(frozen=True, slots=True)
class GeoCircle:
    """What lies around a point.

    Attributes:
        latitude: In degrees, north positive.
        longitude: In degrees, east positive.
        km: The greatest distance, along the surface.
    """

    latitude: float
    longitude: float
    km: float


@dataclass(frozen=True, slots=True)
class PlaceCount:
    """How many photos were taken at a place, or near it.

    Attributes:
        latitude: In degrees, rounded.
        longitude: In degrees, rounded.
        photos: How many.
    """

    latitude: float
    longitude: float
    photos: int


@dataclass(frozen=True, slots=True)
class MovingPart:
    """The video of a Live or motion photo.

    Attributes:
        file: The file that it is in: a video, or the photo itself.
        offset: Where it begins in the file, in bytes.
        length: How many bytes it has.
    """

    file: str
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class SearchFilter:
    """Which photos may be hits; a field at its default excludes none.

    Attributes:
        under: A folder that they lie in, at any depth.
        after: The first `Photo.date`, inclusive.
        before: The last `Photo.date`, inclusive.
        camera: Part of the camera's name, in upper or lower case.
        tag: A whole tag, written as the classifier writes it.
        min_confidence: That of the tag at least, 0 to 1; without a tag it has no effect.
        format: The file's format, such as "JPEG", as its content has it.
        orientation: Which side is the longer one.
        favourite: Favourites only.
        min_rating: The least rating, 1 to 5; 0 excludes none.
        album: An album that they are in.
        photo_ids: Only photos with these ids, such as those of an area of the map.
        lens: Part of the lens's name, in upper or lower case.
        box: Where they were taken.
        near: A circle in which they were taken.
        has_place: Whether it is known where they were taken; None is both.
        min_bytes: The least size of the file.
        max_bytes: The greatest size of the file.
    """

    under: str | None = None
    after: datetime | None = None
    before: datetime | None = None
    camera: str | None = None
    tag: str | None = None
    min_confidence: float = 0.0
    format: str | None = None
    orientation: Orientation | None = None
    favourite: bool = False
    min_rating: int = 0
    album: str | None = None
    photo_ids: frozenset[int] | None = None
    lens: str | None = None
    box: GeoBox | None = None
    near: GeoCircle | None = None
    has_place: bool | None = None
    min_bytes: int | None = None
    max_bytes: int | None = None

    @property
    def empty(self) -> bool:
        """Whether it excludes nothing."""
        return self == SearchFilter()


@dataclass(frozen=True, slots=True)
class VectorAttributes:
    """What a filter may ask of a vector's photos on disk, as a vector database keeps it beside the vector.

    A vector whose content has several photos has the words of all of them, and ranges over all of them, so
    that a filter on attributes lets all pass that should, and perhaps more.

    Attributes:
        words: 64-bit digests of folders, cameras, tags and whatever else is equal or not, ascending.
        numbers: One for each of `NUMBERS`.
    """

    NUMBERS: ClassVar[tuple[str, ...]] = (
        *("first_moment", "last_moment", "least_bytes", "most_bytes"),
        *("latitude", "longitude"),
    )
    NONE: ClassVar[tuple[float, ...]] = (1e15, -1e15, 1e15, -1e15, 1e15, 1e15)
    """The numbers of a vector without a photo on disk: they pass no condition."""

    words: tuple[int, ...] = ()
    numbers: tuple[float, ...] = NONE


@dataclass(frozen=True, slots=True)
class AttributeFilter:
    """Conditions on `VectorAttributes`, which must all hold.

    Attributes:
        any_of: Of each of these groups, one word at least.
        at_least: Names of `VectorAttributes.NUMBERS`, and what they are at least.
        at_most: Names of `VectorAttributes.NUMBERS`, and what they are at most.
    """

    any_of: tuple[tuple[int, ...], ...] = ()
    at_least: tuple[tuple[str, float], ...] = ()
    at_most: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Box:
    """An upright rectangle in a photo, as shares of its width and height, from its top left corner.

    Attributes:
        left: Where it begins, 0 to 1.
        top: Where it begins, 0 to 1.
        width: Above 0; `left + width` is 1 at most.
        height: Above 0; `top + height` is 1 at most.
    """

    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Hit:
    """One content that a search found.

    Attributes:
        rank: From 1, the best.
        score: The cosine of its vector and the query's, -1 to 1; higher is more similar.
        photo: The first of its photos on disk.
        copies: Paths of the others.
        stacked: Hits that are near-identical to it, such as further frames of a burst, best first; they have
            its rank.
        box: The part of it that fits the query's box best, in a search by a part of a photo.
    """

    rank: int
    score: float
    photo: Photo
    copies: tuple[str, ...] = ()
    stacked: tuple[Hit, ...] = ()
    box: Box | None = None


_TURNS = {90: "turned left by 90°", 180: "turned upside down", 270: "turned right by 90°"}

MinScore = float | Literal["same", "alike"] | None
"""The least score of a hit: a cosine, or the one that a space's calibration gives that name; None is any."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """How much of a library a space covers, where that is not all.

    Attributes:
        searched: Photos on disk that have a vector in the space, or failed in it.
        photos: All photos on disk.
        command: The command that brings the rest.
    """

    searched: int
    photos: int
    command: str

    @property
    def covered(self) -> str:
        """How much it covers, for people."""
        return f"{self.searched:,} of {self.photos:,} photos are in this space"

    @property
    def text(self) -> str:
        """A sentence for people."""
        return f"{self.searched} of {self.photos} photos are searched; to bring the rest: {self.command}"


Thumbnail = Callable[[str], bytes | None]
"""Gives the small JPEG of a content by its digest; None where there is none."""


def _jpeg(thumbnail: Thumbnail | None, photo: Photo) -> bytes | None:
    return None if thumbnail is None else thumbnail(photo.digest)


@dataclass(frozen=True, slots=True)
class RegionQuery:
    """How a search by a part of a photo went.

    Attributes:
        box: The part that was searched for.
        compared: How many photos were looked through, patch by patch.
        by_patches: Whether they were; False where the plugin gives no tokens of patches, so that the vector
            of the part, cut out, was searched for.
    """

    box: Box
    compared: int
    by_patches: bool = True

    @property
    def text(self) -> str:
        """A sentence for people."""
        if not self.by_patches:
            return "The part was cut out and compared with whole photos: the plugin does not look at patches."
        return f"Looked through {self.compared:,} photos for the part."


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What a search found.

    Attributes:
        hits: Best first.
        space: The space that was searched.
        known: Whether the query's vector was in the catalogue, so that no model ran.
        seconds: Wall-clock time.
        variant: How the query's picture was changed to find these.
        coverage: How much of the library the space covers; None: all of it.
        examples: How many pictures the query consists of; 0 where there is none.
        words: How many texts the query consists of.
        region: How a search by a part of a photo went; None for a search by whole pictures.
        thumbnail: Gives the small JPEG of a content by its digest, to show the hits in a notebook.
    """

    hits: tuple[Hit, ...]
    space: Space
    known: bool
    seconds: float
    variant: QueryVariant = QueryVariant()
    coverage: Coverage | None = None
    examples: int = 1
    words: int = 0
    region: RegionQuery | None = None
    thumbnail: Thumbnail | None = field(default=None, repr=False, compare=False)

    def __repr__(self) -> str:
        best = f", the best {self.hits[0].score:.3f} {self.hits[0].photo.path!r}" if self.hits else ""
        return f"<SearchResult: {len(self.hits)} hits in space {self.space.space_id}{best}>"

    def _repr_html_(self) -> str:
        tiles = (
            Tile(hit.photo.path, f"{hit.rank} · {hit.score:.3f}", _jpeg(self.thumbnail, hit.photo))
            for hit in self.hits
        )
        heading = f"{len(self.hits):,} hits in space {self.space.space_id}, {1000 * self.seconds:.0f} ms"
        return gallery(heading, tiles, len(self.hits))

    @property
    def calibration(self) -> ScoreCalibration | None:
        """What the scores mean, where that was measured for the space and the query is one whole picture."""
        alone = self.examples == 1 and not self.words and self.region is None
        return self.space.calibration if alone else None

    def shared_with(self, other: SearchResult) -> frozenset[int]:
        """The contents that both searches found, near-identical ones included, such as in two spaces."""

        def contents(result: SearchResult) -> frozenset[int]:
            return frozenset(one.photo.content_id for hit in result.hits for one in (hit, *hit.stacked))

        return contents(self) & contents(other)

    @property
    def first_unlike(self) -> int | None:
        """The place in `hits` of the first one that is no longer alike; None where none is known to be."""
        alike = None if self.calibration is None else self.calibration.alike
        if alike is None:
            return None
        return next((i for i, hit in enumerate(self.hits) if hit.score < alike), None)


@dataclass(frozen=True, slots=True)
class WholePhoto:
    """The photo that a picture is a part of.

    Attributes:
        hit: The photo, with its rank and score in the search for the picture.
        correlation: Of the picture's details with those of its place in the photo, 0 to 1.
    """

    hit: Hit
    correlation: float


@dataclass(frozen=True, slots=True)
class Tag:
    """A label that a classifier gave a content.

    Attributes:
        name: The label.
        confidence: Its probability, 0 to 1.
        classifier: The name of the model.
    """

    name: str
    confidence: float
    classifier: str


@dataclass(frozen=True, slots=True)
class Marks:
    """What a person says of a content; all copies of a photo share it.

    Attributes:
        favourite: Whether it is a favourite.
        rating: 1 to 5, 0 for none.
        keep: Whether it is the one to keep of its near-duplicates.
        albums: The albums that it is in, A to Z.
    """

    favourite: bool = False
    rating: int = 0
    keep: bool = False
    albums: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """A change to what is said of photos that `Library.undo` can take back.

    Attributes:
        change_id: Its number; later changes have higher ones, and none is used twice.
        text: What it did, in words.
    """

    change_id: int
    text: str


@dataclass(frozen=True, slots=True)
class SavedSearch:
    """A query with its filters, under a name.

    Attributes:
        name: Its name.
        more: Photos that hits should be like, with their weights; photos that are not in the library any more
            are left out. Without one, and without words, it is a filter alone.
        less: Photos that hits should be less like, with their weights.
        where: The filters.
        min_score: The least score of a hit.
        words: Texts that hits should fit, with their weights.
    """

    name: str
    more: tuple[tuple[int, float], ...] = ()
    less: tuple[tuple[int, float], ...] = ()
    where: SearchFilter = SearchFilter()
    min_score: MinScore = None
    words: tuple[tuple[str, float], ...] = ()

    @property
    def wanted(self) -> tuple[tuple[int | Words, float], ...]:
        """The photos and the words that hits should be like, as `Library.search_examples` takes them."""
        return (*self.more, *((Words(text), weight) for text, weight in self.words))


@dataclass(frozen=True, slots=True)
class DuplicatePhoto:
    """A photo in a group of near-duplicates.

    Attributes:
        photo: The photo.
        score: Of its vector with that of the group's first photo; 1 for that one.
        copies: Paths of other files with the same content.
        keep: Whether a person chose it as the one to keep.
    """

    photo: Photo
    score: float
    copies: tuple[str, ...] = ()
    keep: bool = False


@dataclass(frozen=True, slots=True)
class DuplicateGroup:
    """Photos that are near-duplicates of the first one.

    Attributes:
        photos: The one to keep first: a person's choice, else the one with most pixels, losslessly
            compressed, sharpest, in the largest file.
        ignored: Whether a person said to ignore the group as it is.
    """

    photos: tuple[DuplicatePhoto, ...]
    ignored: bool = False

    @property
    def files(self) -> int:
        """How many files they are, copies included."""
        return sum(1 + len(shown.copies) for shown in self.photos)


@dataclass(frozen=True, slots=True)
class DuplicateReport:
    """The near-duplicates of a library.

    Attributes:
        groups: Those with most files first; also photos of which there are copies alone.
        score: The least score of a near-duplicate with the first photo of its group.
        space: The space whose vectors were compared.
        compared: How many contents were compared.
        preview: How many sets of connected photos there are at this score and at others.
        seconds: Wall-clock time.
        thumbnail: As for `SearchResult`.
    """

    groups: tuple[DuplicateGroup, ...]
    score: float
    space: int
    compared: int
    preview: Mapping[float, int]
    seconds: float
    thumbnail: Thumbnail | None = field(default=None, repr=False, compare=False)

    def __repr__(self) -> str:
        return f"<DuplicateReport: {len(self.groups)} groups from {self.score:.4f} on in space {self.space}>"

    def _repr_html_(self) -> str:
        """The first photo of each group, and how many others there are."""
        firsts = [(group.photos[0], group.files - 1) for group in self.groups]
        tiles = (
            Tile(shown.photo.path, f"and {others:,} more", _jpeg(self.thumbnail, shown.photo))
            for shown, others in firsts
        )
        heading = f"{len(self.groups):,} groups of near-duplicates from {self.score:.4f} on"
        return gallery(heading, tiles, len(firsts))


# The map

MapMethod = Literal["pca", "tsne"]
"""How a map is laid out: along the axes in which photos differ most, or neighbours beside each other."""
MapGrouping = Literal["cluster", "folder", "date", "tag"]
"""By what the photos of a map are coloured."""


@dataclass(frozen=True, slots=True)
class MapCluster:
    """Photos of a map that look alike.

    Attributes:
        photo_id: The photo that is nearest to their mean, which names the cluster.
        path: Its file.
        size: How many there are.
        center: Where they are on the map: the median of their coordinates.
        radius: Four of five lie within this distance of it.
    """

    photo_id: int
    path: str
    size: int
    center: tuple[float, float]
    radius: float


@dataclass(frozen=True, slots=True, eq=False)
class PhotoMap:
    """Where the photos of a library lie on a map: one point for each distinct content.

    Attributes:
        method: How the map is laid out.
        space: The space whose vectors it shows.
        photo_ids: (N,) int64.
        content_ids: (N,) int64.
        coordinates: (N, 2) float32. Those of the photos that the map was made with fill 0 to 1; y goes up.
        cluster_of: (N,) int16, places in `clusters`.
        moments: (N,) float64, when the photos were taken: seconds since 1970 if local time were UTC.
        paths: Their files.
        clusters: The clusters, the largest first.
        placed: How many were placed on the map after it was made.
        thumbnail: As for `SearchResult`, by the ids of photos.
    """

    method: MapMethod
    space: Space
    photo_ids: NDArray[np.int64]
    content_ids: NDArray[np.int64]
    coordinates: NDArray[np.float32]
    cluster_of: NDArray[np.int16]
    moments: NDArray[np.float64]
    paths: tuple[str, ...]
    clusters: tuple[MapCluster, ...]
    placed: int
    thumbnail: Callable[[int], bytes | None] | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        return f"<PhotoMap: {len(self)} photos by {self.method} in {len(self.clusters)} clusters>"

    def _repr_html_(self) -> str:
        """The middle photo of each cluster."""
        tiles = (
            Tile(one.path, f"{one.size:,} photos", self.thumbnail(one.photo_id) if self.thumbnail else None)
            for one in self.clusters
        )
        return gallery(f"{len(self):,} photos on the {self.method} map", tiles, len(self.clusters))

    def __len__(self) -> int:
        return len(self.photo_ids)


@dataclass(frozen=True, slots=True, eq=False)
class MapGroups:
    """The photos of a map in groups, to colour them by.

    Attributes:
        names: The groups in their order; dates from the oldest on, others from the largest on.
        group_of: (N,) int16, places in `names`; -1 for photos of no group.
        ordered: Whether the order means something, as that of dates does.
    """

    names: tuple[str, ...]
    group_of: NDArray[np.int16]
    ordered: bool


# Long jobs and their reports

Phase = Literal[
    "scanning",
    "indexing",
    "waiting",
    "classifying",
    "evaluating",
    "encoding",
    "training",
    "mapping",
    "finishing",
    "done",
]
"""A step of a job."""


@dataclass(frozen=True, slots=True)
class JobProgress:
    """The progress of a job that indexes, classifies, evaluates or adapts.

    Attributes:
        phase: The step that it is at.
        done: Files that are finished; in "training", passes over the photos, in "mapping", steps.
        total: All there are, None while that is not known.
        failed: Files among `done` that failed.
        seconds: Since the job began.
        photos_per_second: The rate of this phase, 0 where it does not work on photos.
        current: A file that is being worked on.
    """

    phase: Phase
    done: int
    total: int | None
    failed: int
    seconds: float
    photos_per_second: float
    current: str | None = None


@dataclass(frozen=True, slots=True)
class IndexReport:
    """What an index run did: found = added + updated + moved + unchanged + failed.

    Attributes:
        found: Files of the walk.
        added: New photos, embedded.
        updated: Photos whose content changed, embedded.
        moved: Photos that were found under another path, by their content.
        unchanged: Photos that had their vector.
        missing: Photos that this run found gone.
        failed: Files of the walk without a vector, whether they failed in this run or before.
        offline: Roots that are away; nothing under them changed.
        failures: The files that failed.
        problems: Folders and entries that could not be read.
        seconds: Wall-clock time.
        model: The name of the model.
        space: The space that the vectors went to, None where there is none yet.
        interrupted: Whether Ctrl-C or a cancellation ended it.
        not_looked_at: How many files of the folders are no photos that can be read, by their suffix; those
            without one under "".
        left_out: Folders that systems and other programs keep copies of photos in, which were not entered.
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
    not_looked_at: Mapping[str, int] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()

    @property
    def photos_per_second(self) -> float:
        """Photos that got their vector in this run, per second of wall-clock time."""
        return (self.added + self.updated) / self.seconds if self.seconds > 0 else 0.0


@dataclass(frozen=True, slots=True)
class WatchReport:
    """What watching folders came to.

    Attributes:
        runs: How often they were indexed.
        added: New photos.
        updated: Photos whose content changed.
        moved: Photos that were found under another path.
        missing: Photos that were found gone.
        interrupted: Whether the last run was ended in its middle.
    """

    runs: int = 0
    added: int = 0
    updated: int = 0
    moved: int = 0
    missing: int = 0
    interrupted: bool = False


@dataclass(frozen=True, slots=True)
class ClassifyReport:
    """What a classifying run did. Counts are of distinct contents on disk: copies share their tags.

    Attributes:
        classified: Contents that got their tags.
        unchanged: Contents that this classifier had classified before.
        failed: Contents that could not be classified.
        failures: The files that failed.
        labels: All labels that the classifier has.
        seconds: Wall-clock time.
        model: The name of the classifier.
        interrupted: Whether Ctrl-C or a cancellation ended it.
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
"""The state of a job; "interrupted" means that its process ended without saying how."""


@dataclass(frozen=True, slots=True)
class MapReport:
    """What making a map came to.

    Attributes:
        method: How the map is laid out.
        space: The id of its space.
        points: How many distinct contents are on it.
        seconds: Wall-clock time.
        interrupted: Whether it was cancelled; then there is the map that was there before, or none.
    """

    method: MapMethod
    space: int
    points: int
    seconds: float
    interrupted: bool = False


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A long job as the catalogue has it.

    Attributes:
        run_id: Its number in the catalogue.
        key: A random name that its process was started with.
        kind: Its command, "index".
        arguments: What the command was given, as JSON values.
        state: How far it came.
        host: The machine that it runs on.
        pid: Its process there.
        started_at: When it began.
        ended_at: When it ended, None while it runs.
        progress: The last `JobProgress` or training progress, as JSON values.
        report: What it did, as JSON values, once it has ended.
        error: The message of the error that ended it.
        heartbeat_at: When it last said that it is alive.
        cancel_requested_at: When somebody first asked it to stop, None where nobody did.
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
    heartbeat_at: datetime
    cancel_requested_at: datetime | None


# The library as a whole


@dataclass(frozen=True, slots=True)
class LibraryStatus:
    """What a library holds.

    Attributes:
        library: Its folder.
        photos: Photos on disk.
        contents: Distinct contents among them.
        missing: Photos that are gone.
        failed: Files that failed in the current space.
        roots: The folders that were indexed.
        spaces: The embedding spaces.
        database: The PostgreSQL database that has the catalogue, without a user and a password; None where it
            is a file in the folder.
    """

    library: str
    photos: int
    contents: int
    missing: int
    failed: int
    roots: tuple[Root, ...]
    spaces: tuple[Space, ...]
    database: str | None = None


@dataclass(frozen=True, slots=True)
class RemovalReport:
    """What `prune` or `forget` removed from the library; photo files stay as they are.

    Attributes:
        photos: Photos, missing ones included.
        vectors: Vectors of contents that no other photo has, in all spaces.
        thumbnails: Thumbnails of such contents, and of any that earlier runs left behind.
    """

    photos: int
    vectors: int
    thumbnails: int


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What `check` found, in sentences.

    Attributes:
        checked: What was looked at.
        problems: What was wrong.
        repaired: What `--repair` mended, one sentence for each of `problems` that it could.
    """

    checked: tuple[str, ...]
    problems: tuple[str, ...]
    repaired: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong any more."""
        return len(self.problems) == len(self.repaired)


# Models, plugins and indexes in lists


@dataclass(frozen=True, slots=True)
class ModelListing:
    """A model that can be named; None and "" stand for what is not known.

    Attributes:
        name: What `--model` takes.
        source: "bundled", "trained" (a training run's folder on this machine), "cached" (from the hub), or
            "hub" (to be downloaded).
        path: Its folder or weights file.
        dimension: The length of its vectors, with the default layers and pooling and its own projection.
        image_size: The side of its input, in pixels.
        parameters: How many numbers its weights have.
        bytes: The size of its weights files.
        note: A sentence for people.
        decoder: Whether it can reconstruct.
        projection: Whether a projection comes with it.
        plugin: The plugin that lists it; the host fills it in, and the two below.
        images_per_second: Through its encoder, measured on this machine by `models --speed`.
        measured_on: The device and precision of that measurement.
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
class PluginListing:
    """A plugin as discovery found it.

    Attributes:
        name: What `--embedder` takes.
        title: A few words for people.
        origin: The file, folder or package that it comes from.
        api_version: The version of the plugin contract that it is for; None where it did not load.
        vector_revision: Raised by its author when its vectors change; None where it did not load.
        capabilities: What else than embedding it does, "reconstruct".
        options: Its options with their defaults.
        error: Why it did not load.
    """

    name: str
    title: str
    origin: str
    api_version: int | None
    vector_revision: int | None
    capabilities: tuple[str, ...]
    options: Mapping[str, object]
    error: str | None = None


@dataclass(frozen=True, slots=True)
class IndexListing:
    """The vector index that a space is searched with.

    Attributes:
        kind: "exact", or the name of an approximate index.
        vectors: How many it holds.
        bytes: The size of its files.
        recall: The measured share of the ten best that an approximate index finds, 0 to 1.
        reason: A phrase that says why it is of this kind.
        revision: The space's revision that it has; 0 where it has nothing, None where that cannot be asked.
    """

    kind: str
    vectors: int
    bytes: int
    recall: float | None
    reason: str
    revision: int | None

    def __str__(self) -> str:
        return f"{self.kind}: {self.reason}"


@dataclass(frozen=True, slots=True)
class IndexLag:
    """How far what a space is searched with lags behind the catalogue.

    Attributes:
        space: The space's id.
        photos: Photos on disk.
        vectors: Vectors of the space in the catalogue; copies of a photo share one.
        index: What it is searched with.
        to_add: Vectors that the index lacks; None where it cannot be asked.
        to_remove: Deleted vectors after which it has not been brought up to date; None as above.
        since: When the oldest change was made that it lacks; None where it lacks none, or that is not known.
        advice: What to do, a phrase; None where it is up to date.
    """

    space: int
    photos: int
    vectors: int
    index: IndexListing
    to_add: int | None
    to_remove: int | None
    since: datetime | None
    advice: str | None

    @property
    def behind(self) -> str:
        """How much it lacks, in words."""
        if self.to_add is None or self.to_remove is None:
            return "not known, as it does not answer"
        counts = {"to add": self.to_add, "to remove": self.to_remove}
        return " and ".join(f"{count:,} {what}" for what, count in counts.items() if count) or "nothing"


# Reconstructions


@dataclass(frozen=True, slots=True, eq=False)
class Reconstruction:
    """What a masked autoencoder makes of a photo's visible patches.

    Attributes:
        original: (H, W, 3) uint8, the photo at the model's size.
        masked: (H, W, 3) uint8, with the removed patches grey.
        reconstruction: (H, W, 3) uint8, all patches as the decoder predicts them.
        pasted: (H, W, 3) uint8, the prediction with the visible patches of the original.
        mask: (gh, gw) bool, True where a patch was removed.
        error: (gh, gw) float32, each patch's mean squared error in the units of the loss.
        loss: The mean of `error` over the removed patches; None where none was removed.
        mask_ratio: The share of patches that was removed, 0 to 1.
        statistics: Whose mean and deviation brought a prediction of a norm_pix_loss model back to pixels:
            "none" (not needed) or "visible" (the visible patches nearby).
        photo_shape: Height and width of the photo, whose shape the model's size may not have; None where that
            is not known.
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
    photo_shape: tuple[int, int] | None = None

    @property
    def level_error(self) -> float | None:
        """How far guesses are off, in levels of 0 to 255: the mean over the hidden pixels; None without any.

        Unlike the loss, it can be compared between models.
        """
        if not self.mask.any():
            return None
        height, width = self.original.shape[0] // len(self.mask), self.original.shape[1] // len(self.mask[0])
        hidden = self.mask.repeat(height, axis=0).repeat(width, axis=1)
        off = self.reconstruction[hidden].astype(np.int16) - self.original[hidden]
        return float(np.abs(off).mean())

    @property
    def statistics_text(self) -> str:
        """Whose brightness and contrast the guesses have, as a sentence."""
        if self.statistics == "visible":
            return (
                "This model guesses each patch up to its brightness and contrast; both are borrowed from "
                "visible patches nearby, not from the answer."
            )
        return "This model guesses pixels as they are; no brightness or contrast is borrowed."

    def __repr__(self) -> str:
        loss = "" if self.loss is None else f", loss {self.loss:.4f}"
        return f"<Reconstruction: {self.mask_ratio:.0%} of {self.mask.size} patches hidden{loss}>"

    def _repr_html_(self) -> str:
        shown = (("original", self.original), ("masked", self.masked), ("completed", self.pasted))
        return panels(repr(self).strip("<>"), shown)


@dataclass(frozen=True, slots=True)
class FilmMoment:
    """When a training run reconstructed the photos of its film strip.

    Attributes:
        step: Training steps done.
        epoch: Passes over the photos.
        losses: Of each photo the mean squared error of the hidden patches, in the units of the loss.
    """

    step: int
    epoch: float
    losses: tuple[float, ...]

    @property
    def loss(self) -> float:
        """The mean over the photos."""
        return sum(self.losses) / len(self.losses)


@dataclass(frozen=True, slots=True, eq=False)
class FilmStrip:
    """The reconstructions of the same N photos, with the same patches hidden, at T moments of a training run.

    Attributes:
        names: What each photo is called; "" for one of those that the run learns from.
        originals: (N, H, W, 3) uint8, the photos at the model's size.
        masks: (N, gh, gw) bool, True where a patch is hidden.
        moments: The T moments, the first one first.
        guesses: (T, N, H, W, 3) uint8, all patches as the decoder predicts them.
    """

    names: tuple[str, ...]
    originals: NDArray[np.uint8]
    masks: NDArray[np.bool_]
    moments: tuple[FilmMoment, ...]
    guesses: NDArray[np.uint8]

    @property
    def hidden(self) -> NDArray[np.bool_]:
        """(N, H, W, 1), True where a pixel is hidden."""
        (height, width), (rows, columns) = self.originals.shape[1:3], self.masks.shape[1:]
        tall = self.masks.repeat(height // rows, axis=1)
        return tall.repeat(width // columns, axis=2)[..., None]

    @property
    def masked(self) -> NDArray[np.uint8]:
        """(N, H, W, 3) uint8, the photos with the hidden patches grey."""
        return np.where(self.hidden, np.uint8(128), self.originals)

    @property
    def completed(self) -> NDArray[np.uint8]:
        """(T, N, H, W, 3) uint8, the photos with the guesses in the hidden patches."""
        return np.where(self.hidden, self.guesses, self.originals)

    def __repr__(self) -> str:
        return f"<FilmStrip: {len(self.names)} photos at {len(self.moments)} moments>"

    def _repr_html_(self) -> str:
        stacked = [("the photos", np.concatenate(self.originals))]
        for moment, pictures in zip(self.moments, self.completed, strict=True):
            stacked.append((f"epoch {moment.epoch:.2f}, loss {moment.loss:.3f}", np.concatenate(pictures)))
        return panels(repr(self).strip("<>"), stacked)


@dataclass(frozen=True, slots=True, eq=False)
class Inspection:
    """What a model computes for one whole picture: no patch is hidden.

    Tokens are CLS and then the patches, row by row: T = 1 + gh·gw.

    Attributes:
        picture: (H, W, 3) uint8, the picture at the model's size.
        grid: Rows and columns of patches (gh, gw).
        tokens: (1 + depth, T, D) float32, after each layer. 0 is before the first; the last is after the
            final norm.
        attention: (depth, heads, T, T) float32: how much the token of a row takes from each token, 1 in sum.
        features: (F,) float32, of unit length: what `embed` gives for the picture.
        shares: (gh·gw, F) float32, what each patch adds to the features: they sum up to these. None where the
            features are no sum over patches, such as the CLS token.
    """

    picture: NDArray[np.uint8]
    grid: tuple[int, int]
    tokens: NDArray[np.float32]
    attention: NDArray[np.float32]
    features: NDArray[np.float32]
    shares: NDArray[np.float32] | None


@dataclass(frozen=True, slots=True, eq=False)
class PatchGrid:
    """A picture in patches.

    Attributes:
        picture: (H, W, 3) uint8.
        grid: Rows and columns of patches (gh, gw), which tile it.
    """

    picture: NDArray[np.uint8]
    grid: tuple[int, int]


@dataclass(frozen=True, slots=True, eq=False)
class RegionExplanation:
    """Why a photo was found for a part of a picture.

    Attributes:
        query: The part, cut out.
        hit: The photo.
        score: Of `Library.search_region`: how much better a window of the photo agrees with the part than
            such windows of the other photos that were looked through.
        similarity: (Pq, Ph) float32, the cosine of each patch of the part with each of the photo, whitened.
        pairs: As for `MatchExplanation`.
        query_shares: (gh, gw) float32, what each patch of the part adds to the score.
        hit_shares: The same of the photo's patches; nothing outside the window.
        query_rest: What is added to the sum over the part's patches: minus the mean of the other photos.
        hit_rest: The same beside the photo's patches.
        box: The part of the picture.
        hit_box: The window of the photo.
        compared: How many photos were looked through.
    """

    query: PatchGrid
    hit: PatchGrid
    score: float
    similarity: NDArray[np.float32]
    pairs: NDArray[np.int64]
    query_shares: NDArray[np.float32]
    hit_shares: NDArray[np.float32]
    query_rest: float
    hit_rest: float
    box: Box
    hit_box: Box
    compared: int


@dataclass(frozen=True, slots=True, eq=False)
class MatchExplanation:
    """Why two pictures are alike, or are not, for a model.

    Attributes:
        query: The picture that was searched for.
        hit: The other one.
        score: The cosine of their vectors.
        similarity: (Pq, Ph) float32, the cosine of each patch of the query with each of the hit, after the
            layer that is compared.
        layer: That layer.
        pairs: (N, 2) int64, patches of query and hit that are each other's most similar, the best first.
        query_shares: (gh, gw) float32, what each patch of the query adds to the score; None where the
            features are no sum over patches.
        hit_shares: The same of the hit's patches.
        query_rest: What is added to the score whatever the query's patches are: the shift of the projection.
        hit_rest: The same beside the hit's patches.
    """

    query: Inspection
    hit: Inspection
    score: float
    similarity: NDArray[np.float32]
    layer: int
    pairs: NDArray[np.int64]
    query_shares: NDArray[np.float32] | None
    hit_shares: NDArray[np.float32] | None
    query_rest: float
    hit_rest: float
