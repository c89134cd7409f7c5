"""Photos and hits as JSON values: one form for `--json` and the HTTP API."""

from __future__ import annotations

from dataclasses import asdict

from vitmae_search.records import Hit, Marks, Photo, Reconstruction, SearchResult


def photo_json(photo: Photo, marks: Marks) -> dict[str, object]:
    """A photo.

    Args:
        photo: The photo.
        marks: What is said of it.
    """
    meta, (date, source) = photo.metadata, photo.date
    return {
        "photo_id": photo.photo_id,
        "path": photo.path,
        **_frame_json(photo),
        "date": None if date is None else date.isoformat(),
        "date_from": source,
        "width": meta.width,
        "height": meta.height,
        "format": meta.format,
        "bytes": photo.size,
        "camera": meta.camera,
        "lens": meta.lens,
        "latitude": meta.latitude,
        "longitude": meta.longitude,
        "digest": photo.digest,
        "favourite": marks.favourite,
        "rating": marks.rating,
        "albums": list(marks.albums),
    }


def _frame_json(photo: Photo) -> dict[str, object]:
    """The video and the time of a frame; None for a photo."""
    frame = photo.frame
    return {"video": frame and frame.video, "seconds": frame and frame.seconds}


def hit_json(hit: Hit) -> dict[str, object]:
    """A hit, with those that are stacked on it."""
    return {
        "score": hit.score,
        "photo_id": hit.photo.photo_id,
        "path": hit.photo.path,
        **_frame_json(hit.photo),
        "copies": list(hit.copies),
        "stacked": [hit_json(other) for other in hit.stacked],
        **({} if hit.box is None else {"box": asdict(hit.box)}),
    }


def result_json(result: SearchResult) -> dict[str, object]:
    """What a search found."""
    return {
        "hits": [{"rank": hit.rank, **hit_json(hit)} for hit in result.hits],
        "model": result.space.model,
        "space": result.space.space_id,
        "known": result.known,
        "variant": asdict(result.variant),
        "calibration": None if result.calibration is None else asdict(result.calibration),
        "coverage": None if result.coverage is None else asdict(result.coverage),
        "examples": result.examples,
        "words": result.words,
        "seconds": round(result.seconds, 4),
        **({} if result.region is None else {"region": asdict(result.region)}),
    }


def reconstruction_json(made: Reconstruction) -> dict[str, object]:
    """How well a reconstruction fits, patch by patch, row by row from the top."""
    return {
        "loss": made.loss,
        "level_error": made.level_error,
        "mask_ratio": made.mask_ratio,
        "statistics": made.statistics,
        "mask": made.mask.tolist(),
        "error": [[float(value) for value in row] for row in made.error],
    }
