"""A step of pretraining beside the original authors' and transformers': the same weights, photos and masks.

    python -m benchmarks.pretraining [--only base|tiny] [--authors FOLDER]

A step is the loss, its gradient and AdamW. All take turns in one run; in fp32 unless bf16 is said, which is
autocast over fp32 weights. Ours in bf16 is what `pretrain` does where the CPU multiplies in bf16. FOLDER is a
clone of https://github.com/facebookresearch/mae, which needs timm; without both their row is left out.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.measuring import compared, interleaved, machine, table
from vitmae_search.training.augment import random_crops, resize_crops
from vitmae_search.training.devices import computing
from vitmae_search.training.schedule import adamw
from vitmae_search.training.stream import Normalisation
from vitmae_search.vitmae import IMAGENET_MEAN, IMAGENET_STD, ViTMAEConfig, ViTMAEForPreTraining
from vitmae_search.vitmae.checkpoint_keys import to_hub_names
from vitmae_search.vitmae.layers import compile_layers

REFERENCE = "transformers"
SIZES: dict[str, tuple[dict[str, Any], int]] = {
    "base": ({}, 16),
    "tiny": (
        {
            "hidden_size": 192,
            "num_attention_heads": 3,
            "intermediate_size": 768,
            "decoder_hidden_size": 128,
            "decoder_num_hidden_layers": 2,
            "decoder_num_attention_heads": 4,
            "decoder_intermediate_size": 512,
            "image_size": 64,
            "patch_size": 8,
        },
        256,
    ),
}
"""Fields that are not ViT-B/16's at 224 pixels, and photos a step. "tiny" is the bundled model."""

Loss = Callable[[], Tensor]


class Case(NamedTuple):
    """What every way is given. `pixels` (N, 3, S, S), normalised; `noise` (N, L)."""

    config: ViTMAEConfig
    pixels: Tensor
    noise: Tensor


class Step:
    """One way to train a model of its own, on the same batch over and over."""

    def __init__(self, model: nn.Module, loss: Loss, *, bf16: bool = False) -> None:
        self._model, self._loss = model.train(), loss
        self._precision = "bf16" if bf16 else "fp32"
        self._optimizer = adamw(model, rate=1e-4, betas=(0.9, 0.95), weight_decay=0.05)
        self.losses: list[float] = []
        self.gradient: dict[str, Tensor] = {}
        self.first_seconds = 0.0

    def first(self) -> None:
        """The step that warms up; its gradient is kept, under the hub's names."""
        started = time.perf_counter()
        self._backward()
        self.first_seconds = time.perf_counter() - started
        gradients = {name: p.grad for name, p in self._model.named_parameters() if p.grad is not None}
        self.gradient = {name: g.clone() for name, g in to_hub_names(gradients)[0].items()}
        self._optimizer.step()

    def __call__(self) -> None:
        self._backward()
        self._optimizer.step()

    def _backward(self) -> None:
        self._optimizer.zero_grad()
        with computing(torch.device("cpu"), self._precision):
            loss = self._loss()
        loss.backward()  # type: ignore[no-untyped-call]
        self.losses.append(loss.item())


def main() -> None:
    """Print a table for each model as Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=SIZES, help="one model")
    parser.add_argument("--authors", type=Path, help="a clone of facebookresearch/mae")
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    print(machine("torch", "transformers", "timm"))
    for size in [chosen.only] if chosen.only else SIZES:
        measure(size, chosen.authors, chosen.rounds)


def measure(size: str, authors: Path | None, rounds: int) -> None:
    """Print the table of one model."""
    fields, count = SIZES[size]
    case = make_case(ViTMAEConfig(**fields, norm_pix_loss=True, layer_norm_eps=1e-6), count)
    steps = make_steps(case, authors)
    for step in steps.values():
        step.first()
    seconds = interleaved(steps, rounds=rounds, warm_up=0)
    notes = {name: drift(step, steps[REFERENCE]) for name, step in steps.items()}
    columns = (f"loss at step {rounds + 1}", "cosine of the first gradient")
    shown = compared(seconds, reference=REFERENCE, count=count, unit="images/s", notes=notes, columns=columns)
    print(
        f"\n{size}, batches of {count}; compiling took {steps['ours, bf16, compiled'].first_seconds:.0f} s\n"
    )
    print(table(*shown))


def make_case(config: ViTMAEConfig, count: int) -> Case:
    """Random crops of scikit-image's photo of an astronaut."""
    from skimage import data

    generator = torch.Generator().manual_seed(0)
    photo = torch.from_numpy(data.astronaut()[:256, :256].copy())  # type: ignore[no-untyped-call]
    crops = random_crops(count, 256, 256, scale=(0.2, 1.0), flip=True, generator=generator)
    pixels = resize_crops(photo.expand(count, -1, -1, -1), crops, config.image_shape[0])
    torch.manual_seed(0)
    noise = torch.rand(count, config.num_patches)  # as the authors' model draws it after the same seed
    return Case(config, Normalisation(IMAGENET_MEAN, IMAGENET_STD)(pixels), noise)


