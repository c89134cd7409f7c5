"""`Library.inspect` gives what the reference computes: attention of each head, and tokens of each layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vitmae_search.inspection import attention_map, mean_attention
from vitmae_search.library import Library

transformers = pytest.importorskip("transformers")

SIZES: dict[str, dict[str, Any]] = {
    "small": {
        "hidden_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 96,
        "image_size": 32,
        "patch_size": 8,
    },
    "ViT-B/16 of two layers": {"num_hidden_layers": 2},  # 224 pixels, 768 wide, 12 heads
}
DECODER = {
    "decoder_hidden_size": 32,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 64,
}


@pytest.fixture(params=list(SIZES))
def reference(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, Path]:
    """A model of random weights, and the folder that it was saved to."""
    config = transformers.ViTMAEConfig(**SIZES[request.param], **DECODER)
    config._attn_implementation = "eager"
    model = transformers.ViTMAEForPreTraining(config).eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, value in model.named_parameters():
            value.normal_(std=0.05, generator=generator)
            if "norm" in name and name.endswith("weight"):
                value += 1
    model.save_pretrained(tmp_path / "model")
    side = config.image_size
    transformers.ViTImageProcessor(size={"height": side, "width": side}).save_pretrained(tmp_path / "model")
    return model, tmp_path / "model"


def test_attention_and_tokens_are_the_reference_s(
    reference: tuple[Any, Path], real_photos: dict[str, Path], tmp_path: Path
) -> None:
    model, folder = reference
    with (
        Image.open(real_photos["chelsea"]) as photo,
        Library.open(tmp_path / "library", model=str(folder)) as library,
    ):
        made = library.inspect(photo.convert("RGB"))
    processor = transformers.ViTImageProcessor.from_pretrained(folder)
    pixels = processor(Image.fromarray(made.picture), do_resize=False, return_tensors="pt")["pixel_values"]
    count = made.grid[0] * made.grid[1]
    model.vit.config.mask_ratio = 0.0
    noise = torch.arange(count)[None] / count  # keeps the patches' order
    with torch.no_grad():
        expected = model.vit(pixels, noise=noise, output_attentions=True, output_hidden_states=True)
    attention = torch.cat(expected.attentions).numpy()
    assert made.attention.shape == attention.shape
    assert np.abs(made.attention - attention).max() <= 1e-5
    assert np.ptp(attention[-1], axis=2).max() > 1e-3  # it is not the same everywhere
    last = mean_attention(made, layer=len(attention), head=2)
    assert attention_map(made, last, (1, 2)) == pytest.approx(
        attention[-1, 1, 1 + made.grid[1] + 2, 1:].reshape(made.grid), abs=1e-5
    )
    tokens = [*expected.hidden_states[:-1], expected.last_hidden_state]
    for ours, theirs in zip(made.tokens, tokens, strict=True):
        assert np.abs(ours - theirs[0].numpy()).max() <= 1e-4 * max(1.0, float(theirs.abs().max()))
