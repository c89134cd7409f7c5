"""The projection file beside a checkpoint, and what "auto" means with it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from vitmae_search.bundled import bundled
from vitmae_search.embedding import Projection
from vitmae_search.embedding.testing import check_embedder
from vitmae_search.errors import CheckpointError


def projection(features: int, **fitted: str) -> Projection:
    weight = np.random.default_rng(0).normal(size=(8, features)).astype(np.float32)
    return Projection([weight], [np.zeros(8, np.float32)], "whitening", fitted)


@pytest.fixture
def folder(checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of the checkpoint."""
    return shutil.copytree(checkpoint, tmp_path / "with-projection")


def test_the_projection_beside_a_checkpoint_is_found(open_model, checkpoint: Path, folder: Path) -> None:
    assert open_model(model=str(folder)).projection is None
    path = folder / "projection.safetensors"
    projection(32).save(path)
    embedder = open_model(model=str(folder))
    assert embedder.projection == str(path)
    assert embedder.random_init(0).projection is None, "it was fitted to what the training learnt"
    assert embedder.fingerprint("exact") == open_model(model=str(checkpoint)).fingerprint("exact")
    assert open_model(model=str(folder / "model.safetensors")).projection == str(path)
    (folder / "model.safetensors").rename(folder / "mine.safetensors")
    assert open_model(model=str(folder)).identity == embedder.identity, "it is not taken for the weights"


def test_a_model_keeps_the_contract_with_its_projection(folder: Path) -> None:
    projection(96, layers="-1", pooling="cls+moments").save(folder / "projection.safetensors")
    check_embedder(bundled("plugins") / "vitmae", {"model": str(folder)})


def test_auto_are_the_features_that_the_projection_was_fitted_to(open_model, folder: Path) -> None:
    path = folder / "projection.safetensors"
    projection(128, layers="2,last", pooling="moments").save(path)
    embedder = open_model(model=str(folder))
    assert (embedder.identity["layers"], embedder.identity["pooling"]) == ([2, 4], "moments")
    assert embedder.own_projection().digest == projection(128).digest
    untrained = embedder.random_init(0)
    assert (untrained.dimension, untrained.identity["layers"]) == (128, [2, 4])
    same = open_model(model=str(folder), layers="2,-1", pooling="moments", views="flip")
    assert same.projection == str(path)
    for others in ({"pooling": "mean"}, {"layers": "2,3"}, {"layers": "4,2"}, {"layers": "3"}):
        other = open_model(model=str(folder), **others)
        assert other.projection is None, others
        assert other.identity == open_model(**others).identity, "as without a projection"


def test_without_a_word_from_the_projection_its_length_decides(open_model, folder: Path) -> None:
    projection(64).save(folder / "projection.safetensors")
    assert open_model(model=str(folder), pooling="moments").projection is not None
    plain = open_model(model=str(folder))
    assert (plain.identity["layers"], plain.identity["pooling"]) == ([4], "mean")
    assert plain.projection is None


def test_a_damaged_projection_is_reported_by_the_host(open_model, folder: Path) -> None:
    (folder / "projection.safetensors").write_bytes(b"\0" * 64)
    embedder = open_model(model=str(folder))
    assert embedder.dimension == 32, "features can be had without it"
    with pytest.raises(CheckpointError, match=r"projection\.safetensors"):
        embedder.own_projection()


def test_what_auto_means_is_kept_with_the_vectors(open_model, folder: Path, checkpoint: Path) -> None:
    plain = open_model(model=str(folder))
    assert plain.options == open_model(layers="last", pooling="mean", model=str(folder)).options
    assert plain.unresolved_options == {"layers": "auto", "pooling": "auto"}
    assert open_model(model=str(folder), layers="-1").options["layers"] == "-1", "a person's own words"
    projection(128, layers="2,last", pooling="moments").save(folder / "projection.safetensors")
    fitted = open_model(model=str(folder))
    assert (fitted.options["layers"], fitted.options["pooling"]) == ("2,last", "moments")
    again = open_model(**plain.options)
    assert (again.identity, again.projection) == (plain.identity, None), "it goes on as it was"
    (folder / "projection.safetensors").unlink()
    assert open_model(**fitted.options).identity == fitted.identity
    assert fitted.random_init(0).options == fitted.options


@pytest.mark.parametrize(
    ("fitted", "reason"),
    [
        ({"layers": "9"}, "there is no layer 9; the model has 4"),
        ({"layers": "auto"}, "layers='auto' must be"),
        ({"pooling": "max"}, "pooling='max' must be one of"),
        ({"layers": "0", "pooling": "cls"}, "the CLS token is the same for every photo"),
        ({"layers": "2,last", "pooling": "mean"}, "have dimension 64, and it takes 32"),
    ],
)
def test_a_projection_for_features_that_the_model_has_not(open_model, folder: Path, fitted, reason) -> None:
    projection(32, **fitted).save(folder / "projection.safetensors")
    with pytest.raises(CheckpointError, match=rf"projection\.safetensors was fitted to other .*{reason}"):
        open_model(model=str(folder))
    chosen = open_model(model=str(folder), layers="last", pooling="mean")
    assert chosen.projection is None, "it is not taken for one of these features"
