"""Where in photos something looks like a part of another one: patch tokens are compared in windows.

The tokens of all photos are whitened together, as those of a transformer have a few strong directions in
common, and scaled to unit length. The part's tokens become 4 × 4 means; a window of a photo fits as well as
its own 4 × 4 parts agree with them on average. Windows have the part's shape, and eight sizes. Small windows
fit by chance more often, so the mean over all photos is taken from the fits of each size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitmae_search.latest_values import LatestValues
from vitmae_search.records import Box

_CELLS = 4
_SIDES = tuple(0.2 * 1.26**i for i in range(8))
"""Sides of windows that are tried, as shares of the photo's (the root of their shares of its area): 20 to
100 %."""
_STEP = 0.5
"""Between two windows, in patches."""
_DIRECTIONS = 48
"""Directions of the whitened tokens that are kept, those of largest variance."""
_SAMPLE = 16_384
"""Tokens that directions are computed from, at most."""
_SHAPE_STEP = 0.25
"""Photos whose shapes differ by less, in the logarithm of width / height, share their windows."""
_FEW = 8
"""With fewer photos there is no mean to take from fits."""
_CACHE_BYTES = 128 * 2**20
_BATCH = 16
"""Photos whose tokens are computed between two calls of `on_progress`."""

Tokens = NDArray[np.float32]
"""The patch tokens of pictures, (N, rows, columns, C)."""


class Fit(NamedTuple):
    """How much better a photo's best window fits than such windows do on average, and where it is."""

    score: float
    box: Box


class FitExplanation(NamedTuple):
    """How a photo's best window fits a part of another one, patch by patch.

    Attributes:
        fit: The score and the window.
        similarity: (Pp, Ph), the cosine of each of the part's whitened tokens with each of the photo's.
        part_shares: (rows, columns), what each patch of the part adds to the score.
        photo_shares: The same of the photo's patches.
        rest: What the score has beside either sum: the mean of the other photos, taken away.
    """

    fit: Fit
    similarity: NDArray[np.float32]
    part_shares: NDArray[np.float32]
    photo_shares: NDArray[np.float32]
    rest: float


class TokenCache:
    """Patch tokens of photos, in half precision, the latest used of them. Safe for threads."""

    def __init__(self, most_bytes: int = _CACHE_BYTES) -> None:
        self._tokens: LatestValues[tuple[str, str], NDArray[np.float16]]
        self._tokens = LatestValues(lambda tokens: tokens.nbytes, most_bytes)

    def get(self, fingerprint: str, digest: str) -> NDArray[np.float16] | None:
        """A photo's tokens, (rows, columns, C), or None.

        Args:
            fingerprint: Of the space of features whose model made them.
            digest: Of the photo.
        """
        return self._tokens.get((fingerprint, digest))

    def put(self, fingerprint: str, digest: str, tokens: NDArray[np.float16]) -> None:
        """Keep a photo's tokens, in place of those used longest ago.

        Args:
            fingerprint: As for `get`.
            digest: As for `get`.
            tokens: (rows, columns, C).
        """
        self._tokens.put((fingerprint, digest), tokens)


