"""Models of the hub: vectors, pixels and words are those of `transformers`, and mistakes are sentences."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.nn import functional

from tests.helpers import hub_models
from vitmae_search.bundled import bundled
from vitmae_search.embedding import GuardedEmbedder, load_drop_in, open_embedder
from vitmae_search.embedding.testing import CHECKS, PluginUnderTest
from vitmae_search.embedding.testing.images import odd_images, sample_images
from vitmae_search.errors import CheckpointError, DeviceError, ModelError, NoText, PluginOptionError
from vitmae_search.library import Library

PLUGIN = bundled("plugins") / "hub_vision"
SAVE = {
    "clip": hub_models.save_clip,
    "siglip": hub_models.save_siglip,
    "dinov2": hub_models.save_dinov2,
    "vit": hub_models.save_vit_classifier,
}
IMAGES = sample_images()

Open = Callable[..., GuardedEmbedder]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Any]]:
    """The folder of each model, and the model that it was saved from."""
    folder = tmp_path_factory.mktemp("hub-models")
    return {name: (folder / name, save(folder / name)) for name, save in SAVE.items()}


@pytest.fixture
def open_hub() -> Iterator[Open]:
    opened: list[GuardedEmbedder] = []

    def make(
        model: Path | str, device: str = "cpu", precision: str = "auto", **options: str
    ) -> GuardedEmbedder:
        given = {"model": str(model), **options}
        opened.append(open_embedder(load_drop_in(PLUGIN), given, device, precision))
        return opened[-1]

    yield make
    for embedder in opened:
        embedder.close()


def image_processor(folder: Path) -> Any:
    import transformers

    return transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")


def vectors(embedder: GuardedEmbedder) -> np.ndarray:
    return embedder.embed(np.stack([embedder.prepare(image) for image in IMAGES]))


def unit(rows: Any) -> np.ndarray:
    return functional.normalize(getattr(rows, "pooler_output", rows), dim=-1).numpy()


def reference_vectors(name: str, model: Any, pixels: torch.Tensor) -> np.ndarray:
    with torch.inference_mode():
        if name in ("clip", "siglip"):
            return unit(model.get_image_features(pixel_values=pixels))
        if name == "dinov2":
            return unit(model(pixels).pooler_output)
        return unit(model.vit(pixels).last_hidden_state[:, 0])


@pytest.mark.parametrize("name", SAVE)
def test_photos_have_the_vectors_of_transformers(models, open_hub: Open, name: str) -> None:
    folder, model = models[name]
    pixels = image_processor(folder)(images=IMAGES, return_tensors="pt")["pixel_values"]
    expected = reference_vectors(name, model, pixels)
    found = vectors(open_hub(folder))
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 1e-5


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_words_have_the_vectors_of_transformers(models, open_hub: Open, name: str) -> None:
    from transformers import AutoTokenizer

    folder, model = models[name]
    embedder, tokenizer = open_hub(folder), AutoTokenizer.from_pretrained(folder)
    assert embedder.knows_words
    for text in ("a red bicycle", "Two CATS on a beach, at night!", "é 猫 🚲", "many words " * 40):
        padding = "max_length" if name == "siglip" else True
        length = model.config.text_config.max_position_embeddings
        tokens = tokenizer([text], padding=padding, truncation=True, max_length=length, return_tensors="pt")
        with torch.inference_mode():
            expected = unit(model.get_text_features(**tokens))[0]
        assert np.abs(embedder.embed_text(text) - expected).max() < 1e-5


@pytest.mark.parametrize("name", SAVE)
def test_photos_of_any_shape_are_prepared_as_by_transformers(models, open_hub: Open, name: str) -> None:
    folder, _ = models[name]
    processor, prepare = image_processor(folder), open_hub(folder).prepare
    for image in [*IMAGES, *odd_images()]:
        if max(image.size) > 16 * min(image.size):
            continue  # only their middle is resized
        pixels = processor(images=image, return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)
        found = (prepare(image) / 255 - processor.image_mean) / processor.image_std
        assert np.abs(found - pixels).max() < 1e-5, image.size


def test_a_very_long_photo_needs_little_memory(models, open_hub: Open) -> None:
    prepared = open_hub(models["clip"][0]).prepare(Image.new("RGB", (60_000, 2), "red"))
    assert prepared.shape == (32, 32, 3)
    assert (prepared == (255, 0, 0)).all()


@pytest.mark.parametrize("name", SAVE)
def test_patches_are_the_states_of_transformers_over_the_whole_photo(
    models, open_hub: Open, name: str
) -> None:
    folder, model = models[name]
    side = hub_models.SIDE if name == "dinov2" else 12 * 8  # DINOv2 has no switch for larger photos
    processor = image_processor(folder)
    values = processor(
        images=[image.resize((side, side), Image.Resampling(processor.resample)) for image in IMAGES],
        do_resize=False,
        do_center_crop=False,
        return_tensors="pt",
    )["pixel_values"]
    tower = getattr(model, "vision_model", getattr(model, "vit", model))
    more = {} if name == "dinov2" else {"interpolate_pos_encoding": True}
    with torch.inference_mode():
        states = tower(pixel_values=values, **more).last_hidden_state
    patches = states[:, -((side // 8) ** 2) :]
    found = open_hub(folder).patch_tokens(IMAGES)
    assert found.shape == (len(IMAGES), side // 8, side // 8, 32)
    assert np.abs(found.reshape(patches.shape) - patches.numpy()).max() < 1e-4


def test_registers_are_no_patches(open_hub: Open, tmp_path: Path) -> None:
    hub_models.save_dinov2_with_registers(tmp_path)
    assert open_hub(tmp_path).patch_tokens(IMAGES[:1]).shape == (1, 4, 4, 32)


def test_a_part_of_a_photo_is_searched_for_by_patches(models, tmp_path: Path) -> None:
    for number, image in enumerate(IMAGES):
        image.save(tmp_path / f"{number}.png")
    with Library.open(tmp_path / "library", model=f"hub:{models['clip'][0]}", device="cpu") as library:
        library.index(tmp_path)
        found = library.search_region(tmp_path / "0.png", (0.25, 0.25, 0.5, 0.5))
    assert found.region is not None
    assert found.region.by_patches
    assert found.hits
    assert all(hit.box is not None for hit in found.hits)


def test_the_contract(models) -> None:
    with PluginUnderTest(PLUGIN, {"model": str(models["clip"][0])}) as subject:
        for check in CHECKS:
            check(subject)


def test_neither_tokenizer_nor_text_tower_is_in_the_identity(models, open_hub: Open, tmp_path: Path) -> None:
    folder, model = models["clip"]
    other = shutil.copytree(folder, tmp_path / "other")
    (other / "tokenizer.json").unlink()
    weights = {
        name: value + 1 if name.startswith("text_model.") else value
        for name, value in model.state_dict().items()
    }
    save_file(weights, other / "model.safetensors")
    assert open_hub(other).identity == open_hub(folder).identity
    weights = {
        name: value + 1 if name == "visual_projection.weight" else value for name, value in weights.items()
    }
    save_file(weights, other / "model.safetensors")
    assert open_hub(other).identity != open_hub(folder).identity


@pytest.mark.parametrize("name", ["dinov2", "vit"])
def test_a_model_of_pictures_alone_says_so(models, open_hub: Open, name: str) -> None:
    embedder = open_hub(models[name][0])
    assert not embedder.knows_words
    with pytest.raises(NoText, match=f"{name} does not know words"):
        embedder.embed_text("a red bicycle")


def test_poolings(models, open_hub: Open) -> None:
    folder, model = models["dinov2"]
    pixels = image_processor(folder)(images=IMAGES, return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        states = model(pixels).last_hidden_state
    assert np.abs(vectors(open_hub(folder, pooling="mean")) - unit(states.mean(dim=1))).max() < 1e-5
    assert np.abs(vectors(open_hub(folder, pooling="cls")) - unit(states[:, 0])).max() < 1e-5
    identities = [
        open_hub(folder, pooling=pooling).identity["pooling"] for pooling in ("auto", "cls", "mean")
    ]
    assert identities == ["pooler", "cls", "mean"]


def test_a_vit_without_a_pooler_does_not_get_a_random_one(models, open_hub: Open) -> None:
    embedder = open_hub(models["vit"][0])
    assert embedder.identity["pooling"] == "cls"
    with pytest.raises(PluginOptionError, match="no weights for a pooler"):
        open_hub(models["vit"][0], pooling="pooler")


def test_mistakes_are_sentences(models, open_hub: Open, tmp_path: Path) -> None:
    clip = models["clip"][0]
    with pytest.raises(PluginOptionError, match="pooling='max' must be one of auto, pooler"):
        open_hub(clip, pooling="max")
    with pytest.raises(PluginOptionError, match="text tower"):
        open_hub(clip, pooling="mean")
    with pytest.raises(DeviceError, match="fp32, not in bf16"):
        open_hub(clip, precision="bf16")
    with pytest.raises(ModelError, match="no folder, and a hub id looks like"):
        open_hub("clip-of-mine")
    with pytest.raises(PluginOptionError, match="is a ViTMAE"):
        open_hub(bundled("data") / "models" / "vitmae-tiny-patch8-64")


def damaged(models: Any, tmp_path: Path, **config: Any) -> Path:
    """A copy of the CLIP with other fields in its configuration."""
    folder = shutil.copytree(models["clip"][0], tmp_path / "damaged")
    found = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**found, **config}))
    return folder


def test_a_kind_of_model_that_transformers_does_not_know(models, open_hub: Open, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="transformers cannot open damaged"):
        open_hub(damaged(models, tmp_path, model_type="clip-9"))


def add_code(folder: Path, file: str, auto_map: dict[str, Any]) -> Path:
    """Let a model's file name classes of code in its folder. Returns the file that the code would write."""
    marker = folder / "ran"
    (folder / "code.py").write_text(f"open({os.fspath(marker)!r}, 'w').close()")
    (folder / file).write_text(json.dumps({**json.loads((folder / file).read_text()), "auto_map": auto_map}))
    return marker