def make_steps(case: Case, authors: Path | None) -> dict[str, Step]:
    """Every way with a copy of the same weights."""
    from transformers import ViTMAEForPreTraining as Reference

    torch.manual_seed(1)
    first = ViTMAEForPreTraining(case.config)
    steps: dict[str, Step] = {}
    with tempfile.TemporaryDirectory() as folder:
        first.save_pretrained(folder)
        for name, bf16 in ((REFERENCE, False), (f"{REFERENCE}, bf16", True)):
            theirs = Reference.from_pretrained(folder)
            theirs.vit.embeddings.position_embeddings.requires_grad_(False)  # as in the paper and in ours
            theirs.decoder.decoder_pos_embed.requires_grad_(False)
            steps[name] = _called(theirs, case, bf16=bf16)
        if authors is None:
            print("Without the authors' row: --authors FOLDER takes a clone of facebookresearch/mae.")
        else:
            steps["authors"] = authors_step(authors, case, first)
        for name, bf16 in (("ours", False), ("ours, bf16", True), ("ours, bf16, compiled", True)):
            model = ViTMAEForPreTraining.from_pretrained(folder)
            model.set_attn_implementation("eager" if bf16 else "sdpa")
            if "compiled" in name:
                compile_layers(model)
            steps[name] = _called(model, case, bf16=bf16)
    return steps


def _called(model: Any, case: Case, *, bf16: bool) -> Step:
    return Step(model, lambda: model(case.pixels, noise=case.noise).loss, bf16=bf16)


def authors_step(folder: Path, case: Case, like: ViTMAEForPreTraining) -> Step:
    """Theirs, with the weights of `like`."""
    config = case.config
    theirs = _authors_class(folder)(
        img_size=config.image_shape[0],
        patch_size=config.patch_shape[0],
        embed_dim=config.hidden_size,
        depth=config.num_hidden_layers,
        num_heads=config.num_attention_heads,
        decoder_embed_dim=config.decoder_hidden_size,
        decoder_depth=config.decoder_num_hidden_layers,
        decoder_num_heads=config.decoder_num_attention_heads,
        norm_layer=partial(nn.LayerNorm, eps=config.layer_norm_eps),
        norm_pix_loss=config.norm_pix_loss,
    )
    _fill(theirs, like)

    def loss() -> Tensor:
        torch.manual_seed(0)
        error: Tensor = theirs(case.pixels, config.mask_ratio)[0]
        return error

    return Step(theirs, loss)


def _authors_class(folder: Path) -> Any:
    """`MaskedAutoencoderViT` of their files as they are.

    What these need of old versions is given to them: `numpy.float`, and a `Block` of timm's that takes
    `qk_scale`, which they leave at None.
    """
    timm_models: Any = importlib.import_module("timm.models.vision_transformer")

    class Block(timm_models.Block):  # type: ignore[misc]
        def __init__(self, *sizes: Any, qk_scale: None = None, **options: Any) -> None:
            super().__init__(*sizes, **options)

    np.float = float  # type: ignore[attr-defined]  # looked up when a model is made
    with (
        mock.patch.object(sys, "path", [str(folder), *sys.path]),
        mock.patch.object(timm_models, "Block", Block),
    ):
        return importlib.import_module("models_mae").MaskedAutoencoderViT


@torch.no_grad()
def _fill(theirs: nn.Module, like: ViTMAEForPreTraining) -> None:
    """Give the authors' model our weights: their names read as ours are views of their tensors."""
    for name, value in to_hub_names(theirs.state_dict())[0].items():
        value.copy_(like.state_dict()[name])


def drift(step: Step, reference: Step) -> tuple[str, str]:
    """The last loss, and how alike the first gradients are."""
    names = sorted(step.gradient.keys() & reference.gradient.keys())
    ours, theirs = (torch.cat([s.gradient[name].flatten() for name in names]) for s in (step, reference))
    cosine = functional.cosine_similarity(ours.double(), theirs.double(), dim=0)
    return f"{step.losses[-1]:.5f}", f"{cosine:.6f}"


if __name__ == "__main__":
    main()
