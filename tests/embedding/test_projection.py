"""A projection does what it says, for every row, and a damaged file is never used."""

from __future__ import annotations

import itertools
import os
import pickle
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from vitmae_search.embedding import Projection, projection_path
from vitmae_search.errors import CheckpointError, ModelError, ModelNotFound
from vitmae_search.records import ScoreCalibration


def unit(rows: NDArray[np.float64]) -> NDArray[np.float32]:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def features(count: int = 20, dimension: int = 6, seed: int = 0) -> NDArray[np.float32]:
    return unit(np.random.default_rng(seed).normal(size=(count, dimension)))


def head(seed: int = 1, sizes: tuple[int, ...] = (6, 9, 4)) -> Projection:
    random = np.random.default_rng(seed)
    weights = [random.normal(size=(o, i)).astype("f4") for i, o in itertools.pairwise(sizes)]
    biases = [random.normal(size=o).astype("f4") * 0.1 for o in sizes[1:]]
    return Projection(weights, biases, "head", {"made by": "a test"})


def test_it_is_affine_maps_with_relu_between_them_then_unit_length() -> None:
    projection, rows = head(), features()
    (w0, w1), (b0, b1) = projection.weights, projection.biases
    for row, found in zip(rows.astype("f8"), projection(rows), strict=True):
        wanted = w1.astype("f8") @ np.clip(w0.astype("f8") @ row + b0, 0, None) + b1
        np.testing.assert_allclose(found, wanted / np.linalg.norm(wanted), atol=1e-6)
    assert (projection.input_dimension, projection.dimension) == (6, 4)


def test_many_rows_are_projected_in_pieces() -> None:
    projection, rows = head(), features(80_000)
    tracemalloc.start()
    found, norms = projection(rows), projection.norms(rows)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak - found.nbytes - norms.nbytes < 80_000 * 9 * 8 / 2  # half of what the first map gives
    for piece in (slice(0, 5), slice(8190, 8194), slice(79_995, None)):
        np.testing.assert_allclose(found[piece], projection(rows[piece]), atol=1e-6)
        np.testing.assert_allclose(norms[piece], projection.norms(rows[piece]), atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 40), st.integers(0, 2**32), st.integers(1, 4), st.floats(-30, 30))
def test_rows_are_unit_and_do_not_depend_on_each_other(n: int, seed: int, maps: int, scale: float) -> None:
    random = np.random.default_rng(seed)
    sizes = tuple(int(size) for size in random.integers(1, 12, maps + 1))
    made = head(seed, sizes)
    first = made.weights[0] * np.float32(10.0 ** (scale / maps))
    projection = Projection((first, *made.weights[1:]), made.biases, "head")
    rows = features(n, sizes[0], seed)
    before = rows.copy()
    found = projection(rows)
    assert found.shape == (n, sizes[-1])
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    assert found.flags.writeable
    np.testing.assert_allclose(np.linalg.norm(found.astype("f8"), axis=1), 1, atol=1e-6)
    for i in range(n):
        cosine = float(found[i].astype("f8") @ projection(rows[i : i + 1])[0])
        assert cosine > 1 - 1e-5
    np.testing.assert_array_equal(rows, before)


@pytest.mark.parametrize("scale", [1e-38, 3e38])
def test_the_largest_and_smallest_weights_give_unit_rows(scale: float) -> None:
    weight = np.eye(6, dtype="f4")[::-1] * np.float32(scale)
    turned = Projection([weight] * 3, [np.zeros(6, "f4")] * 3, "head")(np.abs(features()))
    np.testing.assert_allclose(turned, np.abs(features())[:, ::-1], atol=1e-6)


def test_a_row_that_has_no_direction_left_gets_one() -> None:
    dead = Projection([np.zeros((3, 6), "f4")], [np.zeros(3, "f4")], "head")
    np.testing.assert_array_equal(dead(features(2)), [[1, 0, 0], [1, 0, 0]])


def test_features_of_another_dimension_are_refused_in_a_sentence() -> None:
    with pytest.raises(ModelError, match=r"takes features of dimension 6, and these have 7"):
        head()(features(3, 7))


NAN, HUGE = np.array([[np.nan]], "f4"), np.full((2, 2), 3e38, "f4")


