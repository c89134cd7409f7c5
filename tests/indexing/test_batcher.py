"""Running a model on a batch: bad rows fail alone, and how large a batch is."""

import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitmae_search.embedding import open_embedder
from vitmae_search.errors import PluginBroken
from vitmae_search.indexing.batcher import batch_size_for, health_check, run_with_fallback


@given(bad=st.sets(st.integers(0, 8)))
@settings(max_examples=30, deadline=None)
def test_bad_rows_fail_alone(new_plugin, bad):
    plugin = new_plugin()
    embedder = open_embedder(plugin)
    pixels = [np.full((6, 6, 3), number + 1, np.uint8) for number in range(9)]

    def fail_if_bad(row):
        if int(row[0, 0, 0]) - 1 in bad:
            raise ZeroDivisionError

    plugin.before_row = fail_if_bad
    outcomes = run_with_fallback(embedder.embed, np.stack(pixels))
    for number, outcome in enumerate(outcomes):
        assert isinstance(outcome, Exception) == (number in bad)
        if number not in bad:
            assert np.array_equal(outcome, embedder.embed(pixels[number][None])[0])
    assert health_check(embedder.prepare, embedder.embed)


@pytest.mark.parametrize("error", [MemoryError, lambda: PluginBroken("tiny", "odd")])
def test_memory_of_a_failed_batch_is_released_before_parts_are_tried(error):
    """Or a full device would stay full."""
    held, sizes = [], []

    def run(batch):
        sizes.append(len(batch))
        assert all(memory() is None for memory in held)
        activations = np.empty(9)
        held.append(weakref.ref(activations))
        if len(batch) > 1:
            raise error()
        return batch

    rows = np.arange(5, dtype=np.float32)[:, None]
    assert np.array_equal(run_with_fallback(run, rows), rows)
    assert sizes == ([5, 3, 2, 1, 1, 1, 2, 1, 1] if error is MemoryError else [5, 1, 1, 1, 1, 1])


def test_an_empty_batch_does_not_call_the_model(new_plugin):
    plugin = new_plugin()
    assert run_with_fallback(open_embedder(plugin).embed, np.empty((0, 6, 6, 3), np.uint8)) == []
    assert plugin.rows == 0


@pytest.mark.parametrize(
    ("shape", "dtype", "size"),
    [
        ((64, 64, 3), "uint8", 128),
        ((128, 128, 3), "uint8", 42),
        ((64, 64, 3), "float32", 42),
        ((224, 224, 3), "uint8", 32),
        ((5, 512, 512, 3), "float32", 32),
    ],
)
def test_small_images_come_in_larger_batches(new_plugin, shape, dtype, size):
    embedder = open_embedder(new_plugin())
    embedder.shape, embedder.dtype = shape, np.dtype(dtype)
    assert batch_size_for(embedder) == size


@pytest.mark.parametrize(
    ("shape", "dtype", "batch_size", "size"),
    [
        ((64, 64, 3), "uint8", 1, 1),
        ((224, 224, 3), "uint8", 512, 512),
        ((5, 224, 224, 3), "uint8", 512, 178),
        ((5, 4096, 4096, 3), "float32", 512, 1),
    ],
)
def test_a_plugin_sets_the_batch_size_within_the_memory_limit(new_plugin, shape, dtype, batch_size, size):
    embedder = open_embedder(new_plugin())
    embedder.shape, embedder.dtype, embedder.batch_size = shape, np.dtype(dtype), batch_size
    assert batch_size_for(embedder) == size
