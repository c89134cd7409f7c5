"""Classifiers in the authors' and timm's layout: their heads, their pooling, and what is refused.

The expected logits are computed by `vit_logits`, a plain restatement of a vision transformer (arXiv
2010.11929) over the published names of weights, with the heads of the MAE paper (arXiv 2111.06377, A.1 and
A.3): fine-tuned on the CLS token, fine-tuned on the mean of the patches, and linear probes of both.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import transformers
from torch import Tensor
from torch.nn import functional

from vitmae_search.errors import CheckpointError, ConfigError
from vitmae_search.vitmae import (
    NewParametersWarning,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
    ViTMAEModel,
    ViTModel,
    find_checkpoint,
    read_checkpoint,
)

State = dict[str, Tensor]
Pixels = Callable[[int, int], Tensor]

WIDTH, HEADS, DEPTH, PATCH, SIDE, CLASSES = 192, 3, 2, 8, 32, 5
EPS = 1e-6
TOLERANCE = 1e-5


def random_vit(head: str) -> State:
    """A small ViT with random weights under the authors' names; `head` is what `HEADS_OF` lists."""
    generator = torch.Generator().manual_seed(11)

    def draw(*shape: int, scale: float = 0.05) -> Tensor:
        return torch.randn(shape, generator=generator) * scale

    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, WIDTH),
        "pos_embed": (1, 1 + (SIDE // PATCH) ** 2, WIDTH),
        "patch_embed.proj.weight": (WIDTH, 3, PATCH, PATCH),
        "patch_embed.proj.bias": (WIDTH,),
    }
    norms = ["fc_norm" if "avg" in head else "norm"]
    for number in range(DEPTH):
        block = f"blocks.{number}"
        norms += [f"{block}.norm1", f"{block}.norm2"]
        linears = {"attn.qkv": (3 * WIDTH, WIDTH), "attn.proj": (WIDTH, WIDTH)}
        linears |= {"mlp.fc1": (4 * WIDTH, WIDTH), "mlp.fc2": (WIDTH, 4 * WIDTH)}
        for name, shape in linears.items():
            shapes |= {f"{block}.{name}.weight": shape, f"{block}.{name}.bias": shape[:1]}
    state = {name: draw(*shape) for name, shape in shapes.items()}
    for norm in norms:
        state |= {f"{norm}.weight": 1 + draw(WIDTH), f"{norm}.bias": draw(WIDTH)}
    linear = "head.1" if "probe" in head else "head"
    state |= {f"{linear}.weight": draw(CLASSES, WIDTH, scale=0.3), f"{linear}.bias": draw(CLASSES)}
    if "probe" in head:
        state["head.0.running_mean"] = draw(WIDTH, scale=1)
        state["head.0.running_var"] = draw(WIDTH, scale=1).square()
        state["head.0.num_batches_tracked"] = torch.tensor(1251)
    return state


def vit_logits(state: State, pixels: Tensor) -> Tensor:
    """(N, 3, H, W) to (N, classes) in float64, from weights under the authors' names."""
    p = {name: value.double() for name, value in state.items()}

    def linear(name: str, x: Tensor) -> Tensor:
        return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]

    def layer_norm(name: str, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        deviation = (centred.square().mean(-1, keepdim=True) + EPS).sqrt()
        return centred / deviation * p[f"{name}.weight"] + p[f"{name}.bias"]

    planes = functional.conv2d(
        pixels.double(), p["patch_embed.proj.weight"], p["patch_embed.proj.bias"], stride=PATCH
    )
    patches = planes.flatten(2).transpose(1, 2)
    count = len(patches)
    x = torch.cat([p["cls_token"].expand(count, -1, -1), patches], dim=1) + p["pos_embed"]
    for number in range(DEPTH):
        block = f"blocks.{number}"
        qkv = linear(f"{block}.attn.qkv", layer_norm(f"{block}.norm1", x))
        q, k, v = qkv.reshape(count, -1, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-1, -2) / (WIDTH // HEADS) ** 0.5).softmax(-1)
        x = x + linear(f"{block}.attn.proj", (weights @ v).transpose(1, 2).flatten(2))
        hidden = linear(f"{block}.mlp.fc1", layer_norm(f"{block}.norm2", x))
        x = x + linear(f"{block}.mlp.fc2", hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5)))
    of_mean = "fc_norm.weight" in p
    pooled = layer_norm("fc_norm", x[:, 1:].mean(1)) if of_mean else layer_norm("norm", x)[:, 0]
    if "head.weight" in p:
        return linear("head", pooled)
    normed = (pooled - p["head.0.running_mean"]) / (p["head.0.running_var"] + EPS).sqrt()
    if "head.0.weight" in p:
        normed = normed * p["head.0.weight"] + p["head.0.bias"]
    return linear("head.1", normed)


HEADS_OF = ["fine-tuned token", "fine-tuned avg", "probe token", "probe avg"]


def distance(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected.double()).abs().max() / expected.double().abs().max())


