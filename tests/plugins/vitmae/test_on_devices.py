"""Vectors, probabilities and pictures are the same on every device, for any batch size, and after offloading.

The same tests run on CUDA with `pytest -m gpu`.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vitmae_search.bundled import bundled
from vitmae_search.embedding import GuardedEmbedder, PluginHost, open_classifier, open_embedder
from vitmae_search.embedding.testing import check_classifier, check_embedder
from vitmae_search.vitmae import ViTConfig, ViTForImageClassification, ViTImageProcessor

PLUGIN = bundled("plugins") / "vitmae"
CUDA = pytest.param("cuda", marks=pytest.mark.gpu)
KEPT = 256 << 20
"""Bytes that stay on a device at rest: what cuBLAS works in, for each stream that it was called on."""


@pytest.fixture(params=["cpu", CUDA])
def device(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(params=["cpu", "parts", CUDA])
def place(request: pytest.FixtureRequest) -> str:
    """A device, or a GPU's engine on the CPU."""
    name: str = request.param
    return name


def open_default(place: str, precision: str, **options: Any) -> GuardedEmbedder:
    device = "cpu" if place == "parts" else place
    opened = open_embedder(PluginHost(packages=False).get("vitmae"), options, device, precision)
    embedder: Any = opened._embedder
    if place == "parts":
        engines = sys.modules[f"{type(embedder).__module__.rpartition('.')[0]}.engine"]
        network = embedder._engine._network
        embedder._engine = engines.CudaEngine(network, torch.device("cpu"), precision, 4)
        embedder._engine.compile_after = float("inf")  # a slow CPU would compile in a long test
        opened.batch_size = embedder._engine.batch_size
    if place == "cuda":
        embedder._engine.compile_after = 0.0  # as in a long run
    return opened


@pytest.fixture(scope="module")
def pieces(real_photos: dict[str, Path]) -> list[Image.Image]:
    """16 different pieces of real photos."""
    photos = [
        Image.open(real_photos[name]).convert("RGB").resize((256, 256))
        for name in ("astronaut", "chelsea", "coffee", "china")
    ]
    return [
        photo.crop((x, y, x + 128, y + 128))
        for photo in photos
        for x in range(0, 256, 128)
        for y in range(0, 256, 128)
    ]


