"""Training: gradients, dropout, precisions, checkpointing, compilation and several processes."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from vitmae_search.vitmae import (
    ViTConfig,
    ViTForImageClassification,
    ViTMAEConfig,
    ViTMAEForPreTraining,
    ViTMAEModel,
)
from vitmae_search.vitmae.checkpoint.keys import to_hub_names

Pair = Callable[..., tuple[Any, Any]]
Pixels = Callable[[int, int], Tensor]
Models = Callable[..., ViTMAEForPreTraining]
Tiny = Callable[..., dict[str, Any]]

GRADIENT_TOLERANCE = 1e-4
IMPLEMENTATIONS = pytest.mark.parametrize("implementation", ["sdpa", "eager"])

VARIANTS: dict[str, tuple[dict[str, Any], tuple[int, int]]] = {
    "plain": ({}, (32, 32)),
    "flat": ({}, (24, 56)),
    "tall, normalised, half masked": ({"norm_pix_loss": True, "mask_ratio": 0.5}, (64, 16)),
    "selu-like function, no bias": ({"hidden_act": "gelu_new", "qkv_bias": False}, (16, 64)),
}


def relative(a: Tensor, b: Tensor) -> float:
    """The distance of two gradients, relative to the length of the second."""
    return float((a.double() - b.double()).norm() / b.double().norm().clamp_min(1e-12))


def angle(rough: Tensor, exact: Tensor) -> float:
    """1 - the cosine of two tensors."""
    return 1 - float(functional.cosine_similarity(rough.detach().double().flatten(), exact.double(), dim=0))


def gradients(ours: Any, reference: Any, pixels: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Gradients of our model and of the reference, by our names, for the same noise."""
    gh, gw = ours.config.patch_shape
    noise = torch.rand(2, pixels.shape[2] // gh * (pixels.shape[3] // gw))
    for model in (ours, reference):
        model.zero_grad()
        torch.manual_seed(9)
        model(pixels, noise=noise, interpolate_pos_encoding=True).loss.backward()
    theirs = {name: p.grad for name, p in reference.named_parameters() if p.grad is not None}
    return {name: p.grad for name, p in ours.named_parameters()}, to_hub_names(theirs)[0]


@pytest.mark.parametrize("variant", VARIANTS)
@IMPLEMENTATIONS
def test_the_gradient_of_every_parameter(
    variant: str, implementation: str, pair: Pair, pixels: Pixels
) -> None:
    fields, size = VARIANTS[variant]
    ours, reference = pair(**fields)
    for model in (ours, reference):
        model.train()
        model.set_attn_implementation(implementation)
    mine, theirs = gradients(ours, reference, pixels(*size))
    for name, gradient in mine.items():
        if name.endswith("key.bias"):  # zero in exact arithmetic: it shifts all scores of a query alike
            assert float((gradient - theirs[name]).abs().max()) < 1e-5
        else:
            assert relative(gradient, theirs[name]) <= GRADIENT_TOLERANCE, name
    with torch.no_grad():
        ours.decoder.mask_token.zero_()
    spoilt, _ = gradients(ours, reference, pixels(*size))
    assert all(relative(spoilt[name], theirs[name]) > 0.01 for name in spoilt if not name.endswith("bias"))


@IMPLEMENTATIONS
def test_dropout_falls_where_the_reference_s_does(implementation: str, pair: Pair, pixels: Pixels) -> None:
    ours, reference = pair(hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.3)
    noise = torch.rand(2, 18)
    logits = []
    for model in (ours, reference):
        model.train()
        model.set_attn_implementation(implementation)
        torch.manual_seed(4)
        logits.append(model(pixels(24, 48), noise=noise, interpolate_pos_encoding=True).logits.detach())
    assert float((logits[0] - logits[1]).abs().max()) <= 1e-5
    with torch.no_grad():
        other = ours(pixels(24, 48), noise, True).logits
    assert float((other - logits[1]).abs().max()) > 0.01
    mine, theirs = gradients(ours, reference, pixels(24, 48))
    for name in ("vit.embeddings.patch_embeddings.projection.weight", "decoder.decoder_pred.weight"):
        assert relative(mine[name], theirs[name]) <= GRADIENT_TOLERANCE


@IMPLEMENTATIONS
def test_checkpointing_changes_no_gradient(implementation: Any, random_model: Models, pixels: Pixels) -> None:
    plain = random_model(hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.1).train()
    plain.set_attn_implementation(implementation)
    saving = copy.deepcopy(plain)
    saving.gradient_checkpointing_enable()
    ran: list[int] = []
    saving.vit.encoder.layer[0].register_forward_pre_hook(lambda *_: ran.append(1))
    noise = torch.rand(2, 18)
    for model in (plain, saving):
        torch.manual_seed(2)
        model(pixels(24, 48), noise, True).loss.backward()
    assert len(ran) == 2  # forward, and once more for the gradient
    for (name, a), b in zip(plain.named_parameters(), saving.parameters(), strict=True):
        assert a.grad is not None
        assert b.grad is not None
        assert torch.allclose(a.grad, b.grad, atol=1e-6), name
    saving.eval()(pixels(24, 48), noise, True).loss.backward()
    assert len(ran) == 3
    saving.train().gradient_checkpointing_disable()
    saving(pixels(24, 48), noise, True).loss.backward()
    assert len(ran) == 4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@IMPLEMENTATIONS
def test_half_precisions_are_as_near_as_the_reference_s(
    dtype: torch.dtype, implementation: str, pair: Pair, pixels: Pixels
) -> None:
    ours, reference = pair()
    noise, images = torch.rand(2, 18), pixels(24, 48)
    exact = ours(images, noise, True).logits.detach().flatten()
    errors = []
    for model in (ours, reference):
        model.set_attn_implementation(implementation)
        rough = (model.half() if dtype is torch.float16 else model.bfloat16())(
            images.to(dtype), noise=noise, interpolate_pos_encoding=True
        )
        assert rough.logits.dtype == dtype
        assert torch.isfinite(rough.loss)
        rough.loss.backward()
        errors.append(angle(rough.logits, exact))
    assert errors[0] <= max(2 * errors[1], 1e-6)
    assert all(p.grad is not None and p.grad.dtype == dtype for p in ours.parameters())


@IMPLEMENTATIONS
def test_autocast_is_as_near_as_the_reference_s(implementation: str, pair: Pair, pixels: Pixels) -> None:
    ours, reference = pair()
    noise, images = torch.rand(2, 18), pixels(24, 48)
    exact = ours(images, noise, True).logits.detach().flatten()
    errors = []
    for model in (ours, reference):
        model.set_attn_implementation(implementation)
        with torch.autocast("cpu", torch.bfloat16):
            rough = model(images, noise=noise, interpolate_pos_encoding=True)
        rough.loss.backward()
        errors.append(angle(rough.logits, exact))
    assert errors[0] <= max(2 * errors[1], 1e-6)
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in ours.parameters())