def save(state: State, path: Path) -> Path:
    """As the authors' training saves."""
    arguments = argparse.Namespace(global_pool="fc_norm.weight" in state, nb_classes=CLASSES)
    torch.save({"model": state, "epoch": 99, "args": arguments}, path)
    return path


@pytest.mark.parametrize("head", HEADS_OF)
def test_the_authors_classifiers_give_their_logits(head: str, tmp_path: Path, pixels: Pixels) -> None:
    state = random_vit(head)
    model, info = ViTForImageClassification.from_pretrained(
        save(state, tmp_path / "mae.pth"), output_loading_info=True
    )
    assert info["missing_keys"] == info["unexpected_keys"] == info["mismatched_keys"] == set()
    assert model.config.num_labels == CLASSES
    assert (model.config.global_pool, model.config.layer_norm_eps) == (head.split()[1], EPS)
    expected = vit_logits(state, pixels(SIDE, SIDE))
    with torch.inference_mode():
        assert distance(model(pixels(SIDE, SIDE)).logits, expected) <= TOLERANCE
    model.save_pretrained(tmp_path / "saved")
    again, info = ViTForImageClassification.from_pretrained(tmp_path / "saved", output_loading_info=True)
    assert not any(info.values())
    assert again.config == model.config
    with torch.inference_mode():
        assert torch.equal(again(pixels(SIDE, SIDE)).logits, model(pixels(SIDE, SIDE)).logits)
    written = safetensors.torch.load_file(tmp_path / "saved/model.safetensors")
    assert ("fc_norm.weight" in written) == ("vit.layernorm.weight" not in written) == ("avg" in head)


@pytest.mark.parametrize("head", HEADS_OF)
def test_the_restatement_sees_what_a_head_does(head: str, tmp_path: Path, pixels: Pixels) -> None:
    """Each part of the head counts: without it the logits are others by far."""
    state = random_vit(head)
    expected = vit_logits(state, pixels(SIDE, SIDE))
    for part in ("fc_norm.weight", "head.0.running_mean", "head.0.running_var", "norm.bias"):
        if part in state:
            changed = vit_logits({**state, part: state[part] * 1.5 + 0.1}, pixels(SIDE, SIDE))
            assert distance(changed, expected) > 100 * TOLERANCE, part


def test_a_batch_norm_with_weights_of_its_own_is_folded_too(tmp_path: Path, pixels: Pixels) -> None:
    state = random_vit("probe token")
    state |= {"head.0.weight": torch.rand(WIDTH) + 0.5, "head.0.bias": torch.rand(WIDTH)}
    model = ViTForImageClassification.from_pretrained(save(state, tmp_path / "mae.pth"))
    with torch.inference_mode():
        assert distance(model(pixels(SIDE, SIDE)).logits, vit_logits(state, pixels(SIDE, SIDE))) <= TOLERANCE


def test_transformers_agrees_on_a_head_of_the_cls_token(tmp_path: Path, pixels: Pixels) -> None:
    for head in ("fine-tuned token", "probe token"):
        model = ViTForImageClassification.from_pretrained(save(random_vit(head), tmp_path / "mae.pth"))
        model.save_pretrained(tmp_path / head)
        reference, info = transformers.ViTForImageClassification.from_pretrained(
            tmp_path / head, output_loading_info=True
        )
        assert not any(info.values()), info
        with torch.inference_mode():
            logits = model(pixels(SIDE, SIDE)).logits
            assert distance(reference(pixels(SIDE, SIDE)).logits, logits) <= TOLERANCE


def test_transformers_is_told_that_it_lacks_the_mean_pooled_head(tmp_path: Path) -> None:
    """It has no such head; it says which weights it makes anew, and does not quietly read the CLS token."""
    ViTForImageClassification.from_pretrained(
        save(random_vit("fine-tuned avg"), tmp_path / "mae.pth")
    ).save_pretrained(tmp_path / "saved")
    _, info = transformers.ViTForImageClassification.from_pretrained(
        tmp_path / "saved", output_loading_info=True
    )
    assert info["missing_keys"] == {"vit.layernorm.weight", "vit.layernorm.bias"}
    assert info["unexpected_keys"] == {"fc_norm.weight", "fc_norm.bias"}


TIMM = {
    "architecture": "vit_tiny_patch8_32",
    "num_classes": CLASSES,
    "num_features": WIDTH,
    "pretrained_cfg": {
        "input_size": [3, SIDE, SIDE],
        "interpolation": "bicubic",
        "mean": [0.5, 0.4, 0.3],
        "std": [0.3, 0.4, 0.5],
        "crop_pct": 0.9,
    },
}


def timm_folder(state: State, folder: Path, **values: Any) -> Path:
    folder.mkdir()
    safetensors.torch.save_file(state, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({**TIMM, **values}))
    return folder


