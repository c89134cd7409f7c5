"""What docs/reference-parity.md says of the reference, where ours differs, is so in this version."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "image_size": 32,
    "patch_size": 8,
    "decoder_hidden_size": 24,
    "decoder_num_attention_heads": 3,
    "decoder_num_hidden_layers": 1,
    "decoder_intermediate_size": 40,
}
PIXELS = torch.zeros(1, 3, 32, 32)


def fresh(**fields: Any) -> Any:
    return transformers.ViTMAEForPreTraining(transformers.ViTMAEConfig(**{**SMALL, **fields})).eval()


def test_a_new_decoder_has_zero_positions_and_mask_token(tmp_path: Any) -> None:
    model = fresh()
    assert not model.decoder.decoder_pos_embed.any()
    assert not model.decoder.mask_token.any()
    assert not model.decoder.decoder_pos_embed.requires_grad
    model.save_pretrained(tmp_path)
    loaded = transformers.ViTMAEForPreTraining.from_pretrained(tmp_path)
    assert loaded.decoder.decoder_pos_embed.requires_grad


def test_nothing_masked_is_shuffled_and_its_loss_is_nan() -> None:
    model = fresh(mask_ratio=0.0)
    outputs = [model(PIXELS) for _ in range(2)]
    assert not torch.equal(outputs[0].ids_restore, outputs[1].ids_restore)
    assert torch.isnan(outputs[0].loss)


def test_values_out_of_range_are_accepted() -> None:
    assert fresh(mask_ratio=1.5)(PIXELS).mask.mean() == 0.5
    assert torch.isnan(fresh(layer_norm_eps=-1e-12)(PIXELS).logits).all()


@pytest.mark.parametrize("activation", ["selu", torch.tanh])
def test_activations_that_are_documented_and_missing(activation: Any) -> None:
    with pytest.raises(Exception, match=r"selu|hidden_act|tanh"):
        fresh(hidden_act=activation)


def test_attention_weights_of_sdpa_are_an_empty_tuple() -> None:
    assert fresh()(PIXELS, output_attentions=True).attentions == ()


def test_return_dict_in_the_configuration_breaks_the_decoder() -> None:
    with pytest.raises(AttributeError, match="last_hidden_state"):
        fresh(return_dict=False)(PIXELS)


def test_other_modes_raise_and_unit_floats_are_divided_again() -> None:
    processor = transformers.ViTImageProcessorPil()
    for mode in ("L", "RGBA"):
        with pytest.raises((ValueError, IndexError)):
            processor(Image.new(mode, (40, 30)), return_tensors="np")
    almost_white = np.full((30, 40, 3), 0.9, dtype=np.float32)
    assert processor(almost_white, return_tensors="np")["pixel_values"].max() < -0.98


def test_the_problem_type_is_guessed_into_the_configuration() -> None:
    fields = {name: value for name, value in SMALL.items() if not name.startswith("decoder_")}
    model = transformers.ViTForImageClassification(transformers.ViTConfig(**fields))
    model(PIXELS, labels=torch.tensor([1]))
    assert model.config.problem_type == "single_label_classification"


def test_weights_keep_the_files_dtype(tmp_path: Any) -> None:
    fresh().half().save_pretrained(tmp_path)
    assert transformers.ViTMAEForPreTraining.from_pretrained(tmp_path).dtype == torch.float16