def drop_fields(file: Path, *fields: str) -> None:
    found = json.loads(file.read_text())
    file.write_text(json.dumps({name: value for name, value in found.items() if name not in fields}))


def with_config_code(models: Any, tmp_path: Path) -> Path:
    folder = damaged(models, tmp_path, model_type="clip-9")
    return add_code(folder, "config.json", {"AutoConfig": "code.Config"})


def with_model_code(models: Any, tmp_path: Path) -> Path:
    """Of a kind that `transformers` has a configuration for, but no model."""
    folder = damaged(models, tmp_path, model_type="clipseg_vision_model")
    return add_code(folder, "config.json", {"AutoModel": "code.Model"})


def with_processor_code(models: Any, tmp_path: Path) -> Path:
    """Of a kind that `transformers` has no image processor for."""
    folder = tmp_path / "registers"
    hub_models.save_dinov2_with_registers(folder)
    drop_fields(folder / "preprocessor_config.json", "image_processor_type")
    return add_code(folder, "preprocessor_config.json", {"AutoImageProcessor": "code.Processor"})


def with_tokenizer_code(models: Any, tmp_path: Path) -> Path:
    """Of a kind that `transformers` has no tokenizer for."""
    folder = shutil.copytree(models["clip"][0], tmp_path / "altclip")
    hub_models.save_altclip(folder)
    drop_fields(folder / "tokenizer_config.json", "tokenizer_class")
    return add_code(folder, "tokenizer_config.json", {"AutoTokenizer": ["code.Tokenizer", None]})


