"""Batches are spread over the cores, and that changes no vector."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vitmae_search.bundled import bundled
from vitmae_search.embedding import GuardedEmbedder, PluginHost, load_drop_in, open_embedder
from vitmae_search.photos import decode, decode_target

BATCH = np.arange(24, dtype=np.float32)[:, None]


def module(name: str) -> ModuleType:
    """One of the plugin's own, as a drop-in is named."""
    plugin = load_drop_in(bundled("plugins") / "vitmae")
    plugin.open({**plugin.info.options}, device="cpu", precision="fp32").close()
    return sys.modules[f"{type(plugin).__module__}.{name}"]


@pytest.fixture
def cpu_threads() -> ModuleType:
    return module("cpu_threads")


@pytest.fixture
def two_cores() -> Iterator[None]:
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


def in_new_thread(work: Callable[[], int]) -> int:
    """What a function returns in a thread that has not used torch."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(work).result()


def doubled(part: np.ndarray) -> np.ndarray:
    return 2 * part


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("part", [1, 4, 100])
def test_rows_come_back_in_order_whatever_their_number(cpu_threads, workers: int, part: int) -> None:
    pool = cpu_threads.WorkerPool(workers, part)
    sizes: list[int] = []

    def work(rows: np.ndarray) -> np.ndarray:
        sizes.append(len(rows))
        return 2 * rows

    for count in (1, 2, 3, 9, 24):
        assert np.array_equal(pool.run(work, BATCH[:count]), 2 * BATCH[:count])
    assert max(sizes) <= max(part, workers - 1)
    pool.close()


def test_a_single_photo_starts_no_thread(cpu_threads) -> None:
    pool, before = cpu_threads.WorkerPool(2, 4), threading.active_count()
    for _ in range(20):
        assert pool.run(doubled, BATCH[:1]).item() == 0
    assert threading.active_count() == before


def test_workers_have_their_threads_and_the_caller_keeps_its_own(cpu_threads, two_cores) -> None:
    seen: list[tuple[str, int]] = []

    def note(part: np.ndarray) -> np.ndarray:
        seen.append((threading.current_thread().name, torch.get_num_threads()))
        return part

    workers = cpu_threads.WorkerPool(2, 4)
    workers.run(note, BATCH)
    assert len(seen) == 6
    assert {threads for _, threads in seen} == {1}
    assert all(name.startswith("encoder") for name, _ in seen)
    assert torch.get_num_threads() == 2
    assert in_new_thread(torch.get_num_threads) == 2, "a thread that begins later has all of them"
    workers.close()
    assert not any(thread.name.startswith("encoder") for thread in threading.enumerate())


def test_two_that_compute_alone_at_a_time_change_no_other_thread(cpu_threads, two_cores) -> None:
    first, second = cpu_threads.one_thread(), cpu_threads.one_thread()
    with ThreadPoolExecutor(1) as other:
        with first:
            assert torch.get_num_threads() == 1
            assert in_new_thread(torch.get_num_threads) == 2
            other.submit(second.__enter__).result()
            assert other.submit(torch.get_num_threads).result() == 1
        assert torch.get_num_threads() == 2
        other.submit(second.__exit__, None, None, None).result()
        assert other.submit(torch.get_num_threads).result() == 2
    assert in_new_thread(torch.get_num_threads) == 2


@pytest.mark.parametrize(("limit", "threads"), [(10**9, 1), (1, 2)])
def test_only_a_small_model_computes_a_photo_in_one_thread(
    two_cores, monkeypatch, limit: int, threads: int
) -> None:
    embedder, networks = module("embedder"), module("networks")
    monkeypatch.setattr(module("cpu_threads"), "SMALL_MODEL", limit)
    seen: list[int] = []

    def noting(work: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*args: Any, **kwargs: Any) -> Any:
            seen.append(torch.get_num_threads())
            return work(*args, **kwargs)

        return noted

    monkeypatch.setattr(embedder, "reconstruct", noting(embedder.reconstruct))
    monkeypatch.setattr(networks, "pixel_values", noting(networks.pixel_values))
    image = Image.new("RGB", (32, 32))
    with open_default("fp32") as opened:
        opened.reconstruct(image)
        opened.embed(opened.prepare(image)[None])
    assert seen == [threads, threads]


def test_a_few_photos_of_a_small_model_are_spread_over_the_cores(cpu_threads, two_cores) -> None:
    for small, sizes in ((False, [3]), (True, [1, 1, 1])):
        seen: list[int] = []

        def work(part: np.ndarray, seen: list[int] = seen) -> np.ndarray:
            seen.append(len(part))
            return 2 * part

        pool = cpu_threads.WorkerPool(4, 8, small=small)
        assert np.array_equal(pool.run(work, BATCH[:3]), 2 * BATCH[:3])
        pool.close()
        assert seen == sizes


def test_errors_of_a_part_are_raised_and_the_workers_stay_usable(cpu_threads) -> None:
    def full(part: np.ndarray) -> np.ndarray:
        raise MemoryError("too large")

    pool = cpu_threads.WorkerPool(2, 4)
    for _ in range(3):
        with pytest.raises(MemoryError, match="too large"):
            pool.run(full, BATCH)
    assert np.array_equal(pool.run(doubled, BATCH), 2 * BATCH)
    pool.close()


# Precision


def test_auto_is_bf16_where_the_hardware_has_it(monkeypatch) -> None:
    precision, cpu = module("devices"), torch.device("cpu")
    for has_bf16, chosen in ((False, "fp32"), (True, "bf16")):
        monkeypatch.setattr(precision, "multiplies_in_bf16", lambda device, has=has_bf16: has)
        assert precision.choose_precision("auto", cpu) == chosen
        assert precision.choose_precision("bf16", cpu) == "bf16"
        assert precision.choose_precision("fp32", cpu) == "fp32"


# The shipped model's trained weights, on real photos


@pytest.fixture(scope="module")
def real_pixels(real_photos: dict[str, Path]) -> np.ndarray:
    """(18, 64, 64, 3) uint8: real photos and their mirror images, as the default model sees them."""
    with open_default("fp32") as embedder:
        side = decode_target("scaled", embedder.input_size)
        images = [
            decode(path.read_bytes(), path=str(path), shrink_to=side).image for path in real_photos.values()
        ]
        mirrored = [image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for image in images]
        return np.stack([embedder.prepare(image) for image in [*images, *mirrored]])


def open_default(precision: str, **options: Any) -> GuardedEmbedder:
    return open_embedder(PluginHost(packages=False).get("vitmae"), options, "cpu", precision)


@pytest.mark.parametrize("options", [{}, {"layers": "6,last", "pooling": "cls+moments"}, {"views": "flip"}])
def test_the_fast_paths_are_near_fp32_on_trained_weights(real_pixels, two_cores, options) -> None:
    with open_default("fp32", **options) as full, open_default("bf16", **options) as half:
        real_pixels = real_pixels[::3]  # a CPU without bf16 instructions is slow
        exact = np.concatenate([full.embed(row[None]) for row in real_pixels])
        projection = full.own_projection() if not options else None
        for embedder, least in ((full, 1 - 1e-6), (half, 0.9999)):
            found = embedder.embed(real_pixels)
            assert (exact * found).sum(axis=1).min() >= least
            if projection is not None:
                assert (projection(exact) * projection(found)).sum(axis=1).min() >= 0.9998


def test_a_reconstruction_is_in_fp32_whatever_embeds(real_pixels) -> None:
    with open_default("fp32") as full, open_default("bf16") as half:
        image = Image.fromarray(real_pixels[0])
        one, other = (embedder.reconstruct(image, seed=1) for embedder in (full, half))
        assert np.array_equal(one.reconstruction, other.reconstruction)
