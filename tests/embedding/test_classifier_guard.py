"""The optional half of a plugin: classifiers, behind a guard of their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitmae_search.embedding import (
    GuardedClassifier,
    PluginHost,
    load_drop_in,
    open_classifier,
)
from vitmae_search.embedding.testing import ConformanceError, check_classifier, check_embedder
from vitmae_search.errors import DeviceError, ModelNotFound, PluginBroken, PluginError

CLASSIFIER = '''
from vitmae_search.embedding import Classifier, ModelNotFound


class Brightness(Classifier):
    """Dark, or bright: shares of the mean level."""

    model = "brightness"
    identity = {"revision": 1}
    provenance = {"precision": "fp32"}
    input_size = 8
    labels = ["dark", "bright"]

    def __init__(self):
        self.prepare = prepare

    def classify(self, batch):
        bright = batch.reshape(len(batch), -1).mean(axis=1) / 255
        found = np.stack([1 - bright, bright], axis=1)
        return found.astype(np.float32)

    def close(self):
        self.labels = None


class Plugin(EmbedderPlugin):
'''
OPEN = """
    def open_classifier(self, model, *, device, precision):
        if model != "brightness":
            raise ModelNotFound("there is brightness only")
        return Brightness()


plugin = Plugin()
"""
Write = Callable[..., Path]


@pytest.fixture
def write_classifier(write_plugin) -> Write:
    """`write_classifier(old, new)`: the plugin with a classifier, with one piece replaced."""

    def write(old: str = "", new: str = "") -> Path:
        path: Path = write_plugin("mine", old="class Plugin(EmbedderPlugin):\n", new=CLASSIFIER)
        text = path.read_text().replace("\nplugin = Plugin()\n", OPEN)
        text = text.replace("title=", "capabilities=frozenset({'embed', 'classify'}), title=")
        assert old in text
        path.write_text(text.replace(old, new) if old else text)
        return path

    return write


@pytest.fixture
def opened(write_classifier: Write) -> Callable[..., GuardedClassifier]:
    def make(old: str = "", new: str = "") -> GuardedClassifier:
        return open_classifier(load_drop_in(write_classifier(old, new)), "brightness")

    return make


def batch_of(classifier: GuardedClassifier, n: int = 3) -> np.ndarray:
    return np.stack([classifier.prepare(Image.new("RGB", (20, 30), (60 * i,) * 3)) for i in range(n)])


def test_a_good_classifier(opened) -> None:
    with opened() as classifier:
        assert classifier.labels == ("dark", "bright")
        assert (classifier.model, classifier.input_size, classifier.shape) == ("brightness", 8, (8, 8, 3))
        found = classifier.classify(batch_of(classifier))
        np.testing.assert_allclose(found[:, 1], [0, 60 / 255, 120 / 255], atol=1e-6)
        assert classifier.classify(batch_of(classifier)[:0]).shape == (0, 2)
        with pytest.raises(ValueError, match="the batch is"):
            classifier.classify(np.zeros((1, 4, 4, 3), np.uint8))
    classifier.close()
    with pytest.raises(ValueError, match="classifier of plugin 'mine' is closed"):
        classifier.classify(batch_of(classifier))


FOUND = "return found.astype(np.float32)"


@pytest.mark.parametrize(
    ("new", "reason"),
    [
        ("return None", "a NoneType"),
        ("return found", "float64; it must be float32"),
        ("return found.astype(np.float32)[:, :1]", r"shape \(3, 1\); it must be \(3, 2\)"),
        ("return np.asfortranarray(found.astype(np.float32))", "not C-contiguous"),
        ("found[1] *= 2; return found.astype(np.float32)", "no probabilities in row 1 of 3.*sum to 1"),
        ("found[2] = [2, -1]; return found.astype(np.float32)", "in row 2 of 3.*not negative"),
        ("found[1, 0] = np.nan; return found.astype(np.float32)", "in row 1 of 3.*finite"),
        ("found[0, 0] = np.inf; return found.astype(np.float32)", "in row 0 of 3.*finite"),
        ("raise KeyError('x')", "classify failed: KeyError"),
    ],
)
def test_what_breaks_the_contract_names_the_plugin(opened, new: str, reason: str) -> None:
    with opened(FOUND, new) as classifier, pytest.raises(PluginBroken, match=f"'mine': .*{reason}"):
        classifier.classify(batch_of(classifier))


def test_probabilities_that_were_returned_survive_a_plugin_that_fills_its_buffer_again(opened) -> None:
    reuses = "self.rows = getattr(self, 'rows', np.empty((3, 2), np.float32)); self.rows[:] = found; "
    with opened(FOUND, f"{reuses}return self.rows") as classifier:
        batch = batch_of(classifier)
        first = classifier.classify(batch)
        kept = first.copy()
        np.testing.assert_array_equal(classifier.classify(batch[::-1]), kept[::-1])
        np.testing.assert_array_equal(first, kept)


def test_memory_that_runs_out_is_the_callers_to_deal_with(opened) -> None:
    with opened(FOUND, "raise MemoryError") as classifier, pytest.raises(MemoryError):
        classifier.classify(batch_of(classifier))


@pytest.mark.parametrize("labels", ["[]", "['a', '']", "['a', 3]", "['a', '\\ud800']", "None"])
def test_labels_are_text(opened, labels: str) -> None:
    with pytest.raises(PluginBroken, match=r"labels|attributes"):
        opened('labels = ["dark", "bright"]', f"labels = {labels}")


def test_errors_for_a_person_pass(write_classifier) -> None:
    plugin = load_drop_in(write_classifier())
    with pytest.raises(ModelNotFound, match="brightness only"):
        open_classifier(plugin, "other")
    with pytest.raises(DeviceError, match="toaster"):
        open_classifier(plugin, "brightness", "toaster")


def test_a_plugin_without_a_classifier_says_so(write_plugin) -> None:
    with pytest.raises(PluginError, match="cannot classify"):
        open_classifier(load_drop_in(write_plugin("mine")), "brightness")


def test_a_plugin_that_only_says_that_it_classifies_is_listed_as_broken(tmp_path: Path, write_plugin) -> None:
    new = "capabilities=frozenset({'embed', 'classify'}), title="
    write_plugin("mine", old="title=", new=new)
    listed = {one.name: one for one in PluginHost([tmp_path / "plugins"], packages=False).listings()}
    assert "no open_classifier()" in (listed["mine"].error or "")


def test_the_kit_passes_a_good_one(write_classifier) -> None:
    path = write_classifier()
    check_classifier(path, "brightness")
    check_embedder(path)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (FOUND, "found = found[::-1] if len(found) > 1 else found; "
         "return np.ascontiguousarray(found, np.float32)", "alone has other probabilities"),
        (FOUND, "batch[:] = 0; return found.astype(np.float32)", "changes the batch"),
        (FOUND, "batch.sort(axis=1) if not batch.flags.writeable else None; return found.astype(np.float32)",
         "fails on a read-only batch"),
        (FOUND, "self.rows = getattr(self, 'rows', np.empty((99, 2), np.float32)); "
         "self.rows[: len(found)] = found; return self.rows[: len(found)]", "returned before"),
        ("    def close(self):", "    def offload(self):\n        self.classify = lambda batch: "
         "np.full((len(batch), 2), 0.5, np.float32)\n\n    def close(self):", "after offload"),
        ('identity = {"revision": 1}', "identity = property(lambda self: {'now': id(self)})", "identity"),
    ],
)  # fmt: skip
def test_the_kit_finds_what_is_wrong(write_classifier, old: str, new: str, reason: str) -> None:
    with pytest.raises(ConformanceError, match=reason):
        check_classifier(write_classifier(old, new), "brightness")
