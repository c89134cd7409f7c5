"""Our model against `transformers`, on the same weights, pixels and noise, in fp32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from vitmae_search.vitmae import modeling
from vitmae_search.vitmae.checkpoint.keys import to_hub_names
from vitmae_search.vitmae.layers import interpolate_grid, patchify
from vitmae_search.vitmae.masking import take_patches

TOLERANCE = 1e-5

# Fields that differ from the small model's, and the image's height and width where they are not its own.
CONFIGURATIONS: dict[str, tuple[dict[str, Any], tuple[int, int] | None]] = {
    "plain": ({}, None),
    "four layers": ({"num_hidden_layers": 4, "decoder_num_hidden_layers": 1}, None),
    "other widths": (
        {
            "hidden_size": 48,
            "intermediate_size": 40,
            "decoder_hidden_size": 16,
            "decoder_num_attention_heads": 2,
            "decoder_intermediate_size": 24,
        },
        None,
    ),
    "one head": ({"num_attention_heads": 1, "decoder_num_attention_heads": 1}, None),
    "patches of 4": ({"patch_size": 4}, None),
    "a hundred patches, truncated": ({"image_size": 40, "patch_size": 4, "mask_ratio": 0.9}, None),
    "half masked": ({"mask_ratio": 0.5}, None),
    "norm_pix_loss": ({"norm_pix_loss": True}, None),
    "one channel": ({"num_channels": 1}, None),
    "no bias in attention": ({"qkv_bias": False}, None),
    "relu": ({"hidden_act": "relu"}, None),
    "gelu_new": ({"hidden_act": "gelu_new"}, None),
    "the authors' epsilon": ({"layer_norm_eps": 1e-6}, None),
    "dropout, evaluated": ({"hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.2}, None),
    "interpolated, flat": ({}, (24, 56)),
    "interpolated, tall": ({"mask_ratio": 0.6, "norm_pix_loss": True}, (64, 16)),
    "interpolated, as many patches": ({}, (16, 64)),
    "interpolated, larger": ({"patch_size": 4, "decoder_num_hidden_layers": 3}, (48, 40)),
}
CASES = pytest.mark.parametrize("case", CONFIGURATIONS)


def compare(ours: Any, reference: Any, pixels: Tensor, interpolate: bool) -> dict[str, float]:
    """The largest difference in each output."""
    length = (pixels.shape[2] // ours.config.patch_size) * (pixels.shape[3] // ours.config.patch_size)
    noise = torch.rand(len(pixels), length, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        mine = ours(pixels, noise, interpolate, output_hidden_states=True)
        theirs = reference(
            pixels, noise=noise, interpolate_pos_encoding=interpolate, output_hidden_states=True
        )
    assert len(mine.hidden_states) == len(theirs.hidden_states) == ours.config.num_hidden_layers + 1
    names = ("loss", "logits", "mask", "ids_restore")
    differences = {name: _distance(mine[name], theirs[name]) for name in names}
    states = zip(mine.hidden_states, theirs.hidden_states, strict=True)
    differences["hidden_states"] = max(_distance(a, b) for a, b in states)
    return differences


def _distance(a: Tensor, b: Tensor) -> float:
    assert a.shape == b.shape
    return float((a.double() - b.double()).abs().max())


@pytest.fixture
def setting(
    pair: Callable[..., tuple[Any, Any]], pixels: Callable[[int, int], Tensor]
) -> Callable[[str], tuple[Any, Any, Tensor, bool]]:
    def make(case: str) -> tuple[Any, Any, Tensor, bool]:
        fields, size = CONFIGURATIONS[case]
        ours, reference = pair(**fields)
        images = pixels(*(size or ours.config.image_shape))[:, : ours.config.num_channels]
        return ours, reference, images, size is not None

    return make


@CASES
def test_every_output_agrees(case: str, setting: Callable[[str], tuple[Any, ...]]) -> None:
    for name, difference in compare(*setting(case)).items():
        assert difference <= TOLERANCE, name


@CASES
def test_the_comparison_sees_a_dropped_mask_token(case: str, setting: Callable[..., tuple[Any, ...]]) -> None:
    ours, *rest = setting(case)
    ours.decoder.mask_token.data.zero_()
    differences = compare(ours, *rest)
    assert differences["logits"] > 100 * TOLERANCE
    assert differences["loss"] > TOLERANCE


@CASES
@pytest.mark.parametrize("where", ["encoder", "decoder"])
def test_the_comparison_sees_swapped_rows_and_columns(
    case: str, where: str, setting: Callable[..., tuple[Any, ...]]
) -> None:
    ours, *rest = setting(case)
    holder, name = {
        "encoder": (ours.vit.embeddings, "position_embeddings"),
        "decoder": (ours.decoder, "decoder_pos_embed"),
    }[where]
    setattr(holder, name, _transposed(getattr(holder, name), ours.config.grid_size))
    assert compare(ours, *rest)["logits"] > 100 * TOLERANCE


@CASES
def test_the_comparison_sees_a_loss_on_swapped_rows_and_columns(
    case: str, setting: Callable[..., tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    swapped = lambda images, patch_size: patchify(images.transpose(2, 3), patch_size)  # noqa: E731
    monkeypatch.setattr(modeling, "patchify", swapped)
    assert compare(*setting(case))["loss"] > TOLERANCE


@pytest.mark.parametrize("case", [name for name, (_, size) in CONFIGURATIONS.items() if size])
def test_the_comparison_sees_height_and_width_swapped_in_interpolation(
    case: str, setting: Callable[..., tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    swapped = lambda table, old, new: interpolate_grid(table, old, new[::-1])  # noqa: E731
    monkeypatch.setattr(modeling, "interpolate_grid", swapped)
    assert compare(*setting(case))["logits"] > 100 * TOLERANCE


def _transposed(table: Tensor, grid: tuple[int, int]) -> Tensor:
    patches = table[:, 1:].unflatten(1, grid).transpose(1, 2).flatten(1, 2)
    return torch.cat([table[:, :1], patches], dim=1)


@pytest.mark.parametrize("size", [(16, 64), (64, 16)])
def test_an_encoder_configured_with_unequal_sides(
    size: tuple[int, int], pair: Callable[..., tuple[Any, Any]], pixels: Callable[[int, int], Tensor]
) -> None:
    # The reference can make such a model only where its (wrong) square table has as many rows: 2×8 and 4×4.
    ours, reference = pair("ViTMAEModel", image_size=size)
    noise = torch.rand(2, 16)
    with torch.inference_mode():
        mine, theirs = ours(pixels(*size), noise), reference(pixels(*size), noise=noise)
    assert _distance(mine.last_hidden_state, theirs.last_hidden_state) <= TOLERANCE
    with pytest.raises(ValueError, match=f"{size[1]}×{size[0]}"):
        ours(pixels(*size[::-1]), noise)


def test_attention_weights_agree_and_change_nothing(
    pair: Callable[..., tuple[Any, Any]], pixels: Callable[[int, int], Tensor]
) -> None:
    ours, reference = pair()
    ours.set_attn_implementation("eager")
    reference.set_attn_implementation("eager")
    noise = torch.rand(2, 16)
    with torch.inference_mode():
        plain = ours(pixels(32, 32), noise)
        mine = ours(pixels(32, 32), noise, output_attentions=True)
        theirs = reference(pixels(32, 32), noise=noise, output_attentions=True)
    assert plain.attentions is None
    assert _distance(mine.logits, plain.logits) <= TOLERANCE
    assert len(mine.attentions) == len(theirs.attentions) == 2
    for a, b in zip(mine.attentions, theirs.attentions, strict=True):
        assert _distance(a, b) <= TOLERANCE


def test_drawn_noise_agrees_for_one_seed(
    pair: Callable[..., tuple[Any, Any]], pixels: Callable[[int, int], Tensor]
) -> None:
    ours, reference = pair()
    with torch.inference_mode():
        torch.manual_seed(11)
        mine = ours(pixels(32, 32))
        torch.manual_seed(11)
        theirs = reference(pixels(32, 32))
    assert _distance(mine.ids_restore, theirs.ids_restore) == 0
    assert _distance(mine.logits, theirs.logits) <= TOLERANCE


def test_nothing_masked_is_the_reference_unshuffled(
    pair: Callable[..., tuple[Any, Any]], pixels: Callable[[int, int], Tensor]
) -> None:
    ours, reference = pair(mask_ratio=0.0)
    noise = torch.rand(2, 16)
    with torch.inference_mode():
        mine, theirs = ours(pixels(32, 32), noise), reference(pixels(32, 32), noise=noise)
        tokens = ours.vit.encode(pixels(32, 32), [2])[0]
        shuffled = reference.vit(pixels(32, 32), noise=noise)
    assert mine.loss is None
    assert torch.isnan(theirs.loss)
    assert _distance(mine.logits, theirs.logits) <= TOLERANCE
    in_order = take_patches(shuffled.last_hidden_state[:, 1:], shuffled.ids_restore)
    assert _distance(tokens[:, 1:], in_order) <= TOLERANCE
    assert _distance(tokens[:, 0], shuffled.last_hidden_state[:, 0]) <= TOLERANCE
    assert mine.ids_restore.tolist() == [list(range(16))] * 2


@pytest.mark.parametrize("norm_pix_loss", [False, True])
def test_gradients_agree(
    norm_pix_loss: bool, pair: Callable[..., tuple[Any, Any]], pixels: Callable[[int, int], Tensor]
) -> None:
    ours, reference = pair(norm_pix_loss=norm_pix_loss)
    noise = torch.rand(2, 16)
    ours(pixels(32, 32), noise).loss.backward()
    reference(pixels(32, 32), noise=noise).loss.backward()
    gradients = {name: p.grad for name, p in reference.named_parameters() if p.grad is not None}
    expected, _ = to_hub_names(gradients)
    for name, parameter in ours.named_parameters():
        scale = max(1.0, float(expected[name].abs().max()))
        assert _distance(parameter.grad, expected[name]) <= TOLERANCE * scale, name