@IMPLEMENTATIONS
def test_autocast_gradients_are_as_near_as_the_reference_s(
    implementation: str, pair: Pair, pixels: Pixels
) -> None:
    ours, reference = pair(norm_pix_loss=True)
    exact = torch.cat([g.flatten() for g in gradients(ours, reference, pixels(24, 48))[0].values()])
    for model in (ours, reference):
        model.set_attn_implementation(implementation)
    with torch.autocast("cpu", torch.bfloat16):
        mine, theirs = gradients(ours, reference, pixels(24, 48))
    near, nearly = (
        relative(torch.cat([rough[name].flatten() for name in mine]), exact) for rough in (mine, theirs)
    )
    assert 0 < near <= 1.5 * nearly


COMPILED: dict[str, Callable[[dict[str, Any]], tuple[nn.Module, dict[str, Any]]]] = {
    "pretraining": lambda f: (ViTMAEForPreTraining(ViTMAEConfig(**f)), {"noise": torch.rand(2, 16)}),
    "pretraining, all outputs": lambda f: (
        ViTMAEForPreTraining(ViTMAEConfig(**f, norm_pix_loss=True), attn_implementation="eager"),
        {"noise": torch.rand(2, 16), "output_hidden_states": True, "output_attentions": True},
    ),
    "nothing masked": lambda f: (ViTMAEModel(ViTMAEConfig(**f)), {"mask_ratio": 0.0, "return_dict": False}),
    "classification": lambda f: (
        ViTForImageClassification(
            ViTConfig(num_labels=3, **{k: v for k, v in f.items() if not k.startswith("decoder_")})
        ),
        {"labels": torch.tensor([2, 0])},
    ),
}


@pytest.mark.parametrize("case", COMPILED)
def test_compiling_breaks_no_graph_and_changes_nothing(case: str, tiny: Tiny, pixels: Pixels) -> None:
    model, arguments = COMPILED[case](tiny())
    compiled: Any = torch.compile(model, fullgraph=True, backend="eager")
    mine, plain = compiled(pixels(32, 32), **arguments), model(pixels(32, 32), **arguments)
    names = range(len(plain)) if isinstance(plain, tuple) else plain.keys()
    for name in names:
        expected = plain[name] if isinstance(plain[name], tuple) else (plain[name],)
        found = mine[name] if isinstance(mine[name], tuple) else (mine[name],)
        assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(found, expected, strict=True)), name


def test_compiled_feature_maps(random_model: Models, pixels: Pixels) -> None:
    model = random_model().vit
    compiled = torch.compile(model.feature_maps, fullgraph=True, backend="eager")
    with torch.no_grad():
        found, expected = (f(pixels(32, 32), [1, 2]) for f in (compiled, model.feature_maps))
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(found, expected, strict=True))


def test_compiled_training_with_checkpointing(tiny: Tiny, pixels: Pixels) -> None:
    model = ViTMAEForPreTraining(ViTMAEConfig(**tiny())).train()
    noise = torch.rand(2, 16)
    model(pixels(32, 32), noise).loss.backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    model.gradient_checkpointing_enable()
    torch.compile(model, fullgraph=True, backend="aot_eager")(pixels(32, 32), noise).loss.backward()
    assert len(expected) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        assert torch.allclose(parameter.grad, expected[name], atol=1e-5), name


def test_two_processes_learn_as_one(tmp_path: Path) -> None:
    worker = Path(__file__).with_name("ddp_worker.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "error", worker, str(rank), "2", str(tmp_path)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    printed = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(printed)
    states = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    alone = torch.load(tmp_path / "alone.pt", weights_only=True)
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name
        assert torch.allclose(value, alone[name], atol=1e-5), name
