"""A library that a GPU makes is the CPU's: vectors, neighbours, and the space that they belong to."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitmae_search.cli.main import run
from vitmae_search.library import Library

FP32, BF16 = 1e-4, 0.9995
NEAR = {"fp32": 1e-3, "bf16": 2e-2}
"""How far apart two scores must be for their order to be the same in another precision."""


def assert_agree(found: dict[str, np.ndarray], expected: dict[str, np.ndarray], precision: str) -> None:
    assert found.keys() == expected.keys()
    a, b = (np.stack([vectors[path] for path in sorted(vectors)]) for vectors in (found, expected))
    if precision == "fp32":
        assert np.abs(a - b).max() <= FP32
    assert (a.astype(np.float64) * b).sum(axis=1).min() >= BF16


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_vectors_and_neighbours_are_the_cpus(
    device: str, precision: str, samples: Path, reference: Path, tmp_path: Path, features: Callable
) -> None:
    with (
        Library.open(tmp_path / "library", device=device, precision=precision) as library,
        Library.open(reference, device="cpu", precision="fp32") as expected,
    ):
        assert library.index(samples).failed == 0
        assert_agree(features(library), features(expected), precision)
        assert [s.fingerprint for s in library.spaces()] == [s.fingerprint for s in expected.spaces()]
        unsure = 0
        tried = sorted(samples.glob("*.jpg"))[:: 5 if (device, precision) == ("cpu", "bf16") else 1]
        for path in tried:  # a CPU without bf16 instructions is slow
            turned = Image.open(path).transpose(Image.Transpose.FLIP_LEFT_RIGHT)  # in no library
            found, due = library.search(turned, k=3).hits, expected.search(turned, k=3).hits
            if due[0].score - due[1].score < NEAR[precision]:
                unsure += 1
                continue
            assert found[0].photo.path == due[0].photo.path
            assert abs(found[0].score - due[0].score) < NEAR[precision]
        assert unsure < len(tried) / 2


def test_a_library_of_the_cpu_is_continued_without_a_new_space(
    device: str, samples: Path, reference: Path, tmp_path: Path, features: Callable
) -> None:
    half = tmp_path / "half"
    half.mkdir()
    photos = sorted(samples.glob("*.jpg"))
    for path in photos[::2]:
        shutil.copy(path, half)
    with Library.open(tmp_path / "library", device="cpu", precision="fp32") as library:
        library.index(half)
        before = [space.fingerprint for space in library.spaces()]
    with Library.open(tmp_path / "library", device=device, precision="bf16") as library:
        report = library.index(samples)
        assert (report.added, report.failed) == (len(photos), 0)
        spaces = library.spaces()
        assert [space.fingerprint for space in spaces] == before
        found = {path: v for path, v in features(library).items() if str(samples) in path}
    with Library.open(reference) as expected:
        assert_agree(found, features(expected), "bf16")
        assert [s.vectors for s in spaces] == [s.vectors for s in expected.spaces()], "copies share theirs"


def test_the_command_takes_the_device_by_name(
    device: str, samples: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    where = ("--library", str(tmp_path / "library"), "--device", "cpu" if device == "cpu" else "cuda:0")
    assert run(["index", str(samples), *where]) == 0
    other = tmp_path / "other.png"
    Image.open(samples / "astronaut-00-original.jpg").rotate(3).save(other)
    capfd.readouterr()
    assert run(["search", str(other), "-k", "3", *where]) == 0
    lines = capfd.readouterr().out.splitlines()
    best = next(line for line in lines if line.split()[0] == "1")
    assert "astronaut" in best
    assert run(["reconstruct", str(other), "-o", str(tmp_path / "made.png"), *where]) == 0


@pytest.mark.gpu
def test_an_unavailable_device_names_those_that_exist(
    samples: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["index", str(samples), "--device", "cuda:99"]) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("error: cuda:99: there ")
    assert "CUDA device" in line