@pytest.mark.parametrize("pooling", ["token", "avg"])
def test_a_folder_of_timm(pooling: str, tmp_path: Path, pixels: Pixels) -> None:
    state = random_vit(f"fine-tuned {pooling}")
    folder = timm_folder(state, tmp_path / "timm", global_pool=pooling)
    model = ViTForImageClassification.from_pretrained(folder)
    with torch.inference_mode():
        assert distance(model(pixels(SIDE, SIDE)).logits, vit_logits(state, pixels(SIDE, SIDE))) <= TOLERANCE
    files = find_checkpoint(folder)
    processor = ViTImageProcessor.for_checkpoint(files, model.config)
    assert processor == ViTImageProcessor(
        size=SIDE, resample=3, image_mean=(0.5, 0.4, 0.3), image_std=(0.3, 0.4, 0.5)
    )


@pytest.mark.parametrize(("pooling", "head"), [("avg", "token"), ("map", "token"), ("token", "avg")])
def test_a_pooling_that_no_model_here_has_is_refused(pooling: str, head: str, tmp_path: Path) -> None:
    folder = timm_folder(random_vit(f"fine-tuned {head}"), tmp_path / "timm", global_pool=pooling)
    with pytest.raises(CheckpointError, match=f"its classifier pools by '{pooling}' with"):
        ViTForImageClassification.from_pretrained(folder)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("reg_token", (1, 4, WIDTH), "have reg_token, a part that a plain ViT does not have"),
        ("norm_pre.weight", (WIDTH,), r"have norm_pre\.weight, a part"),
        ("blocks.0.ls1.gamma", (WIDTH,), r"has vit\.encoder\.layer\.0\.ls1\.gamma, for which"),
        (
            "blocks.1.attn.q_norm.weight",
            (64,),
            r"has vit\.encoder\.layer\.1\.attn\.q_norm\.weight, for which",
        ),
    ],
)
def test_other_vision_transformers_are_refused(
    name: str, shape: tuple[int, ...], message: str, tmp_path: Path
) -> None:
    path = save({**random_vit("fine-tuned token"), name: torch.ones(shape)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=message):
        ViTForImageClassification.from_pretrained(path)


def test_a_fine_tuned_encoder_is_an_encoder_in_this_layout(tmp_path: Path, pixels: Pixels) -> None:
    path = save(random_vit("fine-tuned token"), tmp_path / "mae.pth")
    classifier = ViTForImageClassification.from_pretrained(path)
    encoder, info = ViTMAEModel.from_pretrained(path, output_loading_info=True)
    assert info["unexpected_keys"] == {"classifier.weight", "classifier.bias"}
    with torch.inference_mode():
        tokens = encoder.encode(pixels(SIDE, SIDE), [DEPTH])[0]
        expected = classifier.vit(pixels(SIDE, SIDE)).last_hidden_state
    assert distance(tokens, expected) <= TOLERANCE
    path = save(random_vit("fine-tuned avg"), tmp_path / "mean.pth")
    for kind in (ViTMAEModel, ViTModel):
        with pytest.raises(CheckpointError, match=r"Load it as ViTForImageClassification, with global_pool"):
            kind.from_pretrained(path)  # type: ignore[attr-defined]


def test_a_mean_pooled_head_is_newly_made_on_request(random_model: Any, tmp_path: Path) -> None:
    random_model().save_pretrained(tmp_path)
    with pytest.warns(NewParametersWarning, match=r"lacks 4 parameters.*fc_norm\.weight"):
        model = ViTForImageClassification.from_pretrained(tmp_path, global_pool="avg", num_labels=3)
    assert model.fc_norm is not None
    assert model.loading_info is not None
    assert "vit.layernorm.weight" in model.loading_info.unused
    assert not any(value.is_meta for value in model.state_dict().values())


def test_the_pooling_is_a_field_of_the_configuration() -> None:
    assert "global_pool" not in ViTConfig().to_dict()
    config = ViTConfig.from_dict(ViTConfig(global_pool="avg").to_dict())
    assert config.global_pool == "avg"
    with pytest.raises(ConfigError, match=r"global_pool='map': must be \"token\" or \"avg\""):
        ViTConfig(global_pool="map")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_an_integer_that_is_not_needed_refuses_nothing(suffix: str, tmp_path: Path) -> None:
    state = random_vit("fine-tuned token")
    state["patch_embed.num_batches_tracked"] = torch.tensor(7)
    state["blocks.0.relative_position_index"] = torch.arange(4)
    path = tmp_path / f"model{suffix}"
    if suffix == ".pth":
        save(state, path)
    else:
        safetensors.torch.save_file(state, path)
    model, info = ViTForImageClassification.from_pretrained(path, output_loading_info=True, dtype="auto")
    assert model.dtype == torch.float32
    assert info["missing_keys"] == set()
    state["head.bias"] = torch.zeros(CLASSES, dtype=torch.int64)
    with pytest.raises(CheckpointError, match=r"classifier\.bias is torch\.int64, not floating point"):
        ViTForImageClassification.from_pretrained(save(state, tmp_path / "integer.pth"))


def test_a_head_says_how_many_classes_there_are(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(find_checkpoint(save(random_vit("probe avg"), tmp_path / "mae.pth")))
    assert checkpoint.config.num_labels == CLASSES
    assert checkpoint.config.extra == {"global_pool": "avg"}
    assert not any(name.startswith("head") for name in checkpoint.state)
