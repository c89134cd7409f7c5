"""How good the searches are: neighbours that share a label, intervals, and simple baselines beside.

Torch-free: it works on vectors, whichever model made them.
"""

from vitmae_search.evaluation.baselines import colour_histogram, raw_pixels
from vitmae_search.evaluation.bootstrap import interval
from vitmae_search.evaluation.instances import (
    INSTANCE_VIEWS,
    SAME_PHOTO,
    InstanceRanks,
    InstanceView,
    instance_recall,
    instance_views,
)
from vitmae_search.evaluation.knn import NeighbourScores, neighbours, score_neighbours, unit_rows, vote

__all__ = [
    "INSTANCE_VIEWS",
    "SAME_PHOTO",
    "InstanceRanks",
    "InstanceView",
    "NeighbourScores",
    "colour_histogram",
    "instance_recall",
    "instance_views",
    "interval",
    "neighbours",
    "raw_pixels",
    "score_neighbours",
    "unit_rows",
    "vote",
]
