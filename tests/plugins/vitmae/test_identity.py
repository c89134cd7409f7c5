"""What belongs to the identity of a ViTMAE space, and what does not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch


def test_what_decides_the_vectors_is_in_the_identity(open_model, checkpoint: Path, tmp_path: Path) -> None:
    other = tmp_path / "other-statistics"
    shutil.copytree(checkpoint, other)
    text = (other / "preprocessor_config.json").read_text()
    (other / "preprocessor_config.json").write_text(text.replace("0.485", "0.5"))
    variants = [
        *({}, {"layers": "-2"}, {"layers": "3,4"}, {"layers": "4,3"}, {"pooling": "cls"}, {"image_size": 48}),
        *({"pooling": "gem"}, {"pooling": "gem", "gem_power": 4}, {"model": str(other)}),
        *({"pooling": "moments"}, {"pooling": "cls+mean"}, {"pooling": "cls+gem"}, {"views": "flip"}),
        *({"pooling": "cls+gem", "gem_power": 4}, {"views": "five"}, {"pooling": "grid"}),
    ]
    assert len({open_model(**options).fingerprint("exact") for options in variants}) == len(variants)


def test_what_does_not_is_not(open_model, checkpoint: Path, tmp_path: Path) -> None:
    shutil.copytree(checkpoint, tmp_path / "elsewhere")
    same = [{}, {"layers": "-1"}, {"layers": "4"}, {"gem_power": 2.0}, {"image_size": 32}]
    same += [{"views": "1"}]
    same += [{"precision": "bf16"}, {"model": str(tmp_path / "elsewhere")}]
    assert len({open_model(**options).fingerprint("exact") for options in same}) == 1


EXISTING_FINGERPRINTS = [
    ({}, "8dabcc8843a43f5be493658a153707f004ce8474b4e18bed876b4eaf4a1c02e5"),
    (
        {"pooling": "cls", "layers": "-2"},
        "b998c84d96937e2ec8c0e2e01aed2d0e2c06710225ebf972f807fb460de33455",
    ),
    (
        {"pooling": "gem", "layers": "2,last", "gem_power": 4.0},
        "77e97e74443d4d1ffd315ff572bcd43cbeac07d65de2b517bc7cec54b8a31a5c",
    ),
]


@pytest.mark.parametrize(("options", "fingerprint"), EXISTING_FINGERPRINTS)
def test_spaces_that_libraries_hold_stay_valid(open_model, exact_model: Path, options, fingerprint) -> None:
    assert open_model(model=str(exact_model), **options).fingerprint("exact") == fingerprint


@pytest.fixture
def exact_model(tiny_config: dict[str, int], tmp_path: Path) -> Path:
    """A checkpoint whose every number is the same wherever it is made."""
    from vitmae_search.vitmae import ViTImageProcessor, ViTMAEConfig, ViTMAEForPreTraining

    model = ViTMAEForPreTraining(ViTMAEConfig(**tiny_config))
    with torch.no_grad():
        for i, (_, value) in enumerate(sorted(model.state_dict().items())):
            value.copy_(((torch.arange(value.numel()) * 7 + i) % 61 - 30).reshape(value.shape) / 64)
    model.save_pretrained(tmp_path / "exact")
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "exact")
    return tmp_path / "exact"


def test_one_number_of_the_weights_changes_the_identity(open_model, checkpoint: Path, tmp_path: Path) -> None:
    from vitmae_search.vitmae import ViTMAEForPreTraining

    def saved(name: str, change: str) -> str:
        model = ViTMAEForPreTraining.from_pretrained(checkpoint)
        with torch.no_grad():
            model.state_dict()[change].view(-1)[3] += 1e-3
        model.save_pretrained(tmp_path / name)
        shutil.copy(checkpoint / "preprocessor_config.json", tmp_path / name)
        return open_model(model=str(tmp_path / name)).fingerprint("exact")

    unchanged = open_model().fingerprint("exact")
    assert saved("encoder", "vit.encoder.layer.2.output.dense.weight") != unchanged
    assert saved("positions", "vit.embeddings.position_embeddings") != unchanged
    assert saved("decoder", "decoder.mask_token") == unchanged  # it takes no part in a vector


def test_the_files_that_it_was_read_from(checkpoint: Path, open_model) -> None:
    there = [checkpoint, *(checkpoint / name for name in ("config.json", "model.safetensors"))]
    assert {*map(str, there)} < {*open_model().source_files}
    assert open_model(model=str(checkpoint / "model.safetensors")).source_files == open_model().source_files
    untrained = open_model().random_init(0)
    assert untrained.source_files is None, "a seed decides its weights"


def test_in_the_hubs_cache_also_which_revision_is_meant(checkpoint: Path, open_model, tmp_path: Path) -> None:
    snapshot = tmp_path / "models--a--b" / "snapshots" / "123"
    shutil.copytree(checkpoint, snapshot)
    assert str(tmp_path / "models--a--b" / "refs" / "main") in open_model(model=str(snapshot)).source_files
