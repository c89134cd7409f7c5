"""A model that comes with a projection: new libraries use it, existing ones stay as they are."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitmae_search.catalog import Catalog
from vitmae_search.embedding import Projection
from vitmae_search.errors import CheckpointError, SpaceError
from vitmae_search.library import Library
from vitmae_search.photos import decode, decode_target
from vitmae_search.records import ScoreCalibration, Space

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
DECODER = {
    "decoder_hidden_size": 16,
    "decoder_num_attention_heads": 2,
    "decoder_num_hidden_layers": 1,
    "decoder_intermediate_size": 16,
}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model", 0)


def write_model(folder: Path, seed: int, layers: int = 2) -> Path:
    import torch

    from vitmae_search.vitmae import ViTMAEConfig, ViTMAEForPreTraining

    torch.manual_seed(seed)
    sizes = {**SMALL, **DECODER, "num_hidden_layers": layers}
    made = ViTMAEForPreTraining(ViTMAEConfig(**sizes, image_size=16, patch_size=8))
    made.save_pretrained(folder)
    return folder


@pytest.fixture
def unknown(real_photos: dict[str, Path]) -> Image.Image:
    with Image.open(real_photos["coffee"]) as image:
        return image.convert("RGB")


def give_projection(model: Path, **said: str) -> Projection:
    """One fitted to both layers' mean and deviation, beside the model."""
    weight = np.random.default_rng(0).normal(size=(5, 64))
    provenance = {"layers": "1,2", "pooling": "moments", **said}
    made = Projection([weight], [np.zeros(5)], "whitening", provenance)
    made.save(model / "projection.safetensors")
    return made


def assert_goes_on(folder: Path, photos: Path, unknown: Image.Image, space: Space) -> None:
    with Library.open(folder, device="cpu") as library:
        assert library.search(unknown).space.space_id == space.space_id
        report = library.index(photos)
        assert (report.space, report.added) == (space.space_id, 0)
        assert library.search(photos / "odd" / "1.jpg").hits[0].photo.path == str(photos / "odd" / "1.jpg")
        assert library.reconstruct(unknown).mask.any()
        assert library.check().ok
        [current] = [one for one in library.spaces() if one.current]
        assert (current.space_id, current.fingerprint) == (space.space_id, space.fingerprint)


@pytest.mark.parametrize("words", [{}, {"layers": "last", "pooling": "mean"}], ids=["auto", "spelled out"])
def test_a_library_goes_on_with_the_features_that_it_has(
    tmp_path: Path, photos: Path, model: Path, unknown: Image.Image, words: dict[str, str]
) -> None:
    folder = tmp_path / "library"
    with Library.open(folder, model=str(model), options=words, device="cpu") as library:
        library.index(photos)
        [features] = library.spaces()
    made = give_projection(model)
    assert_goes_on(folder, photos, unknown, features)
    with Library.open(folder, model=str(model), device="cpu") as library:  # a person wants what is new
        report = library.index(photos)
        assert (report.added, library.search(unknown).space.projection) == (12, made.digest)
    assert_goes_on(folder, photos, unknown, features)


def test_a_library_goes_on_without_the_file_that_its_features_were_chosen_by(
    tmp_path: Path, photos: Path, model: Path, unknown: Image.Image
) -> None:
    made, folder = give_projection(model), tmp_path / "library"
    with Library.open(folder, model=str(model), device="cpu") as library:
        library.index(photos)
        features, derived = library.spaces()
    assert (features.dimension, derived.dimension, derived.projection) == (64, 5, made.digest)
    file = model / "projection.safetensors"
    changes: list[Callable[[], object]] = [
        lambda: give_projection(model, layers="2"),
        lambda: file.write_bytes(b"damaged"),
        file.unlink,
    ]
    for change in changes:
        change()
        assert_goes_on(folder, photos, unknown, derived)


def test_a_library_of_the_models_former_weights_is_told_what_to_do_and_that_works(
    tmp_path: Path, photos: Path, model: Path, unknown: Image.Image
) -> None:
    give_projection(model)
    folder, known = tmp_path / "library", photos / "odd" / "1.jpg"
    with Library.open(folder, model=str(model), device="cpu") as library:
        library.index(photos)
        before = library.search(unknown).space
    write_model(model, seed=1)  # as a new version of this package does to the bundled model
    with Library.open(folder, device="cpu") as library:
        assert library.search(known).space == before, "stored vectors go on being searched"
        with pytest.raises(SpaceError) as told:
            library.search(unknown)
        assert str(told.value).endswith("index again to make a new space, then `spaces use` it")
        report = library.index(photos)
        assert (report.added, report.space) != (0, before.space_id)
        assert library.search(known).space == before, "nothing changes until the person says so"
        library.use_space(report.space)
        assert library.search(unknown).space.space_id == report.space
        assert library.search(known).hits[0].photo.path == str(known)