def tokens_of(
    digests: Sequence[str],
    read: Callable[[int], Image.Image | None],
    encode: Callable[[Sequence[Image.Image]], Tokens],
    *,
    fingerprint: str,
    cache: TokenCache,
    on_progress: Callable[[int, int], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> dict[int, NDArray[np.float16]]:
    """The tokens of photos, from the cache or computed.

    Args:
        digests: Of the photos.
        read: Gives the small copy of the photo with this number, None where there is none.
        encode: Gives the tokens of pictures.
        fingerprint: As for `TokenCache.get`.
        cache: Tokens that were computed before; new ones are added.
        on_progress: Called with how many photos are done, and how many there are.
        cancelled: Asked again and again; once it returns True the rest is left out.

    Returns:
        Tokens (rows, columns, C) by the photo's number.
    """
    known = {i: cache.get(fingerprint, digest) for i, digest in enumerate(digests)}
    found = {i: tokens for i, tokens in known.items() if tokens is not None}
    missing = [i for i in known if i not in found]
    for start in range(0, len(missing), _BATCH):
        if on_progress is not None:
            on_progress(len(digests) - len(missing) + start, len(digests))
        if cancelled is not None and cancelled():
            break
        pictures = {i: read(i) for i in missing[start : start + _BATCH]}
        readable = {i: picture for i, picture in pictures.items() if picture is not None}
        if not readable:
            continue
        for i, tokens in zip(readable, encode(list(readable.values())).astype(np.float16), strict=True):
            cache.put(fingerprint, digests[i], tokens)
            found[i] = tokens
    if on_progress is not None:
        on_progress(len(digests), len(digests))
    return found


def fit_region(
    part: Tokens, shape: float, photos: Iterable[NDArray[np.floating]], shapes: Sequence[float]
) -> list[Fit]:
    """Find the window of each photo that fits a part of another one best.

    Args:
        part: (rows, columns, C), the tokens of the part, cut out.
        shape: Width / height of the part, in pixels.
        photos: The tokens of each photo, (rows, columns, C).
        shapes: Width / height of each photo.

    Returns:
        One for each photo.
    """
    own, tokens = _whitened(part, photos)
    count, rows, columns, _ = tokens.shape
    agreement = tokens.reshape(count, rows * columns, -1) @ _cell_means(own)[0].T
    # (N, rows, cells down, columns, cells across), so that a window of any size is two products.
    agreement = agreement.reshape(count, rows, columns, _CELLS, _CELLS).transpose(0, 1, 3, 2, 4)
    agreement = np.ascontiguousarray(agreement).reshape(count, rows * _CELLS, columns * _CELLS)
    scores, boxes = np.empty((count, len(_SIDES))), np.empty((count, len(_SIDES), 4))
    relative = np.round(np.log(shape / np.asarray(shapes)) / _SHAPE_STEP) * _SHAPE_STEP
    for stretch in np.unique(relative):
        members = np.flatnonzero(relative == stretch)
        for number, side in enumerate(_SIDES):
            wide = min(1.0, max(side * math.exp(stretch / 2), 1 / columns))
            high = min(1.0, max(side * math.exp(-stretch / 2), 1 / rows))
            lefts, across = _windows(wide, columns)
            tops, down = _windows(high, rows)
            fits = (down @ agreement[members] @ across.T).reshape(len(members), -1) / _CELLS**2
            at = fits.argmax(axis=1)
            scores[members, number] = fits[np.arange(len(members)), at]
            left, top = lefts[at % len(lefts)], tops[at // len(lefts)]
            boxes[members, number] = np.stack([left, top, np.full(len(at), wide), np.full(len(at), high)], 1)
    if count >= _FEW:
        scores -= scores.mean(axis=0)
    best = scores.argmax(axis=1)
    return [Fit(float(scores[i, j]), Box(*boxes[i, j].tolist())) for i, j in enumerate(best.tolist())]


def explain_fit(
    part: Tokens,
    shape: float,
    photos: Sequence[NDArray[np.floating]],
    shapes: Sequence[float],
    number: int,
) -> FitExplanation:
    """Say what each patch adds to the score of `fit_region`.

    A fit is a mean of cosines of cells of the part and patches of the window, and a cell is a mean of
    patches: so the score is a sum over the patches of either, and of what is taken from all photos alike. It
    is exact.

    Args:
        part: As for `fit_region`.
        shape: As for `fit_region`.
        photos: As for `fit_region`, as the score depends on all of them.
        shapes: As for `fit_region`.
        number: The photo that is explained.
    """
    fit = fit_region(part, shape, photos, shapes)[number]
    own, tokens = _whitened(part, photos)
    photo = tokens[number]
    rows, columns, _ = photo.shape
    cells, weights = _cell_means(own)
    left, top, width, height = fit.box.left, fit.box.top, fit.box.width, fit.box.height
    down = _cells(np.array([top * rows]), height, rows)[0]  # (cells down, rows)
    across = _cells(np.array([left * columns]), width, columns)[0]
    window = np.einsum("ir,jc->ijrc", down, across).reshape(_CELLS**2, rows, columns) / _CELLS**2
    photo_shares = np.einsum("krc,rcd,kd->rc", window, photo, cells, optimize=True)
    seen = np.einsum("krc,rcd->kd", window, photo, optimize=True)  # what each cell is compared with
    part_shares = np.einsum("kpq,pqd,kd->pq", weights, own, seen, optimize=True)
    flat = own.reshape(-1, own.shape[-1])
    return FitExplanation(
        fit,
        np.asarray(flat @ photo.reshape(-1, photo.shape[-1]).T, np.float32),
        np.asarray(part_shares, np.float32),
        np.asarray(photo_shares, np.float32),
        fit.score - float(photo_shares.sum()),
    )


def _whitened(part: Tokens, photos: Iterable[NDArray[np.floating]]) -> tuple[Tokens, Tokens]:
    """Unit tokens of a part, (rows, columns, d), and of photos, (N, rows, columns, d), whitened by these."""
    tokens = np.stack([np.asarray(one, np.float32) for one in photos])
    mean, directions = _whitening(tokens.reshape(-1, tokens.shape[-1]))
    own, others = (_unit(np.asarray(each - mean, np.float32) @ directions) for each in (part, tokens))
    return own, others


def _whitening(tokens: Tokens) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The mean (C,) of tokens (n, C), and directions (C, d) in which they have unit variance."""
    sample = tokens[:: max(1, len(tokens) // _SAMPLE)]
    mean = sample.mean(axis=0)
    centred = sample - mean
    variances, vectors = np.linalg.eigh((centred.T @ centred / len(sample)).astype(np.float64))
    largest = slice(-1, -1 - min(_DIRECTIONS, len(variances)), -1)
    scales = np.sqrt(np.maximum(variances[largest], 1e-9 * max(float(variances[-1]), 1e-30)))
    return mean, np.asarray(vectors[:, largest] / scales, np.float32)


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-12), np.float32)


def _cell_means(tokens: Tokens) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Tokens (rows, columns, d) as the unit means of cells, row by row, (cells², d), and their weights.

    The weights of the tokens, (cells², rows, columns), sum the tokens up to the unit means.
    """
    rows, columns, _ = tokens.shape
    down, across = (_cells(np.zeros(1), 1.0, side)[0] for side in (rows, columns))
    weights = np.einsum("ir,jc->ijrc", down, across).reshape(_CELLS**2, rows, columns)
    means = np.einsum("krc,rcd->kd", weights, tokens, optimize=True)
    lengths = np.maximum(np.linalg.norm(means, axis=1), 1e-12)
    return np.asarray(means / lengths[:, None], np.float32), weights / lengths[:, None, None]


def _windows(share: float, side: int) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Where windows of a size begin, as shares, and their weights of patches, (windows, side · cells).

    Args:
        share: The windows' side, as a share of the photo's.
        side: Patches on the photo's side.
    """
    free = 1.0 - share
    starts = np.linspace(0.0, free, max(1, round(free * side / _STEP) + 1))
    weights = _cells(starts * side, share, side)
    return starts, weights.transpose(0, 2, 1).reshape(len(starts), -1)


def _cells(starts: NDArray[np.float64], share: float, side: int) -> NDArray[np.float32]:
    """Mean weights of patches in the cells of windows, (windows, cells, side); each row sums to 1.

    Args:
        starts: Where windows begin, in patches.
        share: The windows' side, as a share of `side`.
        side: Patches.
    """
    edges = starts[:, None] + share * side * np.arange(_CELLS + 1) / _CELLS
    patches = np.arange(side)
    overlap = np.minimum(edges[:, 1:, None], patches + 1) - np.maximum(edges[:, :-1, None], patches)
    overlap = np.clip(overlap, 1e-9, None)
    return np.asarray(overlap / overlap.sum(axis=-1, keepdims=True), np.float32)
