"""Photos, hits and neighbours as JSON values: one form for `--json`, downloads and the HTTP API."""

from __future__ import annotations

from dataclasses import asdict

from vitmae_search.inspection.space import (
    QUANTILES,
    Neighbour,
    NeighbourChange,
    Neighbourhood,
    SpaceStatistics,
)
from vitmae_search.records import (
    Hit,
    IndexLag,
    Marks,
    MatchExplanation,
    Photo,
    Reconstruction,
    RegionExplanation,
    SearchResult,
)


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


def reconstruction_summary(made: Reconstruction) -> dict[str, object]:
    """How well a reconstruction fits as a whole."""
    return {
        "loss": made.loss,
        "level_error": made.level_error,
        "mask_ratio": made.mask_ratio,
        "statistics": made.statistics,
    }


def reconstruction_json(made: Reconstruction) -> dict[str, object]:
    """How well a reconstruction fits, patch by patch, row by row from the top."""
    return {
        **reconstruction_summary(made),
        "mask": made.mask.tolist(),
        "error": [[float(value) for value in row] for row in made.error],
    }


def explanation_json(found: MatchExplanation | RegionExplanation) -> dict[str, object]:
    """Why two pictures match, or a photo and a part of a picture."""
    if isinstance(found, RegionExplanation):
        of: dict[str, object] = {
            "part": asdict(found.box),
            "box": asdict(found.hit_box),
            "compared": found.compared,
        }
    else:
        of = {"layer": found.layer}
    return {
        "score": found.score,
        **of,
        "query_grid": list(found.query.grid),
        "hit_grid": list(found.hit.grid),
        "pairs": [
            {"query": own, "hit": other, "similarity": float(found.similarity[own, other])}
            for own, other in found.pairs.tolist()
        ],
        "query_shares": None if found.query_shares is None else found.query_shares.tolist(),
        "hit_shares": None if found.hit_shares is None else found.hit_shares.tolist(),
        "query_rest": found.query_rest,
        "hit_rest": found.hit_rest,
    }


def space_statistics_json(found: SpaceStatistics) -> dict[str, object]:
    """A space as a whole."""
    return {
        "space": found.space_id,
        "title": found.title,
        "photos": found.photos,
        "sampled": found.sampled,
        "k": found.k,
        "quantiles": list(QUANTILES),
        "distances": found.distances.tolist(),
        "mean_cosine": found.mean_cosine,
        "skewness": found.skewness,
        "never": found.never,
        "most": found.most,
        "dimension": found.dimension,
        "effective_dimension": found.effective_dimension,
        "spectrum": found.spectrum.tolist(),
        "norms": None if found.norms is None else found.norms.tolist(),
        "hubs": [_neighbour_json(each) for each in found.hubs],
    }


def neighbourhood_json(found: Neighbourhood) -> dict[str, object]:
    """A photo among its neighbours."""
    return {
        "photo": None if found.photo is None else found.photo.path,
        "space": found.space_id,
        "title": found.title,
        "photos": found.photos,
        "sampled": found.sampled,
        "k": found.k,
        "quantiles": list(QUANTILES),
        "neighbours": [_neighbour_json(each) for each in found.neighbours],
        "usual_distances": found.usual.tolist(),
        "percentiles": found.percentiles.tolist(),
        "occurrences": found.occurrences,
        "usual_occurrences": found.usual_occurrences.tolist(),
        "occurrence_percentile": found.occurrence_percentile,
        "neighbour_of": [_neighbour_json(each) for each in found.reverse],
    }


def neighbour_change_json(found: NeighbourChange) -> dict[str, object]:
    """The neighbours of a photo in two spaces."""
    return {
        "before": neighbourhood_json(found.before),
        "after": neighbourhood_json(found.after),
        "shared": found.shared,
        "changed_copies": {
            name: {"before": before, "after": after} for name, (before, after) in found.views.items()
        },
        "without_changed_copies": found.without_views or None,
    }


def _neighbour_json(each: Neighbour) -> dict[str, object]:
    rank = {} if each.other_rank is None else {"other_rank": each.other_rank}
    return {
        "photo_id": each.photo.photo_id,
        "path": each.photo.path,
        "distance": each.distance,
        "occurrences": each.occurrences,
        **rank,
    }


def index_lag_json(lag: IndexLag) -> dict[str, object]:
    """How far a space's index is, as JSON has it, without the index itself."""
    return {
        "photos": lag.photos,
        "vectors": lag.vectors,
        "indexed": None if lag.to_add is None else lag.index.vectors,
        "to_add": lag.to_add,
        "to_remove": lag.to_remove,
        "since": None if lag.since is None else lag.since.isoformat(),
        "advice": lag.advice,
    }
