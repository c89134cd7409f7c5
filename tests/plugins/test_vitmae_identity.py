"""What belongs to the identity of a ViTMAE space, and what does not."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch


def test_what_decides_the_vectors_is_in_the_identity(open_model, checkpoint: Path, tmp_path: Path) -> None:
    other = tmp_path / "other-statistics"
    shutil.copytree(checkpoint, other)
    text = (other / "preprocessor_config.json").read_text()
    (other / "preprocessor_config.json").write_text(text.replace("0.485", "0.5"))
    variants = [
        *({}, {"layers": "-2"}, {"layers": "3,4"}, {"layers": "4,3"}, {"pooling": "cls"}, {"image_size": 48}),
        *({"pooling": "gem"}, {"pooling": "gem", "gem_power": 4}, {"model": str(other)}),
    ]
    assert len({open_model(**options).fingerprint("exact") for options in variants}) == len(variants)


def test_what_does_not_is_not(open_model, checkpoint: Path, tmp_path: Path) -> None:
    shutil.copytree(checkpoint, tmp_path / "elsewhere")
    same = [{}, {"layers": "-1"}, {"layers": "4"}, {"gem_power": 2.0}, {"image_size": 32}]
    same += [{"precision": "bf16"}, {"model": str(tmp_path / "elsewhere")}]
    assert len({open_model(**options).fingerprint("exact") for options in same}) == 1


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
