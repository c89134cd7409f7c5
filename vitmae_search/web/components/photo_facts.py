"""What is known of a photo, as names and values for a list: file, date, camera, place, size, tags."""

from __future__ import annotations

from collections.abc import Sequence

from vitmae_search.errors import display_path
from vitmae_search.records import Hit, Photo, Tag

_DATE_SOURCES = {"GPS": "from GPS, in UTC", "file name": "from the file's name", "file": "the file's time"}


def hit_facts(hit: Hit) -> list[tuple[str, str]]:
    """(name, value) of what a search says of a photo: its score, and where copies of it are."""
    copies = [("Also at", display_path(copy)) for copy in hit.copies]
    meaning = "(1 is the same picture)" if hit.box is None else "(how well the part fits)"
    return [("Score", f"{hit.score:.4f}  {meaning}"), *copies]


def photo_facts(photo: Photo) -> list[tuple[str, str]]:
    """(name, value) of what is known of a photo, but for its tags."""
    meta = photo.metadata
    rows = [("File", display_path(photo.file))]
    if photo.frame is not None:
        rows.append(("Time", f"{photo.frame.time} of the video"))
    if photo.missing:
        rows.append(("State", "not on disk any more"))
    date, source = photo.date
    if date is not None:
        rows.append(("Taken", f"{date:%d %B %Y, %H:%M} ({_DATE_SOURCES.get(source, source)})"))
    if meta.camera:
        rows.append(("Camera", meta.camera))
    if meta.lens:
        rows.append(("Lens", meta.lens))
    if meta.latitude is not None and meta.longitude is not None:
        rows.append(("Place", _place(meta.latitude, meta.longitude)))
    rows.append(("Size", f"{meta.width} × {meta.height} pixels, {file_size(photo.size)}, {meta.format}"))
    rows += [("Note", note) for note in meta.notes]
    if photo.changed_at is not None:
        rows.append(("Changed", f"{photo.changed_at:%d %B %Y, %H:%M}"))
    return rows


def tag_facts(tags: Sequence[Tag]) -> list[tuple[str, str]]:
    """(name, value): the tags of each classifier with their confidence."""
    texts: dict[str, list[str]] = {}
    for tag in tags:
        texts.setdefault(tag.classifier, []).append(f"{display_path(tag.name)} ({tag.confidence:.0%})")
    # A single classifier need not be named.
    names = ["Tags"] if len(texts) == 1 else [f"Tags by {display_path(name)}" for name in texts]
    return [(name, ", ".join(found)) for name, found in zip(names, texts.values(), strict=True)]


def file_size(size: int) -> str:
    """A size in bytes as people read it: 812 kB, 3.4 MB."""
    if size < 1000:
        return f"{size} bytes"
    for unit in ("kB", "MB", "GB"):
        size_in_unit = size / 1000.0
        if size_in_unit < 999.5 or unit == "GB":
            return f"{size_in_unit:.1f} {unit}" if size_in_unit < 10 else f"{size_in_unit:.0f} {unit}"
        size = round(size_in_unit)
    raise AssertionError


def _place(latitude: float, longitude: float) -> str:
    north, east = ("N" if latitude >= 0 else "S"), ("E" if longitude >= 0 else "W")
    return f"{abs(latitude):.5f}° {north}, {abs(longitude):.5f}° {east}"