def sizes_for(embedder: GuardedEmbedder, precision: str) -> list[int]:
    """Odd ones: around a part where there are parts; fewer where the CPU emulates the precision slowly."""
    slow = precision == "bf16" and not torch.cuda.is_available()
    if embedder.batch_size is None:
        return [1, 5] if slow else [1, 3, 19]
    part = embedder.batch_size // 4
    if slow:
        return [part + 1]
    return [1, 3, part // 4 + 1, part - 1, part, part + 1, 5 * part + 3]


FEATURES = [
    {},
    {"layers": "0,6,last", "pooling": "mean"},
    {"layers": "-2", "pooling": "cls+moments", "views": "flip"},
    {"layers": "last", "pooling": "gem", "views": "five", "image_size": 72},
]


@pytest.mark.parametrize("options", FEATURES, ids=str)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_vectors_are_the_cpu_s_in_fp32(
    place, precision: str, options: dict[str, Any], pieces, caplog
) -> None:
    with open_default("cpu", "fp32", **options) as exact, open_default(place, precision, **options) as other:
        batch = np.stack([exact.prepare(piece) for piece in pieces])
        expected = exact.embed(batch)
        assert exact.identity == other.identity
        for size in sizes_for(other, precision):
            which = np.arange(size) * 7 % len(batch)
            found = other.embed(batch[which])
            if precision == "fp32":
                assert np.abs(found - expected[which]).max() <= 1e-4, size
            assert (found * expected[which]).sum(axis=1).min() >= (
                0.9995 if precision == "bf16" else 1 - 1e-6
            )
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert [text for text in warnings if not text.startswith("This CPU has no bf16 instructions")] == []


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_probabilities_are_the_cpu_s_in_fp32(
    device, precision: str, tiny_config, pieces, tmp_path: Path
) -> None:
    fields = {name: value for name, value in tiny_config.items() if not name.startswith("decoder")}
    torch.manual_seed(0)
    model = ViTForImageClassification(ViTConfig(**fields, id2label=dict(enumerate("abcdefg"))))
    model.save_pretrained(tmp_path)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    plugin = PluginHost(packages=False).get("vitmae")
    with (
        open_classifier(plugin, str(tmp_path), "cpu", "fp32") as exact,
        open_classifier(plugin, str(tmp_path), device, precision) as other,
    ):
        batch = np.stack([exact.prepare(piece) for piece in pieces])
        expected = exact.classify(batch)
        assert np.ptp(expected, axis=0).max() > 0.01, "photos differ"
        for size in (1, 61, 5 * 1024 + 3 if device == "cuda" else 67):
            which = np.arange(size) % len(batch)
            limit = 1e-4 if precision == "fp32" else 0.02
            assert np.abs(other.classify(batch[which]) - expected[which]).max() <= limit
        assert other.offload()
        assert np.abs(other.classify(batch) - expected).max() <= limit


def test_a_random_init_embedder_is_the_same_on_every_device(device, pieces) -> None:
    with open_default("cpu", "fp32") as exact, open_default(device, "bf16") as other:
        batch = np.stack([exact.prepare(piece) for piece in pieces])
        with exact.random_init(3) as twin, other.random_init(3) as its:
            assert (twin.embed(batch) * its.embed(batch)).sum(axis=1).min() >= 0.9995


def test_a_seed_shows_one_picture_everywhere(device, pieces) -> None:
    for precision in ("fp32", "bf16"):
        with open_default("cpu", "fp32") as exact, open_default(device, precision) as other:
            one, two = (opened.reconstruct(pieces[5], seed=4) for opened in (exact, other))
            assert np.array_equal(one.mask, two.mask)
            apart = np.abs(one.reconstruction.astype(int) - two.reconstruction.astype(int))
            assert apart.max() <= 1, "in fp32, whatever embeds"


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_contract_is_kept_on_cuda(checkpoint: Path, precision: str) -> None:
    check_embedder(PLUGIN, {"model": str(checkpoint)}, device="cuda", precision=precision)
    check_embedder(PLUGIN, {"layers": "2,last", "pooling": "cls+moments", "views": "five"}, device="cuda")


# Memory


def on(device: str, what: str) -> int:
    """Bytes on the device: "allocated" for tensors, or "reserved", with what torch keeps for later."""
    if device != "cuda":
        return 0
    count: int = getattr(torch.cuda, f"memory_{what}")()
    return count


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_offloading_frees_the_memory_and_changes_no_vector(place, precision: str, pieces) -> None:
    words = ("allocated", "reserved")
    with open_default(place, precision) as embedder:
        opened: Any = embedder._embedder
        batch = np.stack([embedder.prepare(piece) for piece in pieces])
        which = np.arange(max(sizes_for(embedder, precision))) % len(batch)
        assert embedder.offload()
        least = [on(place, word) for word in words]
        vectors, picture = embedder.embed(batch[which]), embedder.reconstruct(pieces[0], seed=1)
        for _ in range(2):
            assert embedder.offload()
            assert not embedder.offload(), "it does already"
            for word, before in zip(words, least, strict=True):
                assert on(place, word) <= before + KEPT
            for module in (opened._engine._network, opened._pretraining_model):
                assert {tensor.device.type for tensor in (*module.parameters(), *module.buffers())} == {"cpu"}
            again = embedder.reconstruct(pieces[0], seed=1)
            assert np.array_equal(again.reconstruction, picture.reconstruction)
            assert (embedder.embed(batch[which]) * vectors).sum(axis=1).min() >= 1 - 1e-5
    assert on(place, "allocated") <= least[0] + KEPT


def test_two_models_at_a_time_do_not_disturb_each_other(device, pieces) -> None:
    with (
        open_default(device, "bf16") as one,
        open_default(device, "fp32", layers="6", pooling="cls") as other,
    ):
        batch = np.stack([one.prepare(piece) for piece in pieces])
        which = np.arange(max(sizes_for(one, "bf16"))) % len(batch)
        expected = [opened.embed(batch)[which] for opened in (one, other)]
        least: dict[int, list[float]] = {0: [], 1: []}

        def work(number: int) -> None:
            opened = (one, other)[number]
            for _ in range(3):
                found = opened.embed(batch[which])
                least[number].append(float((found * expected[number]).sum(axis=1).min()))
                opened.offload()

        threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(least[0]) == len(least[1]) == 3
        assert min(least[0] + least[1]) >= 0.9999


# In a process of their own: a device that is full, or lost

START = """
import logging, sys
import numpy as np, torch
from vitmae_search.embedding import PluginHost, open_embedder
from vitmae_search.errors import DeviceError

device, on_gpu = sys.argv[1], sys.argv[1] != "cpu"
embedder = open_embedder(PluginHost(packages=False).get("vitmae"), {}, device, "bf16")
logging.basicConfig(level=logging.WARNING, stream=sys.stdout, format="%(message)s")
engine = embedder._embedder._engine
size = 3 + (embedder.batch_size or 3)
batch = np.random.default_rng(0).integers(0, 256, (size, *embedder.shape), np.uint8)
"""

FULL = """
expected = np.concatenate([embedder.embed(batch[n : n + 100]) for n in range(0, size, 100)])
if on_gpu:
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + (400 << 20)) / total)
for _ in range(2):
    assert (embedder.embed(batch) * expected).sum(axis=1).min() > 0.9999
if on_gpu:
    assert engine._part < embedder.batch_size // 4, "or nothing was tried"
print("done")
"""

LOST = """
embedder.embed(batch)
def lose(*_):
    raise RuntimeError("CUDA error: device-side assert triggered")
if on_gpu:
    torch.zeros(3, device=device)[torch.tensor([7], device=device)]  # noticed by the next who waits
else:
    engine._network.forward = lose
said = set()
for call in (embedder.embed, embedder.embed, lambda rows: embedder.embed(rows[:1])):
    try:
        call(batch)
    except DeviceError as error:
        said.add(str(error))
assert len(said) == 1, said
embedder.offload()
embedder.close()
print(said.pop())
"""


def run(script: str, device: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", START + script, device],
        cwd=PLUGIN.parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_device_that_is_full_is_used_for_less_at_a_time(device) -> None:
    lines = run(FULL, device).splitlines()
    assert lines[-1] == "done"
    assert all(line.startswith("The device's memory is short: going on with") for line in lines[:-1])
    assert (len(lines) > 1) == (device != "cpu")


def test_a_device_that_is_lost_is_one_sentence_at_every_call(device) -> None:
    said = run(LOST, device).splitlines()[-1]
    assert said.startswith(device)
    assert "failed in the middle of its work (CUDA error: device-side assert triggered)" in said


def test_a_classifier_keeps_the_contract(device, tiny_config, tmp_path: Path) -> None:
    fields = {name: value for name, value in tiny_config.items() if not name.startswith("decoder")}
    ViTForImageClassification(ViTConfig(**fields, num_labels=3)).save_pretrained(tmp_path)
    check_classifier(PLUGIN, str(tmp_path), device=device)
