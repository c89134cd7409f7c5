"""Looking with any ViTMAE: a folder, a file with weights, the checkpoint of a run that goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vitmae_search import Library
from vitmae_search.errors import CheckpointError, LibraryEmpty, ModelNotFound, NoDecoder
from vitmae_search.library import embedders, named_models
from vitmae_search.library.named_models import NamedModels
from vitmae_search.vitmae import ViTImageProcessor, ViTMAEConfig, ViTMAEForPreTraining, ViTMAEModel


def make_model(folder: Path, seed: int = 0, *, decoder: bool = True) -> Path:
    """A checkpoint with random weights that sees 48 × 48 pixels in 3 × 3 patches."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = ViTMAEConfig(
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            decoder_hidden_size=16,
            decoder_num_hidden_layers=1,
            decoder_num_attention_heads=2,
            decoder_intermediate_size=32,
            image_size=48,
            patch_size=16,
        )
        model = ViTMAEForPreTraining(config) if decoder else ViTMAEModel(config)
    model.save_pretrained(folder)
    ViTImageProcessor(size={"height": 48, "width": 48}).save_pretrained(folder)
    return folder


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library.open(tmp_path / "library", device="cpu")


@pytest.fixture
def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 48, 3), dtype=np.uint8))


@pytest.mark.parametrize("form", ["folder", "safetensors", "pickled"])
def test_every_view_works_with_nothing_indexed(
    library: Library, tmp_path: Path, picture: Image.Image, form: str
) -> None:
    model = make_model(tmp_path / "mine")
    if form == "pickled":
        weights = ViTMAEForPreTraining.from_pretrained(model).state_dict()
        (model / "model.safetensors").unlink()
        torch.save(weights, model / "pytorch_model.bin")
    name = str(model / {"safetensors": "model.safetensors", "pickled": "pytorch_model.bin"}.get(form, ""))
    with library:
        assert library.reconstruct(picture, model=name).mask.shape == (3, 3)
        assert library.inspect(picture, model=name).attention.shape == (2, 2, 10, 10)
        found = library.explain(picture, picture.rotate(90), model=name)
        assert found.query_shares is not None
        assert float(found.query_shares.sum()) + found.query_rest == pytest.approx(found.score, abs=1e-5)
    assert not (tmp_path / "library").exists()


def test_a_library_that_is_opened_with_a_model_explains_with_it(tmp_path: Path, picture: Image.Image) -> None:
    model = str(make_model(tmp_path / "mine"))
    with Library.open(tmp_path / "library", model=model, device="cpu") as opened:
        found = opened.explain(picture, picture.rotate(180))
        assert found.score == opened.explain(picture, picture.rotate(180), model=model).score
        with pytest.raises(LibraryEmpty):
            opened.explain(picture, picture, space=1)


def test_a_checkpoint_that_is_written_anew_is_read_anew(
    library: Library, tmp_path: Path, picture: Image.Image
) -> None:
    run = make_model(tmp_path / "run")
    with library:
        before = library.reconstruct(picture, model=str(run))
        make_model(run, seed=1)
        os.utime(run / "model.safetensors")
        after = library.reconstruct(picture, model=str(run))
        assert after.loss != before.loss
        assert library.reconstruct(picture, model=str(run)).loss == after.loss


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> Iterator[NamedModels]:
    """One stays open. Files may be as young as those of a test are."""
    monkeypatch.setattr(named_models, "KEPT", 1)
    monkeypatch.setattr(embedders, "MIN_FILE_AGE_SECONDS", 0.0)
    opened = NamedModels(embedders.Embedders([], "cpu", "fp32"))
    yield opened
    opened.close()


def test_only_the_last_models_stay_open(models: NamedModels, tmp_path: Path, picture: Image.Image) -> None:
    one, two = make_model(tmp_path / "one"), make_model(tmp_path / "two", seed=1)
    with models.opened(str(one)) as first:
        loss = first.reconstruct(picture).loss
    with models.opened(str(one)) as again:
        assert again is first
    with models.opened(str(two)) as second:
        assert second.reconstruct(picture).loss != loss
    with pytest.raises(ValueError, match="is closed"):
        first.reconstruct(picture)
    with models.opened(str(one)) as anew:
        assert anew.reconstruct(picture).loss == loss


def test_a_model_in_use_keeps_no_one_waiting_and_stays_open(
    models: NamedModels, tmp_path: Path, picture: Image.Image
) -> None:
    one, two = make_model(tmp_path / "one"), make_model(tmp_path / "two", seed=1)

    def look_with_two() -> float:
        with models.opened(str(two)) as second:
            return float(second.reconstruct(picture).loss)

    with ThreadPoolExecutor(1) as other:
        with models.opened(str(one)) as first:
            assert other.submit(look_with_two).result(timeout=60) != first.reconstruct(picture).loss
        with pytest.raises(ValueError, match="is closed"):
            first.reconstruct(picture)


def test_a_model_that_cannot_be_read_closes_no_other(models: NamedModels, tmp_path: Path) -> None:
    one, broken = make_model(tmp_path / "one"), make_model(tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"half")
    with models.opened(str(one)) as first:
        pass
    with pytest.raises(CheckpointError), models.opened(str(broken)):
        pass
    with models.opened(str(one)) as again:
        assert again is first


def test_a_checkpoint_that_is_written_while_it_is_read_is_read_again(
    models: NamedModels, tmp_path: Path, picture: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, load = make_model(tmp_path / "run"), embedders.Embedders.load

    def load_and_train(self: embedders.Embedders, plugin: str, options: Mapping[str, object]) -> object:
        opened = load(self, plugin, options)
        make_model(run, seed=1)
        return opened

    with monkeypatch.context() as training:
        training.setattr(embedders.Embedders, "load", load_and_train)
        with models.opened(str(run)) as before:
            pass
    with models.opened(str(run)) as after:
        assert after.identity != before.identity


def test_named_models_are_offloaded_as_well(library: Library, tmp_path: Path, picture: Image.Image) -> None:
    model = str(make_model(tmp_path / "mine"))
    with library:
        loss = library.reconstruct(picture, model=model).loss
        assert library.offload() == 1
        assert library.offload() == 0
        assert library.reconstruct(picture, model=model).loss == loss


def test_what_a_model_cannot_do_is_said(library: Library, tmp_path: Path, picture: Image.Image) -> None:
    encoder = make_model(tmp_path / "encoder", decoder=False)
    with library:
        assert library.inspect(picture, model=str(encoder)).grid == (3, 3)
        with pytest.raises(NoDecoder):
            library.reconstruct(picture, model=str(encoder))
        with pytest.raises(ModelNotFound):
            library.inspect(picture, model="nothing-of-this-name")


def test_explain_takes_a_model_on_the_command_line(
    tmp_path: Path, picture: Image.Image, capsys: pytest.CaptureFixture[str]
) -> None:
    from vitmae_search.cli import main

    model = make_model(tmp_path / "mine")
    picture.save(tmp_path / "a.png")
    picture.rotate(180).save(tmp_path / "b.png")
    options = ["--library", str(tmp_path / "library"), "-o", str(tmp_path / "e.png"), "--json"]
    words = ["explain", str(tmp_path / "a.png"), str(tmp_path / "b.png"), "--model", str(model), *options]
    assert main.run(words) == 0
    assert json.loads(capsys.readouterr().out)["query_grid"] == [3, 3]
    assert main.run([*words, "--space", "1"]) == 2