@pytest.mark.parametrize(
    "with_code", [with_config_code, with_model_code, with_processor_code, with_tokenizer_code]
)
def test_code_of_a_model_does_not_run_even_for_who_would_answer_yes(
    models, open_hub: Open, tmp_path: Path, monkeypatch, with_code: Callable[[Any, Path], Path]
) -> None:
    marker = with_code(models, tmp_path)
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 9))
    with pytest.raises(ModelError, match="contains custom code"):
        open_hub(marker.parent).embed_text("a red bicycle")
    assert not marker.exists()


def test_weights_of_another_shape(models, open_hub: Open, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="damaged"):
        open_hub(damaged(models, tmp_path, projection_dim=24))


def test_missing_files_are_named(models, open_hub: Open, tmp_path: Path) -> None:
    folder = shutil.copytree(models["clip"][0], tmp_path / "clip")
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt"):
        (folder / name).unlink()
    embedder = open_hub(folder)
    with pytest.raises(ModelError, match="has no tokenizer; put all files of the model into its folder"):
        embedder.embed_text("a red bicycle")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(ModelError, match="has no preprocessor_config"):
        open_hub(folder)


def test_a_processor_that_does_more_is_refused(models, open_hub: Open, tmp_path: Path) -> None:
    folder = shutil.copytree(models["vit"][0], tmp_path / "flipped")
    settings = {
        "do_flip_channel_order": True,
        "image_processor_type": "MobileViTImageProcessor",
        "size": {"shortest_edge": 32},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    with pytest.raises(ModelError, match="MobileViTImageProcessor"):
        open_hub(folder)


def test_a_model_of_texts_alone_is_refused(models, open_hub: Open, tmp_path: Path) -> None:
    import transformers

    text = models["clip"][1].text_model
    folder = shutil.copytree(models["clip"][0], tmp_path / "texts")
    transformers.CLIPTextModel._from_config(text.config).save_pretrained(folder)
    with pytest.raises(ModelError, match="does not look at photos"):
        open_hub(folder)


def test_a_model_in_the_hub_s_cache_needs_no_network(
    models, open_hub: Open, tmp_path: Path, monkeypatch
) -> None:
    from huggingface_hub import constants

    model = tmp_path / "models--someone--clip"
    snapshot = shutil.copytree(models["clip"][0], model / "snapshots" / ("5" * 40))
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text("5" * 40)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", os.fspath(tmp_path))
    embedder = open_hub("hub:someone/clip")
    assert embedder.model == "someone/clip"
    assert os.fspath(model / "refs" / "main") in (embedder.source_files or ())
    assert embedder.embed_text("a red bicycle").shape == (16,)
    names = {listing.name: listing for listing in load_drop_in(PLUGIN).models()}
    assert names["hub:someone/clip"].path == os.fspath(snapshot)
    assert "words" in names["hub:someone/clip"].note
    assert names["hub:facebook/dinov2-base"].source == "hub"


def test_without_transformers_the_extra_is_named(models, open_hub: Open, monkeypatch) -> None:
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ModelError, match=r"needs the package transformers: pip install 'vitmae-search\[hub\]'"
    ):
        open_hub(models["clip"][0])
