"""The model on its own: new weights, what trains, `encode`, masks, errors."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from vitmae_search.errors import ConfigError
from vitmae_search.vitmae import ViTMAEConfig, ViTMAEForPreTraining, ViTMAEModel
from vitmae_search.vitmae.layers import sincos_positions

Models = Callable[..., ViTMAEForPreTraining]
Tiny = Callable[..., dict[str, Any]]
Pixels = Callable[[int, int], Tensor]


def test_new_weights_are_not_zero(tiny: Tiny) -> None:
    model = ViTMAEForPreTraining(ViTMAEConfig(**tiny(image_size=(32, 48))))
    for name, value in model.state_dict().items():
        assert bool(value.any()) != name.endswith(".bias"), name
    assert model.vit.embeddings.position_embeddings.equal(sincos_positions((4, 6), 32))
    assert model.decoder.decoder_pos_embed.equal(sincos_positions((4, 6), 24))
    for token in (model.vit.embeddings.cls_token, model.decoder.mask_token):
        assert 0.01 < float(token.detach().std()) < 0.03


def test_position_tables_are_saved_and_never_train(tiny: Tiny, pixels: Pixels) -> None:
    model = ViTMAEForPreTraining(ViTMAEConfig(**tiny()))
    model.requires_grad_(True)
    before = copy.deepcopy(model.state_dict())
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    model(pixels(32, 32)).loss.backward()
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in model.parameters())
    optimiser.step()
    frozen = {name for name, value in model.state_dict().items() if value.equal(before[name])}
    assert frozen == {"vit.embeddings.position_embeddings", "decoder.decoder_pos_embed"}


def test_training_overfits_one_batch(tiny: Tiny, pixels: Pixels) -> None:
    torch.manual_seed(0)
    model = ViTMAEForPreTraining(ViTMAEConfig(**tiny()), attn_implementation="eager").train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    noise, losses = torch.rand(2, 16), []
    for _ in range(60):
        loss = model(pixels(32, 32), noise).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_bf16_autocast_trains(implementation: Any, tiny: Tiny, pixels: Pixels) -> None:
    config = ViTMAEConfig(**tiny(attention_probs_dropout_prob=0.1, hidden_dropout_prob=0.1))
    model = ViTMAEForPreTraining(config, attn_implementation=implementation).train()
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(pixels(32, 32)).loss
    loss.backward()
    assert loss.dtype == torch.float32
    assert all(bool(torch.isfinite(p.grad).all()) for p in model.parameters() if p.grad is not None)


def test_dropout_is_for_training_alone(tiny: Tiny, pixels: Pixels) -> None:
    model = ViTMAEModel(ViTMAEConfig(**tiny(hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.3)))
    images = pixels(32, 32)
    with torch.no_grad():
        one, other = (model.train().encode(images, [2])[0] for _ in range(2))
        calm, again = (model.eval().encode(images, [2])[0] for _ in range(2))
    assert not torch.allclose(one, other)
    assert torch.equal(calm, again)


def test_encode_gives_the_layers_that_forward_has(random_model: Models, pixels: Pixels) -> None:
    model = random_model(num_hidden_layers=3).vit
    with torch.inference_mode():
        full = model(pixels(32, 32), mask_ratio=0, output_hidden_states=True)
        encoded = model.encode(pixels(32, 32), [3, 0, 2, 2])
    expected = [full.last_hidden_state, full.hidden_states[0], full.hidden_states[2], full.hidden_states[2]]
    assert len(encoded) == 4
    assert all(torch.equal(a, b) for a, b in zip(encoded, expected, strict=True))


def test_encode_runs_no_layer_beyond_the_highest(random_model: Models, pixels: Pixels) -> None:
    model = random_model(num_hidden_layers=4).vit
    ran: list[int] = []
    for number, layer in enumerate(model.encoder.layer, start=1):
        layer.register_forward_hook(lambda *_, number=number: ran.append(number))
    model.encode(pixels(32, 32), [2, 1])
    assert ran == [1, 2]
    with pytest.raises(ConfigError, match="from 0 to 4"):
        model.encode(pixels(32, 32), [5])
    with pytest.raises(ConfigError, match="layers"):
        model.encode(pixels(32, 32), [])


def test_encoding_does_not_depend_on_the_batch(random_model: Models) -> None:
    model, images = random_model().vit, torch.randn(9, 3, 32, 32)
    with torch.inference_mode():
        together = model.encode(images, [1, 2])
        for number in range(9):
            alone = model.encode(images[number : number + 1], [1, 2])
            for a, b in zip(together, alone, strict=True):
                assert torch.allclose(a[number], b[0], atol=1e-6)
        with torch.autocast("cpu", torch.bfloat16):
            rough = model.encode(images, [2])[0]
    assert float(functional.cosine_similarity(rough.flatten(1), together[1].flatten(1)).min()) > 0.999


def test_encode_uses_no_random_numbers(random_model: Models, pixels: Pixels) -> None:
    model, state = random_model().vit, torch.get_rng_state()
    model.encode(pixels(32, 32), [2])
    assert torch.equal(torch.get_rng_state(), state)


def test_a_chosen_mask_overrides_noise(random_model: Models, pixels: Pixels) -> None:
    model = random_model()
    removed = torch.zeros(2, 16, dtype=torch.bool)
    removed[:, 3:7] = True
    with torch.inference_mode():
        chosen = model(pixels(32, 32), mask=removed)
        by_noise = model(pixels(32, 32), removed.float() + torch.arange(16) / 100, mask_ratio=0.25)
    assert torch.equal(chosen.mask.bool(), removed)
    assert torch.allclose(chosen.logits, by_noise.logits, atol=1e-6)
    with pytest.raises(ValueError, match=r"must be \(2, 16\)"):
        model(pixels(32, 32), mask=removed[:, 1:])


def test_the_decoder_can_interpolate_over_rows_and_columns(random_model: Models, pixels: Pixels) -> None:
    model, noise = random_model(), torch.rand(2, 16)
    with torch.inference_mode():
        line = model(pixels(16, 64), noise, True)
        plane = model(pixels(16, 64), noise, True, decoder_interpolation="grid")
        same = model(pixels(32, 32), noise, True, decoder_interpolation="grid")
        plain = model(pixels(32, 32), noise)
    assert not torch.allclose(line.logits, plane.logits, atol=1e-3)
    assert torch.equal(same.logits, plain.logits)


def test_outputs_are_read_by_name_key_and_place(random_model: Models, pixels: Pixels) -> None:
    model, noise = random_model(), torch.rand(2, 16)
    output = model(pixels(32, 32), noise)
    assert output[0] is output.loss is output["loss"]
    assert tuple(output.keys()) == ("loss", "logits", "mask", "ids_restore")
    as_tuple = model(pixels(32, 32), noise, return_dict=False)
    assert isinstance(as_tuple, tuple)
    assert len(as_tuple) == len(output.to_tuple()) == 4
    with pytest.raises(KeyError):
        output["attentions"]


def test_selu_is_torchs(random_model: Models) -> None:
    layer = random_model(hidden_act="selu").vit.encoder.layer[0]
    tokens = torch.randn(2, 5, 32)
    assert torch.equal(layer.activation(tokens), functional.selu(tokens))


@pytest.mark.parametrize(
    ("shape", "message"),
    [((2, 3, 24, 32), "24×32"), ((2, 1, 32, 32), r"\(N, 3, H, W\)"), ((3, 32, 32), r"\(N, 3, H, W\)")],
)
def test_pixels_of_another_shape_are_refused(
    shape: tuple[int, ...], message: str, random_model: Models
) -> None:
    with pytest.raises(ValueError, match=message):
        random_model()(torch.zeros(shape))


def test_an_unknown_attention_is_refused(tiny: Tiny) -> None:
    with pytest.raises(ConfigError, match="attn_implementation='flash'"):
        ViTMAEModel(ViTMAEConfig(**tiny()), attn_implementation="flash")  # type: ignore[arg-type]


def test_models_can_be_copied_and_pickled(random_model: Models, pixels: Pixels) -> None:
    model, noise = random_model(hidden_act="gelu_new"), torch.rand(2, 16)
    again = pickle.loads(pickle.dumps(copy.deepcopy(model)))
    with torch.inference_mode():
        assert torch.equal(again(pixels(32, 32), noise).logits, model(pixels(32, 32), noise).logits)
