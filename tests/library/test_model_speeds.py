"""The speeds of models: measured on demand, stored by model and machine, never an obstacle."""

from __future__ import annotations

import logging
import platform
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vitmae_search.bundled import bundled
from vitmae_search.embedding import GuardedEmbedder, load_drop_in, open_embedder
from vitmae_search.library import Library
from vitmae_search.library.model_speeds import SPEEDS_NAME, measure_speed, store_speed, with_speeds
from vitmae_search.records import ModelListing
from vitmae_search.settings import settings
from vitmae_search.training_runs import remember_run

LISTING = ModelListing("small", "bundled", "/models/small", 32, 32, 1000, 4000, plugin="vitmae")


def test_a_speed_is_stored_by_model_and_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    assert with_speeds([LISTING]) == [LISTING]
    store_speed(LISTING, 12.5, "cpu, fp32")
    store_speed(replace(LISTING, path="/models/other"), 99.0, "cuda, bf16")
    known = with_speeds([LISTING])[0]
    assert (known.images_per_second, known.measured_on) == (12.5, "cpu, fp32")
    assert replace(known, images_per_second=None, measured_on="") == LISTING
    store_speed(LISTING, 13.0, "cpu, bf16")
    assert with_speeds([LISTING])[0].images_per_second == 13.0
    for another in ({"bytes": 4001}, {"image_size": 64}, {"plugin": "mine"}, {"path": "/elsewhere"}):
        assert with_speeds([replace(LISTING, **another)])[0].images_per_second is None, another
    monkeypatch.setattr(platform, "node", lambda: "another-machine")
    assert with_speeds([LISTING]) == [LISTING]


@pytest.mark.parametrize("damage", [b"", b"{", b"[1]", b"\xff"])
def test_a_damaged_speed_file_is_ignored_and_replaced(damage: bytes) -> None:
    path = settings().cache / SPEEDS_NAME
    path.parent.mkdir(parents=True)
    path.write_bytes(damage)
    assert with_speeds([LISTING]) == [LISTING]
    store_speed(LISTING, 3.0, "cpu")
    assert with_speeds([LISTING])[0].images_per_second == 3.0
    path.write_text(path.read_text().replace("3.0", '"soon"'))
    assert with_speeds([LISTING]) == [LISTING]


def test_a_speed_that_cannot_be_stored_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    settings().cache.write_text("a file where the folder should be")
    with caplog.at_level(logging.WARNING):
        store_speed(LISTING, 3.0, "cpu")
    assert "the speed of small is not kept" in caplog.text
    assert with_speeds([LISTING]) == [LISTING]


def test_the_median_of_warm_batches_counts(
    embedder: GuardedEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, batches = [0.0], []

    def embed(batch: np.ndarray) -> np.ndarray:
        batches.append(len(batch))
        cold = len(batches) == 1
        slip = len(batches) == 12  # one hiccup of the machine
        clock[0] += len(batch) / 32 + 9 * cold + 5 * slip
        return np.ones((len(batch), 1), np.float32)

    monkeypatch.setattr(embedder, "embed", embed)
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    rate, place = measure_speed(embedder)
    assert rate == pytest.approx(32)
    assert place == "cpu, fp32"
    assert batches[:2] == [1, 1]
    assert set(batches[2:]) == {8}, "as many as a quarter of a second allows"


@pytest.fixture
def embedder(small_model: Path) -> Iterator[GuardedEmbedder]:
    plugin = load_drop_in(bundled("plugins") / "vitmae")
    with open_embedder(plugin, {"model": str(small_model)}, "cpu", "fp32") as opened:
        yield opened


@pytest.fixture
def small_model(tmp_path: Path) -> Path:
    from vitmae_search.vitmae import ViTMAEConfig, ViTMAEForPreTraining

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    decoder = {"decoder_hidden_size": 16, "decoder_num_attention_heads": 2, "decoder_num_hidden_layers": 1}
    config = ViTMAEConfig(**sizes, **decoder, decoder_intermediate_size=16, image_size=16, patch_size=8)
    ViTMAEForPreTraining(config).save_pretrained(tmp_path / "run")
    return tmp_path / "run"


def test_models_on_this_machine_are_measured(
    small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vitmae_search.library.model_speeds._BATCH_SECONDS", 0.01)
    broken = shutil.copytree(small_model, tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"\0" * 100)
    remember_run(small_model)
    remember_run(broken)
    told: list[str] = []
    with Library.open(tmp_path / "library", device="cpu", precision="bf16") as library:
        measured = {model.name: model for model in library.measure_models(told.append)}
    assert {str(small_model), str(broken)} <= set(told)
    assert "facebook/vit-mae-base" not in told, "it is not on this machine"
    small = measured[str(small_model)]
    assert small.images_per_second is not None
    assert small.images_per_second > 0
    assert small.measured_on == "cpu, bf16"
    assert measured[str(broken)].images_per_second is None
    assert "model.safetensors" in measured[str(broken)].note
    with Library.open(tmp_path / "library") as library:
        assert small in library.models()
    assert not (tmp_path / "library").exists(), "a list makes no library"
