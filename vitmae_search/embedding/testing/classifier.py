"""The checks for a plugin that can also classify (capability "classify")."""

from __future__ import annotations

import os
import pickle

import numpy as np

from vitmae_search.embedding.fingerprint import canonical_json
from vitmae_search.embedding.guard import GuardedClassifier, open_classifier
from vitmae_search.embedding.testing.images import odd_images, sample_images
from vitmae_search.embedding.testing.subject import ConformanceError, Subject

TOLERANCE = {"fp32": 1e-5, "bf16": 2e-2}
"""How far a probability may move with its batch mates, by precision."""


def check_classifier(
    source: str | os.PathLike[str], model: str, *, device: str = "cpu", precision: str = "auto"
) -> None:
    """Open the plugin's classifier `model` and check it. `source` is as for `Subject`.

    Raises `ConformanceError`, or `PluginBroken` where the guard already refuses what comes back.
    """
    subject = Subject(source, device=device, precision=precision)
    with open_classifier(subject.plugin, model, device, precision) as classifier:
        _check_prepare(subject, classifier)
        _check_rows(classifier)
        _check_rest(classifier)
        with open_classifier(subject.plugin, model, device, precision) as again:
            _require(again.labels == classifier.labels, "labels change from one opening to the next")
            same = canonical_json(again.identity) == canonical_json(classifier.identity)
            _require(same, "identity changes from one opening to the next")


def _check_prepare(subject: Subject, classifier: GuardedClassifier) -> None:
    for image in odd_images():
        classifier.prepare(image)
    there = subject.in_fresh_process("prepare_without_torch", pickle.dumps(classifier.prepare))
    for a, image in zip(there, sample_images(), strict=True):
        _require(np.array_equal(a, classifier.prepare(image)), "prepare gives something else without torch")


def _check_rows(classifier: GuardedClassifier) -> None:
    batch = np.stack([classifier.prepare(image) for image in sample_images()])
    kept = batch.copy()
    together = classifier.classify(batch)
    _require(np.array_equal(batch, kept), "classify changes the batch")
    before = together.copy()
    for number, row in enumerate(batch):
        apart = float(np.abs(classifier.classify(row[None])[0] - together[number]).max())
        _require(apart <= _limit(classifier), f"image {number} alone has other probabilities, by {apart:.2g}")
    _require(np.array_equal(together, before), "classify writes into an array that it gave back before")


def _check_rest(classifier: GuardedClassifier) -> None:
    """Where the plugin can rest, its classes are the same afterwards."""
    batch = np.stack([classifier.prepare(image) for image in sample_images()])
    before = classifier.classify(batch)
    if classifier.rest():
        apart = float(np.abs(classifier.classify(batch) - before).max())
        _require(apart <= _limit(classifier), f"after a rest probabilities are others, by {apart:.2g}")


def _limit(classifier: GuardedClassifier) -> float:
    return TOLERANCE.get(str(classifier.provenance.get("precision", "fp32")), TOLERANCE["bf16"])


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ConformanceError(message)
