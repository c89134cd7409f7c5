"""The plugin's classifiers: the reference's probabilities, from the files that fine-tuning writes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vitmae_search.bundled import bundled
from vitmae_search.embedding import GuardedClassifier, load_drop_in, open_classifier
from vitmae_search.embedding.testing import check_classifier
from vitmae_search.errors import CheckpointError, ModelError, ModelNotFound

LABELS = {0: "cat", 1: "dog <b>", 2: "猫", 3: "cat"}
PLUGIN = bundled("plugins") / "vitmae"


def open_vit(model: Path | str, **options: str) -> GuardedClassifier:
    return open_classifier(
        load_drop_in(PLUGIN), str(model), **{"device": "cpu", "precision": "fp32", **options}
    )


@pytest.fixture(scope="session")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """The reference's classifier with every number random, and its own save with a preprocessor."""
    import transformers

    config = transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=48, image_size=(32, 48),
        patch_size=8, id2label=LABELS, label2id={label: n for n, label in LABELS.items()},
    )  # fmt: skip
    model = transformers.ViTForImageClassification(config)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for value in model.state_dict().values():
            value.copy_(torch.randn(value.shape, generator=generator) * 0.3)
    folder = tmp_path_factory.mktemp("models") / "tiny-classifier"
    model.save_pretrained(folder)
    transformers.ViTImageProcessorPil(size={"height": 32, "width": 48}).save_pretrained(folder)
    return model.eval(), folder


def reference_logits(model: Any, folder: Path, photos: list[Image.Image]) -> Any:
    import transformers

    processor = transformers.ViTImageProcessorPil.from_pretrained(folder)
    with torch.no_grad():
        return model(**processor(photos, return_tensors="pt"))


def test_probabilities_are_the_references(classifier, photos: list[Image.Image]) -> None:
    model, folder = classifier
    with open_vit(folder) as opened:
        assert opened.labels == tuple(LABELS.values())
        assert (opened.model, opened.input_size) == ("tiny-classifier", 48)
        batch = np.stack([opened.prepare(photo) for photo in photos])
        found = opened.classify(batch)
    expected = reference_logits(model, folder, photos).logits.softmax(dim=1).numpy()
    assert np.ptp(expected, axis=0).max() > 0.05  # photos differ
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_head_on_the_mean_of_the_patches(classifier, photos: list[Image.Image], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    model, folder = classifier
    mean = tmp_path / "mean"
    shutil.copytree(folder, mean)
    state = load_file(mean / "model.safetensors")
    renamed = {f"mean_{key}" if key.startswith("classifier.") else key: v for key, v in state.items()}
    save_file(renamed, mean / "model.safetensors")
    with open_vit(mean) as opened, open_vit(folder) as on_cls:
        found = opened.classify(np.stack([opened.prepare(photo) for photo in photos]))
        assert opened.identity != on_cls.identity
    import transformers

    processor = transformers.ViTImageProcessorPil.from_pretrained(folder)
    with torch.no_grad():
        tokens = model.vit(**processor(photos, return_tensors="pt")).last_hidden_state
        expected = model.classifier(tokens[:, 1:].mean(dim=1)).softmax(dim=1).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_it_keeps_the_contract(classifier) -> None:
    check_classifier(PLUGIN, str(classifier[1]))


def test_bf16_agrees(classifier, photos: list[Image.Image]) -> None:
    with open_vit(classifier[1]) as fp32, open_vit(classifier[1], precision="bf16") as bf16:
        batch = np.stack([fp32.prepare(photo) for photo in photos])
        np.testing.assert_allclose(bf16.classify(batch), fp32.classify(batch), atol=0.05)
        assert bf16.identity == fp32.identity


def copy_with_config(folder: Path, target: Path, **values: object) -> Path:
    shutil.copytree(folder, target)
    config = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps({**config, **values}))
    return target


def test_identity_is_of_what_decides_the_tags(classifier, tmp_path: Path) -> None:
    folder = classifier[1]
    renamed = copy_with_config(folder, tmp_path / "a", id2label={str(n): f"class {n}" for n in LABELS})
    with open_vit(folder) as one, open_vit(shutil.copytree(folder, tmp_path / "b")) as two:
        assert one.identity == two.identity
        with open_vit(renamed) as three:
            assert three.identity != one.identity


def test_a_model_without_a_head_says_what_to_do(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no classifier.*vitmae-search finetune"):
        open_vit(checkpoint)
    with pytest.raises(CheckpointError, match="vitmae-tiny-patch8-64 has no classifier"):
        open_vit("vitmae-tiny-patch8-64")
    with pytest.raises(ModelNotFound):
        open_vit(tmp_path / "nothing")


def test_classes_that_do_not_exclude_each_other_are_refused(classifier, tmp_path: Path) -> None:
    multi = copy_with_config(classifier[1], tmp_path / "multi", problem_type="multi_label_classification")
    with pytest.raises(ModelError, match="multi_label_classification"):
        open_vit(multi)


def test_a_head_on_the_normed_mean_of_the_patches(
    classifier, photos: list[Image.Image], tmp_path: Path
) -> None:
    """As in the authors' fine-tuning with `--global_pool`: fc_norm after the mean, and no final norm."""
    from safetensors.torch import load_file, save_file

    model, folder = classifier
    pooled = copy_with_config(folder, tmp_path / "pooled", global_pool="avg")
    state = load_file(pooled / "model.safetensors")
    renamed = {key.replace("vit.layernorm.", "fc_norm."): value for key, value in state.items()}
    save_file(renamed, pooled / "model.safetensors")
    with open_vit(pooled) as opened, open_vit(folder) as on_cls, open_vit(pooled, precision="bf16") as bf16:
        batch = np.stack([opened.prepare(photo) for photo in photos])
        found, in_bf16 = opened.classify(batch), bf16.classify(batch)
        assert opened.identity != on_cls.identity
    import transformers

    processor = transformers.ViTImageProcessorPil.from_pretrained(folder)
    with torch.no_grad():
        inputs = processor(photos, return_tensors="pt")
        last = model.vit(**inputs, output_hidden_states=True).hidden_states[-1]
        expected = model.classifier(model.vit.layernorm(last[:, 1:].mean(dim=1))).softmax(dim=1).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(in_bf16, expected, atol=0.05)
