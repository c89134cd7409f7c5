"""How good searches are: what is measured of vectors, with confidence intervals, and simple baselines.

It works on vectors and pictures, whichever model made them, and needs no torch.
"""

from vitmae_search.evaluation.baselines import color_histogram, perceptual_hash, raw_pixels
from vitmae_search.evaluation.bootstrap import Figure, figure, interval
from vitmae_search.evaluation.duplicates import MIN_CALIBRATION_PHOTOS, DuplicateScores, duplicate_scores
from vitmae_search.evaluation.instances import (
    INSTANCE_VIEWS,
    SAME_PHOTO,
    SAME_UPRIGHT_PHOTO,
    InstanceRanks,
    InstanceView,
    instance_recall,
    instance_views,
)
from vitmae_search.evaluation.knn import NeighbourScores, neighbours, score_neighbours, unit_rows, vote
from vitmae_search.evaluation.labelled_photos import Classes, LabelledPhotos, draw, find_labelled_photos
from vitmae_search.evaluation.measure import (
    ALL_KINDS,
    MethodScores,
    class_figures,
    duplicate_figures,
    instance_figures,
)
from vitmae_search.evaluation.report import Evaluation, Table

__all__ = [
    "ALL_KINDS",
    "INSTANCE_VIEWS",
    "MIN_CALIBRATION_PHOTOS",
    "SAME_PHOTO",
    "SAME_UPRIGHT_PHOTO",
    "Classes",
    "DuplicateScores",
    "Evaluation",
    "Figure",
    "InstanceRanks",
    "InstanceView",
    "LabelledPhotos",
    "MethodScores",
    "NeighbourScores",
    "Table",
    "class_figures",
    "color_histogram",
    "draw",
    "duplicate_figures",
    "duplicate_scores",
    "figure",
    "find_labelled_photos",
    "instance_figures",
    "instance_recall",
    "instance_views",
    "interval",
    "neighbours",
    "perceptual_hash",
    "raw_pixels",
    "score_neighbours",
    "unit_rows",
    "vote",
]
