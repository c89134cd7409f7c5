"""The digests of photos that pages listed a moment ago: their thumbnails are asked for next, by the dozen.

An address of a thumbnail names a part of the digest. Where that fits what was listed, the picture is served
without a query, which takes twice as long as all the rest.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from vitmae_search.latest_values import LatestValues
from vitmae_search.records import Photo

_KEPT = 20_000
"""Photos; each takes some 300 bytes."""
_SHORTEST = 8
"""Characters of a digest that are enough to tell a photo's contents apart."""

_digests: LatestValues[tuple[Path, int], str] = LatestValues(lambda digest: 1, _KEPT)


def remember_listed(folder: Path, photos: Iterable[Photo]) -> None:
    """Remember photos that a page lists.

    Args:
        folder: The library's folder.
        photos: The photos.
    """
    for photo in photos:
        _digests.put((folder, photo.photo_id), photo.digest)


def listed_digest(folder: Path, photo_id: int, beginning: str) -> str | None:
    """The digest of a photo that was listed; None where it was not, or with another content.

    Args:
        folder: The library's folder.
        photo_id: The photo's id.
        beginning: How the digest begins, by the picture's address.
    """
    digest = _digests.get((folder, photo_id))
    return digest if digest is not None and names_content(digest, beginning) else None


def names_content(digest: str, beginning: str) -> bool:
    """Whether an address that names this beginning of a digest always means the same picture.

    Args:
        digest: The photo's.
        beginning: The address's.
    """
    return len(beginning) >= _SHORTEST and digest.startswith(beginning)
