"""Projections learned without labels from a frozen encoder's features of photos and augmented views."""

from vitmae_search.training.adaptation.discriminant import fit_discriminant
from vitmae_search.training.adaptation.head import HeadOptions, HeadProgress, train_head
from vitmae_search.training.adaptation.turns import fit_turns
from vitmae_search.training.adaptation.views import training_view
from vitmae_search.training.adaptation.whitening import fit_whitening

__all__ = [
    "HeadOptions",
    "HeadProgress",
    "fit_discriminant",
    "fit_turns",
    "fit_whitening",
    "train_head",
    "training_view",
]
