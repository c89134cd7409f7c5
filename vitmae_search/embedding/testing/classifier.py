"""The checks of a plugin's classifiers (capability "classify")."""

from __future__ import annotations

import os
import pickle

import numpy as np

from vitmae_search.embedding.fingerprint import canonical_json
from vitmae_search.embedding.guard import GuardedClassifier, open_classifier
from vitmae_search.embedding.testing.images import odd_images, sample_images
from vitmae_search.embedding.testing.plugin_under_test import ConformanceError, PluginUnderTest

TOLERANCE = {"fp32": 1e-5, "bf16": 2e-2}
"""How much a probability may depend on the rest of the batch, by precision."""


def check_classifier(
    source: str | os.PathLike[str], model: str, *, device: str = "cpu", precision: str = "auto"
) -> None:
    """Open one of the plugin's classifiers and check it.

    Args:
        source: As for `PluginUnderTest`.
        model: The classifier's name or path, as for `open_classifier`.
        device: As for `open_classifier`.
        precision: As for `open_classifier`.

    Raises:
        ConformanceError: Where a check fails.
        PluginBroken: Where the guard already refuses what the plugin returns.
    """
    subject = PluginUnderTest(source, device=device, precision=precision)
    with open_classifier(subject.plugin, model, device, precision) as classifier:
        _check_prepare(subject, classifier)
        _check_batches(classifier)
        _check_rows(classifier)
        _check_offload(classifier)
        with open_classifier(subject.plugin, model, device, precision) as again:
            _require(again.labels == classifier.labels, "labels change from one opening to the next")
            same = canonical_json(again.identity) == canonical_json(classifier.identity)
            _require(same, "identity changes from one opening to the next")


def _check_prepare(subject: PluginUnderTest, classifier: GuardedClassifier) -> None:
    for image in odd_images():
        classifier.prepare(image)
    there = subject.in_fresh_process("prepare_without_torch", pickle.dumps(classifier.prepare))
    for a, image in zip(there, sample_images(), strict=True):
        _require(np.array_equal(a, classifier.prepare(image)), "prepare gives something else without torch")


def _check_batches(classifier: GuardedClassifier) -> None:
    """It takes read-only batches, changes none, and returns a new array each time."""
    batch = np.stack([classifier.prepare(image) for image in sample_images()])
    inner = classifier._classifier  # the guard hands over read-only batches, and copies results
    changed = batch.copy()
    first = inner.classify(changed)
    _require(np.array_equal(changed, batch), "classify changes the batch")
    kept = first.copy()
    inner.classify(batch[::-1].copy())
    _require(np.array_equal(first, kept), "classify writes into an array that it returned before")
    batch.flags.writeable = False
    try:
        read_only = inner.classify(batch)
    except Exception as error:
        raise ConformanceError(f"classify fails on a read-only batch: {error}") from error
    difference = float(np.abs(read_only - kept).max())
    _require(
        difference <= _limit(classifier), f"a read-only batch has other probabilities, by {difference:.2g}"
    )


def _check_rows(classifier: GuardedClassifier) -> None:
    """The probabilities of an image do not depend on the rest of the batch."""
    batch = np.stack([classifier.prepare(image) for image in sample_images()])
    together = classifier.classify(batch)
    for number, row in enumerate(batch):
        difference = float(np.abs(classifier.classify(row[None])[0] - together[number]).max())
        _require(
            difference <= _limit(classifier),
            f"image {number} alone has other probabilities, by {difference:.2g}",
        )


def _check_offload(classifier: GuardedClassifier) -> None:
    """Where the plugin can offload, its probabilities are the same afterwards."""
    batch = np.stack([classifier.prepare(image) for image in sample_images()])
    before = classifier.classify(batch)
    if classifier.offload():
        difference = float(np.abs(classifier.classify(batch) - before).max())
        _require(difference <= _limit(classifier), f"probabilities differ by {difference:.2g} after offload")


def _limit(classifier: GuardedClassifier) -> float:
    return TOLERANCE.get(str(classifier.provenance.get("precision", "fp32")), TOLERANCE["bf16"])


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ConformanceError(message)
