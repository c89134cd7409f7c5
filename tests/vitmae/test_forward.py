"""Every argument and output of `forward`, and its errors, against the reference's."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from vitmae_search.errors import ConfigError
from vitmae_search.vitmae import ViTMAEConfig, ViTMAEForPreTraining, ViTMAEModel
from vitmae_search.vitmae.checkpoint.keys import to_hub_names

TOLERANCE = 1e-5
CLASSES = pytest.mark.parametrize("name", ["ViTMAEModel", "ViTMAEForPreTraining"])

Pair = Callable[..., tuple[Any, Any]]
Pixels = Callable[[int, int], Tensor]
Models = Callable[..., ViTMAEForPreTraining]


def distance(a: Any, b: Any) -> float:
    if isinstance(a, tuple):
        assert len(a) == len(b)
        return max(distance(x, y) for x, y in zip(a, b, strict=True))
    assert a.shape == b.shape
    return float((a.double() - b.double()).detach().abs().max())


def both(ours: Any, reference: Any, pixels: Tensor, **arguments: Any) -> tuple[Any, Any]:
    """The outputs of both models, for the same noise."""
    noise = torch.rand(len(pixels), 18, generator=torch.Generator().manual_seed(5))
    with torch.inference_mode():
        mine = ours(pixels, noise=noise, interpolate_pos_encoding=True, **arguments)
        return mine, reference(pixels, noise=noise, interpolate_pos_encoding=True, **arguments)


@pytest.fixture
def flat(pixels: Pixels) -> Tensor:
    return pixels(24, 48)


@CLASSES
@pytest.mark.parametrize("states", [False, True])
@pytest.mark.parametrize("attentions", [False, True])
@pytest.mark.parametrize("how", ["arguments", "configuration"])
def test_the_tuple_has_the_reference_order(
    name: str, states: bool, attentions: bool, how: str, pair: Pair, flat: Tensor
) -> None:
    ours, reference = pair(name)
    reference.set_attn_implementation("eager")
    ours.set_attn_implementation("eager")
    options: dict[str, Any] = {"output_hidden_states": states, "output_attentions": attentions}
    mine, theirs = both(ours, reference, flat, **options, return_dict=False)
    if how == "configuration":  # where return_dict breaks the reference's own decoder
        for field, value in {**options, "return_dict": False}.items():
            setattr(ours.config, field, value)
        noise = torch.rand(len(flat), 18, generator=torch.Generator().manual_seed(5))
        with torch.inference_mode():
            mine = ours(flat, noise, True)
    assert isinstance(mine, tuple)
    assert len(mine) == len(theirs) == (3 if name == "ViTMAEModel" else 4) + states + attentions
    for a, b in zip(mine, theirs, strict=True):
        assert distance(a, b) <= TOLERANCE
    named, their_named = both(ours, reference, flat, **options, return_dict=True)
    assert tuple(named.keys()) == tuple(their_named.keys())
    assert list(named) == list(their_named)
    assert all(distance(value, named[key]) == 0 for key, value in named.items())
    assert distance(named.to_tuple(), mine) == 0


def test_outputs_are_read_as_a_dict(random_model: Models, flat: Tensor) -> None:
    output = random_model()(flat, interpolate_pos_encoding=True)
    assert "loss" in output
    assert "attentions" not in output
    assert len(output) == 4
    assert dict(output.items())["logits"] is list(output.values())[1] is output[1]


@CLASSES
def test_sdpa_and_eager_agree_with_the_reference(name: str, pair: Pair, flat: Tensor) -> None:
    for implementation in ("sdpa", "eager"):
        ours, reference = pair(name)
        for model in (ours, reference):
            model.set_attn_implementation(implementation)
        mine, theirs = both(ours, reference, flat)
        assert distance(mine.to_tuple(), theirs.to_tuple()) <= TOLERANCE
        with torch.no_grad():
            ours.get_parameter(next(n for n, _ in ours.named_parameters() if n.endswith("key.weight"))).neg_()
        assert distance(both(ours, reference, flat)[0].to_tuple(), theirs.to_tuple()) > 100 * TOLERANCE


@CLASSES
def test_attention_weights_need_eager_and_the_error_says_so(name: str, pair: Pair, flat: Tensor) -> None:
    ours, _ = pair(name)
    with pytest.raises(ConfigError, match=r'output_attentions=True: needs attn_implementation="eager"'):
        ours(flat, interpolate_pos_encoding=True, output_attentions=True)


def test_a_configuration_that_asks_for_attention_weights_gets_eager(
    tiny: Callable[..., dict[str, Any]], flat: Tensor
) -> None:
    model = ViTMAEModel(ViTMAEConfig(**tiny(output_attentions=True)))
    assert len(model(flat, interpolate_pos_encoding=True).attentions) == 2


@CLASSES
def test_the_reference_s_shuffled_order_at_mask_ratio_0(name: str, pair: Pair, pixels: Pixels) -> None:
    ours, reference = pair(name, mask_ratio=0.0)
    noise = torch.rand(2, 16, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        mine = ours(pixels(32, 32), noise, keep_order=False, output_hidden_states=True)
        theirs = reference(pixels(32, 32), noise=noise, output_hidden_states=True)
        in_order = ours(pixels(32, 32), noise, output_hidden_states=True)
    assert distance(mine.ids_restore, theirs.ids_restore) == 0
    assert distance(mine.hidden_states, theirs.hidden_states) <= TOLERANCE
    assert distance(in_order.hidden_states, theirs.hidden_states) > 0.1
    if name == "ViTMAEModel":
        assert distance(mine.last_hidden_state, theirs.last_hidden_state) <= TOLERANCE
    else:
        assert distance(mine.logits, theirs.logits) <= TOLERANCE
        assert distance(in_order.logits, theirs.logits) <= TOLERANCE
        assert mine.loss is None
        assert torch.isnan(theirs.loss)
        assert tuple(mine.keys()) == ("logits", "mask", "ids_restore", "hidden_states")


def test_a_chosen_mask_is_the_noise_that_would_choose_it(pair: Pair, pixels: Pixels) -> None:
    ours, reference = pair()
    flat = pixels(24, 48)
    removed = torch.zeros(2, 18, dtype=torch.bool)
    removed[0, 4:17] = removed[1, 1:14] = True
    order = removed.float() + torch.linspace(0, 0.5, 18)
    reference.config.mask_ratio = 13 / 18
    with torch.inference_mode():
        mine = ours(flat, mask=removed, interpolate_pos_encoding=True)
        theirs = reference(flat, noise=order, interpolate_pos_encoding=True)
    assert distance(mine.to_tuple(), theirs.to_tuple()) <= TOLERANCE
    with pytest.raises(ValueError, match=r"mask must be bool, .* not torch.float32"):
        ours(flat, mask=removed.float(), interpolate_pos_encoding=True)
    uneven = removed & torch.tensor([[True], [False]])
    with pytest.raises(ValueError, match=r"must lose as many patches; these lose \[13, 0\]"):
        ours(flat, mask=uneven, interpolate_pos_encoding=True)
    with pytest.raises(ValueError, match=r"noise and mask must be \(2, 18\), not \(2, 16\)"):
        ours(flat, torch.rand(2, 16), interpolate_pos_encoding=True)


@CLASSES
@pytest.mark.parametrize(
    ("shape", "interpolate", "message"),
    [
        ((2, 3, 24, 32), False, r"24×32 pixels and the model 32×32.*interpolate_pos_encoding=True"),
        ((2, 1, 32, 32), False, r"\(N, 3, H, W\), not \(2, 1, 32, 32\)"),
        ((2, 3, 30, 32), True, "30×32 pixels is not tiled by patches of 8"),
        ((2, 3, 4, 64), True, "4×64 pixels is not tiled by patches of 8"),
    ],
)
def test_what_the_reference_refuses_is_refused_more_clearly(
    name: str, shape: tuple[int, ...], interpolate: bool, message: str, pair: Pair
) -> None:
    ours, reference = pair(name)
    with pytest.raises(ValueError, match=message):
        ours(torch.zeros(shape), interpolate_pos_encoding=interpolate)
    if (name, shape[2]) != ("ViTMAEModel", 30):  # whose last rows the reference leaves off
        with pytest.raises((ValueError, RuntimeError)):
            reference(torch.zeros(shape), interpolate_pos_encoding=interpolate)


def test_patchify_is_the_reference_s_and_its_refusals_too(pair: Pair, pixels: Pixels) -> None:
    ours, reference = pair()
    square, flat = pixels(16, 16), pixels(24, 48)
    assert torch.equal(ours.patchify(square), reference.patchify(square))
    patches = ours.patchify(flat, interpolate_pos_encoding=True)
    assert torch.equal(patches, reference.patchify(flat, interpolate_pos_encoding=True))
    assert torch.equal(ours.unpatchify(patches, (24, 48)), flat)
    assert torch.equal(reference.unpatchify(patches, (24, 48)), flat)
    refused: list[tuple[tuple[int, ...], str]] = [
        ((2, 3, 24, 48), "24×48 pixels is not square; pass interpolate_pos_encoding=True"),
        ((2, 3, 30, 30), "30×30 pixels is not tiled by patches of 8"),
        ((2, 1, 32, 32), "has 1 channels and the model 3"),
    ]
    for shape, message in refused:
        with pytest.raises(ValueError, match=message):
            ours.patchify(torch.zeros(shape))
        with pytest.raises(ValueError, match="Make sure"):
            reference.patchify(torch.zeros(shape))
    for model, message in ((ours, "18 patches do not fill a grid of 4×4"), (reference, "does not match")):
        with pytest.raises(ValueError, match=message):
            model.unpatchify(patches)


def test_the_loss_is_a_method_too(pair: Pair, pixels: Pixels) -> None:
    ours, _ = pair(norm_pix_loss=True)
    output = ours(pixels(24, 48), interpolate_pos_encoding=True)
    loss = ours.forward_loss(pixels(24, 48), output.logits, output.mask, interpolate_pos_encoding=True)
    assert torch.equal(loss, output.loss)


@pytest.mark.parametrize("activation", ["selu", "function"])
def test_activations_that_the_reference_lacks(
    activation: str, pair: Pair, flat: Tensor, tiny: Callable[..., dict[str, Any]], monkeypatch: Any
) -> None:
    from transformers.activations import ACT2FN

    assert "selu" not in ACT2FN
    monkeypatch.setitem(ACT2FN, "selu", nn.SELU)
    ours, reference = pair(hidden_act="selu")
    if activation == "function":
        named = ours
        ours = ViTMAEForPreTraining(ViTMAEConfig(**tiny(hidden_act=nn.functional.selu))).eval()
        ours.load_state_dict(named.state_dict())
    mine, theirs = both(ours, reference, flat)
    assert distance(mine.to_tuple(), theirs.to_tuple()) <= TOLERANCE
    plain, _ = pair(hidden_act="relu")
    assert distance(both(plain, reference, flat)[0].logits, theirs.logits) > 100 * TOLERANCE


def test_patches_with_unequal_sides(pair: Pair, pixels: Pixels, random_model: Models) -> None:
    # The reference has such an encoder, where the table is square (4 × 4 here), and no such decoder.
    ours, reference = pair("ViTMAEModel", image_size=(32, 64), patch_size=(8, 16))
    noise = torch.rand(2, 16)
    with torch.inference_mode():
        mine, theirs = ours(pixels(32, 64), noise), reference(pixels(32, 64), noise=noise)
    assert distance(mine.to_tuple(), theirs.to_tuple()) <= TOLERANCE
    model = random_model(image_size=(32, 48), patch_size=(8, 16))
    output = model(pixels(32, 48))
    assert output.logits.shape == (2, 12, 8 * 16 * 3)
    assert torch.equal(model.unpatchify(model.patchify(pixels(32, 48))), pixels(32, 48))
    first = model.patchify(pixels(32, 48))[0, 4].reshape(8, 16, 3)  # row 1, column 1
    assert torch.equal(first, pixels(32, 48)[0, :, 8:16, 16:32].permute(1, 2, 0))


def test_every_name_of_the_reference_has_its_place(pair: Pair) -> None:
    ours, reference = pair()
    expected, _ = to_hub_names(reference.state_dict())
    assert ours.state_dict().keys() == expected.keys()
    frozen = {name for name, _ in ours.named_buffers()}
    assert frozen == {"vit.embeddings.position_embeddings", "decoder.decoder_pos_embed"}
    assert frozen | {name for name, _ in ours.named_parameters()} == expected.keys()


def test_initializer_range_is_the_deviation_of_the_tokens(tiny: Callable[..., dict[str, Any]]) -> None:
    for deviation in (0.02, 0.5):
        fields = tiny(hidden_size=512, decoder_hidden_size=512, decoder_num_attention_heads=4)
        torch.manual_seed(0)
        model = ViTMAEForPreTraining(ViTMAEConfig(**fields, initializer_range=deviation))
        for token in (model.vit.embeddings.cls_token, model.decoder.mask_token):
            assert 0.8 * deviation < float(token.detach().std()) < 1.2 * deviation


def test_the_reference_s_keyword_arguments_are_ours() -> None:
    names = inspect.signature(ViTMAEForPreTraining.forward).parameters
    theirs = inspect.signature(transformers.ViTMAEForPreTraining.forward).parameters
    left_out = {"attention_mask", "kwargs"}  # nothing is padded; kwargs are the three at the end
    assert set(theirs) - left_out <= set(names)
    assert {"output_hidden_states", "output_attentions", "return_dict"} <= set(names)
    first = ["self", "pixel_values", "noise", "interpolate_pos_encoding"]
    assert list(names)[:4] == list(theirs)[:4] == first
