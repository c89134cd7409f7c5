"""Weights that another program cuts after they were read do not matter any more."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from vitmae_search.vitmae import ViTMAEConfig, ViTMAEModel


def test_a_models_parameters_do_not_depend_on_its_file(tmp_path: Path) -> None:
    config = ViTMAEConfig(
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        image_size=32,
        patch_size=8,
    )
    ViTMAEModel(config).save_pretrained(tmp_path)
    model = ViTMAEModel.from_pretrained(tmp_path)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    os.truncate(tmp_path / "model.safetensors", 0)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    files = [line for line in Path("/proc/self/maps").read_text().splitlines() if str(tmp_path) in line]
    assert files == []