@pytest.mark.parametrize(
    ("weights", "biases", "sentence"),
    [
        ([], [], "as many weights as biases"),
        ([np.ones((2, 3))], [], "as many weights as biases"),
        ([np.ones((2, 3))], [np.ones(3)], "has shapes"),
        ([np.ones(3)], [np.ones(3)], "has shapes"),
        ([np.ones((0, 3))], [np.ones(0)], "has shapes"),
        ([np.ones((2, 3)), np.ones((1, 3))], [np.ones(2), np.ones(1)], "takes 3 numbers and gets 2"),
        ([NAN], [np.ones(1)], "not finite"),
        ([np.ones((1, 1))], [np.array([np.inf])], "not finite"),
        ([HUGE] * 4, [np.ones(2)] * 4, "too large"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(
    weights: list[NDArray[np.float32]], biases: list[NDArray[np.float32]], sentence: str
) -> None:
    with pytest.raises(ModelError, match=sentence):
        Projection(weights, biases, "head")


def test_a_file_gives_back_the_same_projection(tmp_path: Path) -> None:
    made = head()
    made.save(tmp_path / "head.safetensors")
    read = Projection.read(tmp_path / "head.safetensors")
    assert (read.digest, read.kind, read.provenance) == (made.digest, "head", {"made by": "a test"})
    np.testing.assert_array_equal(read(features()), made(features()))
    assert [path.name for path in tmp_path.iterdir()] == ["head.safetensors"]


def test_the_digest_is_of_the_values_and_shapes_alone() -> None:
    made = head()
    same = Projection(list(made.weights), list(made.biases), "whitening", {"made by": "another"})
    assert same.digest == made.digest
    changed = [weight.copy() for weight in made.weights]
    changed[1][2, 3] = np.nextafter(changed[1][2, 3], np.float32(9))
    assert Projection(changed, made.biases, "head").digest != made.digest
    flat = np.arange(6, dtype="f4")
    shapes = [
        Projection([flat.reshape(2, 3)], [np.zeros(2)], "w"),
        Projection([flat.reshape(3, 2)], [np.zeros(3)], "w"),
    ]
    assert shapes[0].digest != shapes[1].digest


def test_it_does_not_change_with_the_arrays_that_it_was_made_of() -> None:
    weight = np.eye(3, dtype="f4")
    made = Projection([weight], [np.zeros(3, "f4")], "whitening")
    weight[:] = 0
    np.testing.assert_array_equal(made.weights[0], np.eye(3))
    with pytest.raises(ValueError, match="read-only"):
        made.weights[0][0, 0] = 2


def test_it_can_be_pickled_for_another_process() -> None:
    made = head()
    again = pickle.loads(pickle.dumps(made))
    assert again.digest == made.digest
    np.testing.assert_array_equal(again(features()), made(features()))


def test_a_stored_file_is_named_by_its_digest_and_kept(tmp_path: Path) -> None:
    made, folder = head(), tmp_path / "new" / "projections"
    path = made.store(folder)
    assert path == projection_path(folder, made.digest)
    before = path.stat().st_mtime_ns
    os.utime(path, ns=(before - 10**9, before - 10**9))
    assert made.store(folder).stat().st_mtime_ns == before - 10**9
    assert Projection.read_stored(folder, made.digest).digest == made.digest


def test_storing_mends_a_damaged_file(tmp_path: Path) -> None:
    path = head().store(tmp_path)
    path.write_bytes(path.read_bytes()[:-5])
    head().store(tmp_path)
    assert Projection.read_stored(tmp_path, head().digest).digest == head().digest


def test_a_file_under_another_ones_name_is_not_taken(tmp_path: Path) -> None:
    path = head(1).store(tmp_path)
    head(2).save(path)
    with pytest.raises(CheckpointError, match="holds another projection"):
        Projection.read_stored(tmp_path, head(1).digest)


def _flip(content: bytes) -> bytes:
    return content[:-3] + bytes([content[-3] ^ 0x40]) + content[-2:]


def _other_tensors(content: bytes) -> bytes:
    return safetensors.numpy.save({"a": np.ones((2, 2), "f4")}, {"format": "vitmae-search projection 1"})


def _not_finite(content: bytes) -> bytes:
    return content[:-4] + np.array([np.nan], "<f4").tobytes()


def _one_map_less(content: bytes) -> bytes:
    tensors = safetensors.numpy.load(content)
    metadata = {
        "format": "vitmae-search projection 1",
        "kind": "head",
        "provenance": "{}",
        "digest": head().digest,
    }
    return safetensors.numpy.save({name: tensors[name] for name in ("0.weight", "0.bias")}, metadata)


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "seven bytes": lambda content: content[:7],
    "half the header": lambda content: content[:40],
    "half": lambda content: content[: len(content) // 2],
    "one byte short": lambda content: content[:-1],
    "one byte more": lambda content: content + b"\0",
    "a flipped bit": _flip,
    "NaN": _not_finite,
    "the first map alone": _one_map_less,
    "other tensors": _other_tensors,
    "no metadata": lambda content: safetensors.numpy.save(safetensors.numpy.load(content)),
    "a picture": lambda content: b"\x89PNG\r\n\x1a\n" + content,
    "deep JSON": lambda content: (1 << 17).to_bytes(8, "little") + b"[" * (1 << 17),
    "text": lambda content: b"<!doctype html><title>404</title>",
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "head.safetensors"
    head().save(path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(CheckpointError, match=r"head\.safetensors"):
        Projection.read(path)


def test_every_bit_of_the_values_is_covered(tmp_path: Path) -> None:
    path = tmp_path / "head.safetensors"
    head().save(path)
    content = path.read_bytes()
    values = sum(array.nbytes for array in (*head().weights, *head().biases))
    for place in np.random.default_rng(0).integers(len(content) - values, len(content), 40):
        flipped = bytearray(content)
        flipped[place] ^= 1 << int(place) % 8
        path.write_bytes(flipped)
        with pytest.raises(CheckpointError):
            Projection.read(path)


def test_no_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="no such projection file"):
        Projection.read(tmp_path / "none.safetensors")
    with pytest.raises(CheckpointError, match="cannot be read"):
        Projection.read(tmp_path)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = head(1).store(tmp_path)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        head(2).save(path)
    assert Projection.read(path).digest == head(1).digest
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    path = os.path.join(os.fspath(tmp_path), os.fsdecode(b"h\xff.safetensors"))
    head().save(path)
    assert Projection.read(path).digest == head().digest


def test_it_needs_no_torch(tmp_path: Path) -> None:
    head().save(tmp_path / "p")
    code = """
import sys, numpy as np
from vitmae_search.embedding import Projection
projection = Projection.read(sys.argv[1])
projection(np.eye(6, dtype=np.float32))
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code, tmp_path / "p"], check=True)


def test_a_calibration_is_kept_in_the_file_and_changes_no_vector(tmp_path: Path) -> None:
    plain = Projection([np.eye(3)], [np.zeros(3)], "head")
    calibrated = replace(plain, calibration=ScoreCalibration(0.7, None, 500))
    assert calibrated.digest == plain.digest
    stored = plain.store(tmp_path)
    assert Projection.read(stored).calibration is None
    assert calibrated.store(tmp_path) == stored
    assert Projection.read(stored).calibration == calibrated.calibration
    plain.store(tmp_path)  # one that says nothing takes nothing away
    assert Projection.read(stored).calibration == calibrated.calibration


@pytest.mark.parametrize("same", [2.0, "high", float("nan")])
def test_a_calibration_that_is_none_is_refused(tmp_path: Path, same: float) -> None:
    odd = Projection([np.eye(3)], [np.zeros(3)], "head", calibration=ScoreCalibration(same, None, 500))
    odd.save(tmp_path / "odd.safetensors")
    with pytest.raises(CheckpointError, match="damaged"):
        Projection.read(tmp_path / "odd.safetensors")


def turning(seed: int = 0) -> Projection:
    return replace(head(), turns=np.random.default_rng(seed).normal(size=(3, 4, 4)).astype(np.float16))


def test_turns_are_saved_and_leave_the_digest_as_it_is(tmp_path: Path) -> None:
    made, path = turning(), tmp_path / "projection.safetensors"
    made.save(path)
    found = Projection.read(path)
    assert found.turns is not None
    assert made.turns is not None
    np.testing.assert_array_equal(found.turns, made.turns)
    assert not found.turns.flags.writeable
    assert found.digest == head().digest
    assert len(found.weights) == 2


def test_turned_vectors_are_guessed_by_their_maps() -> None:
    made, vectors = turning(), head()(features())
    guessed = made.guess_turned(vectors)
    assert guessed is not None
    assert made.turns is not None
    assert guessed.dtype == np.float32
    for own, weights in zip(guessed, made.turns.astype("f8"), strict=True):
        wanted = vectors.astype("f8") @ weights
        np.testing.assert_allclose(own, wanted / np.linalg.norm(wanted, axis=1, keepdims=True), atol=1e-6)
    assert head().guess_turned(vectors) is None
    assert np.isfinite(turning().guess_turned(np.zeros((1, 4), np.float32))).all()  # type: ignore[arg-type]


@pytest.mark.parametrize("turns", [np.zeros((3, 4, 5)), np.zeros((2, 4, 4)), np.full((3, 4, 4), np.nan)])
def test_turns_that_do_not_fit_are_refused(turns: NDArray[np.float64]) -> None:
    with pytest.raises(ModelError, match="turns"):
        replace(head(), turns=turns.astype(np.float16))


def test_a_stored_file_without_turns_gets_them_and_keeps_them(tmp_path: Path) -> None:
    head().store(tmp_path)
    path = turning().store(tmp_path)
    assert Projection.read(path).turns is not None
    head().store(tmp_path)
    assert Projection.read(path).turns is not None