@pytest.mark.parametrize("words", [{}, {"pooling": "cls"}], ids=["auto", "chosen"])
def test_a_changed_model_resolves_its_options_anew(
    tmp_path: Path, photos: Path, model: Path, unknown: Image.Image, words: dict[str, str]
) -> None:
    give_projection(model)
    folder = tmp_path / "library"
    with Library.open(folder, model=str(model), options=words, device="cpu") as library:
        library.index(photos)
        before = library.spaces()[0]
    write_model(model, seed=1, layers=1)
    give_projection(model, layers="0,1")
    with Library.open(folder, device="cpu") as library:
        report = library.index(photos)
        assert report.added == 12
        searched = next(space for space in library.spaces() if space.space_id == report.space)
        features = next(space for space in library.spaces() if space.space_id == searched.features_id)
        if words:
            assert (features.options["pooling"], searched.projection) == ("cls", None)
        else:
            assert (features.options["layers"], searched.kind) == ("0,1", "whitening")
        assert features.fingerprint != before.fingerprint
        library.use_space(searched.space_id)
    assert_goes_on(folder, photos, unknown, searched)


def test_unresolved_options_are_read_under_their_earlier_name(
    tmp_path: Path, photos: Path, model: Path
) -> None:
    give_projection(model)
    folder = tmp_path / "library"
    with Library.open(folder, model=str(model), device="cpu") as library:
        library.index(photos)
    with closing(sqlite3.connect(folder / "catalogue.sqlite3")) as catalogue, catalogue:
        rename = "UPDATE spaces SET provenance = replace(provenance, 'unresolved_options', 'left_options')"
        catalogue.execute(rename)
        kept = catalogue.execute("SELECT provenance FROM spaces WHERE parent_id IS NULL").fetchone()[0]
    assert json.loads(kept)["left_options"] == {"layers": "auto", "pooling": "auto"}
    write_model(model, seed=1, layers=1)
    give_projection(model, layers="0,1")
    with Library.open(folder, device="cpu") as library:
        searched = library.index(photos).space
        [features] = [one for one in library.spaces() if one.options["layers"] == "0,1" and not one.parent_id]
        assert searched in {one.space_id for one in library.spaces() if one.parent_id == features.space_id}


def test_an_error_names_the_file_of_a_projection_that_does_not_fit(
    tmp_path: Path, photos: Path, model: Path
) -> None:
    give_projection(model, layers="9")
    with Library.open(tmp_path / "library", model=str(model), device="cpu") as library:
        with pytest.raises(CheckpointError, match=r"projection\.safetensors was fitted to other features"):
            library.index(photos)
        assert library.spaces() == []


def test_the_vectors_that_are_searched_are_the_projection_of_each_photos_own_features(
    tmp_path: Path, photos: Path, model: Path
) -> None:
    made = give_projection(model)
    with Library.open(tmp_path / "library", model=str(model), device="cpu") as library:
        library.index(photos)
        features, derived = library.spaces()
        embedder = library._embedders.for_space(features)
        shrink_to = decode_target(features.decode, embedder.input_size)
        with Catalog.open(library.folder) as catalog:
            assert derived.vectors == len(catalog.photos()) == 12
            for photo in catalog.photos():
                image = decode(Path(photo.path).read_bytes(), shrink_to=shrink_to).image
                due = made(embedder.embed(embedder.prepare(image)[None]))[0]
                np.testing.assert_allclose(catalog.vector(derived.space_id, photo.content_id), due, atol=1e-4)


def test_a_library_takes_over_what_scores_mean_when_its_model_says_so(
    model: Path, photos: Path, tmp_path: Path
) -> None:
    plain = give_projection(model)
    with Library.open(tmp_path / "own-library", model=str(model)) as library:
        library.index(photos)
        assert library.spaces()[-1].calibration is None
    calibration = ScoreCalibration(0.8, 0.3, 500)
    replace(plain, calibration=calibration).save(model / "projection.safetensors")
    with Library.open(tmp_path / "own-library") as library:
        assert library.derive_space(None).calibration == calibration
        assert [space.current for space in library.spaces()] == [False, True]
        stored = Projection.read_stored(tmp_path / "own-library" / "projections", plain.digest)
    assert stored.calibration == calibration
    with Library.open(tmp_path / "new-library", model=str(model)) as library:
        library.index(photos)
        assert library.spaces()[-1].calibration == calibration
