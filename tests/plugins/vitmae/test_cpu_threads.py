"""Thread layouts change no vector, are measured on real work, and are remembered."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator
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
from vitmae_search.settings import settings
from vitmae_search.vitmae import ViTMAEConfig

CONFIG = ViTMAEConfig(
    hidden_size=32, num_attention_heads=4, intermediate_size=48, image_size=32, patch_size=8
)
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


@pytest.fixture
def new_tuner(cpu_threads: ModuleType, two_cores: None) -> Iterator[Callable[[], Any]]:
    made = []

    def make() -> Any:
        made.append(cpu_threads.LayoutTuner((32, 32), CONFIG, "bf16"))
        return made[-1]

    yield make
    for one in made:
        one.close()


def doubled(part: np.ndarray) -> np.ndarray:
    return 2 * part


def settle(work: Any) -> None:
    for _ in range(8):
        assert np.array_equal(work.run(doubled, BATCH), 2 * BATCH)


def test_each_layout_is_timed_on_real_work_and_the_best_is_remembered(new_tuner, cpu_threads) -> None:
    first = new_tuner()
    assert first.chosen is None
    settle(first)
    assert first.chosen in cpu_threads.candidate_layouts(2)
    assert new_tuner().chosen == first.chosen
    other = cpu_threads.LayoutTuner((64, 64), CONFIG, "bf16")
    assert other.chosen is None, "a larger picture is other work"


def test_the_fastest_is_chosen(new_tuner, cpu_threads, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(1000))

    def slow_in_threads(part: np.ndarray) -> np.ndarray:
        for _ in range(50 if threading.current_thread().name.startswith("encoder") else 0):
            next(clock)
        return part

    monkeypatch.setattr(cpu_threads.time, "perf_counter", lambda: float(next(clock)))
    work = new_tuner()
    for _ in range(8):
        work.run(slow_in_threads, BATCH)
    assert work.chosen == (1, 2)


@pytest.mark.parametrize("text", ["{", '{"KEY": [3, 5]}', '{"KEY": "soon"}', '{"KEY": [1, 2, 3]}'])
def test_a_damaged_measurement_file_means_to_measure_again(new_tuner, cpu_threads, text: str) -> None:
    path = settings().cache / cpu_threads.LAYOUTS_NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.replace("KEY", new_tuner()._key))
    work = new_tuner()
    assert work.chosen is None
    settle(work)
    assert list(work.chosen) in json.loads(path.read_text()).values()


def test_a_single_photo_is_never_a_trial_and_starts_no_thread(new_tuner) -> None:
    work, before = new_tuner(), threading.active_count()
    for _ in range(20):
        assert work.run(doubled, BATCH[:1]).item() == 0
    assert work.chosen is None
    assert threading.active_count() == before
    assert not settings().cache.exists()


def test_workers_have_their_threads_and_the_caller_keeps_its_own(cpu_threads, two_cores) -> None:
    seen: list[tuple[str, int]] = []

    def note(part: np.ndarray) -> np.ndarray:
        seen.append((threading.current_thread().name, torch.get_num_threads()))
        return part

    workers = cpu_threads.WorkerPool(cpu_threads.ThreadLayout(2, 1))
    workers.run(note, np.array_split(BATCH, 6))
    assert len(seen) == 6
    assert {threads for _, threads in seen} == {1}
    assert all(name.startswith("encoder") for name, _ in seen)
    assert torch.get_num_threads() == 2
    found: list[int] = []
    later = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    later.start()
    later.join()
    assert found == [2], "a thread that begins later has all of them"
    workers.close()
    assert not any(thread.name.startswith("encoder") for thread in threading.enumerate())


def test_errors_of_a_part_are_raised_and_the_workers_stay_usable(new_tuner) -> None:
    def full(part: np.ndarray) -> np.ndarray:
        raise MemoryError("too large")

    work = new_tuner()
    for _ in range(3):
        with pytest.raises(MemoryError, match="too large"):
            work.run(full, BATCH)
    settle(work)


@pytest.mark.parametrize(("cores", "expected"), [(1, [(1, 1)]), (2, [(2, 1), (1, 2)])])
def test_candidate_layouts(cpu_threads, cores: int, expected: list[tuple[int, int]]) -> None:
    assert cpu_threads.candidate_layouts(cores) == expected
    assert all(w * t <= 64 for w, t in cpu_threads.candidate_layouts(64))


# Precision


def test_auto_is_bf16_where_the_hardware_has_it_and_it_was_not_slower(monkeypatch) -> None:
    precision, cpu = module("devices"), torch.device("cpu")
    monkeypatch.setattr(precision, "multiplies_in_bf16", lambda device: False)
    precision.measure_precision()
    assert precision.choose_precision("auto", cpu) == "fp32"
    assert precision.choose_precision("bf16", cpu) == "bf16"
    assert not (settings().cache / precision.PRECISION_NAME).exists()
    monkeypatch.setattr(precision, "multiplies_in_bf16", lambda device: True)
    assert precision.choose_precision("auto", cpu) == "bf16"
    for half, chosen in ((0.5, "bf16"), (2.0, "fp32")):
        seconds = {torch.float32: 1.0, torch.bfloat16: half}
        monkeypatch.setattr(precision, "_matmul_seconds", seconds.__getitem__)
        (settings().cache / precision.PRECISION_NAME).unlink(missing_ok=True)
        precision.measure_precision()
        assert precision.choose_precision("auto", cpu) == chosen
        assert precision.choose_precision("fp32", cpu) == "fp32"


def test_measuring_measures(monkeypatch) -> None:
    precision = module("devices")
    monkeypatch.setattr(precision, "multiplies_in_bf16", lambda device: True)
    precision.measure_precision()
    said = json.loads((settings().cache / precision.PRECISION_NAME).read_text())
    assert set(said.values()) <= {"fp32", "bf16"}
    assert len(said) == 1


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
        exact = np.concatenate([full.embed(row[None]) for row in real_pixels])
        projection = full.own_projection() if not options else None
        for embedder, least in ((full, 1 - 1e-6), (half, 0.9999)):
            for _ in range(3):  # each way of sharing the cores in turn
                found = embedder.embed(real_pixels)
                assert (exact * found).sum(axis=1).min() >= least
                if projection is not None:
                    assert (projection(exact) * projection(found)).sum(axis=1).min() >= 0.9998


def test_a_reconstruction_is_in_fp32_whatever_embeds(real_pixels) -> None:
    with open_default("fp32") as full, open_default("bf16") as half:
        image = Image.fromarray(real_pixels[0])
        one, other = (embedder.reconstruct(image, seed=1) for embedder in (full, half))
        assert np.array_equal(one.reconstruction, other.reconstruction)
