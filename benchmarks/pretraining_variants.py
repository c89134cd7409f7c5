"""The implementations of a pretraining step that `benchmarks.pretraining` compares."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.mae_authors import authors_model
from vitmae_search.training.data.normalize import Normalize
from vitmae_search.training.data.packed_photos import PackedPhotos
from vitmae_search.training.data.random_resized_crop import random_crops, resize_crops
from vitmae_search.training.devices import should_compile
from vitmae_search.training.distributed import DistributedContext
from vitmae_search.training.optim import adamw
from vitmae_search.training.pretraining.batches import BatchLoader
from vitmae_search.training.pretraining.grad_cache import PendingStep
from vitmae_search.training.pretraining.options import PretrainOptions
from vitmae_search.training.pretraining.trainer import Trainer
from vitmae_search.vitmae import IMAGENET_MEAN, IMAGENET_STD, ViTMAEConfig, ViTMAEForPreTraining
from vitmae_search.vitmae.checkpoint.keys import to_hub_names
from vitmae_search.vitmae.layers import compile_layers

REFERENCE = "transformers"
RATE, BETAS, DECAY = 1e-4, (0.9, 0.95), 0.05

Work = Callable[[], object]
Loss = Callable[[], Tensor]
Variants = Mapping[str, Callable[[], Any]]


@dataclass(frozen=True)
class PretrainingCase:
    """The input of every variant.

    Attributes:
        config: The model's configuration.
        photos: (N, side, side, 3) uint8 on the host.
        pixels: (N, 3, S, S) float32 on the device: the photos, normalised.
        noise: (N, L) on the device, which decides the masks.
    """

    config: ViTMAEConfig
    photos: Tensor
    pixels: Tensor
    noise: Tensor

    @property
    def count(self) -> int:
        """Photos of a batch."""
        return len(self.pixels)

    @property
    def device(self) -> torch.device:
        """Where the pixels are."""
        return self.pixels.device


def make_case(config: ViTMAEConfig, count: int, device: torch.device) -> PretrainingCase:
    """A batch of random crops of scikit-image's photo of an astronaut.

    Args:
        config: The model's configuration.
        count: Photos.
        device: Where pixels and noise go.
    """
    from skimage import data

    generator = torch.Generator().manual_seed(0)
    photo = torch.from_numpy(data.astronaut()[:256, :256].copy())  # type: ignore[no-untyped-call]
    crops = random_crops(count, 256, 256, scale=(0.2, 1.0), flip=True, generator=generator)
    side = config.image_shape[0]
    pixels = resize_crops(photo.expand(count, -1, -1, -1), crops, side)
    photos = pixels.round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
    torch.manual_seed(0)
    noise = torch.rand(count, config.num_patches)
    normalise = Normalize(IMAGENET_MEAN, IMAGENET_STD)
    return PretrainingCase(config, photos, normalise(pixels).to(device), noise.to(device))


class TrainingStep:
    """Trains a model on the same batch again and again; a call is a step.

    `dtype` is autocast's, None for fp32. `as_authors` adds what the authors' loop does: torch's default
    AdamW, scaled gradients for fp16, the gradient norm, and after each step reading the loss and waiting for
    the device.
    """

    def __init__(
        self, model: nn.Module, loss: Loss, dtype: torch.dtype | None = None, *, as_authors: bool = False
    ) -> None:
        self._model, self._loss, self._dtype = model.train(), loss, dtype
        self._device = next(model.parameters()).device
        self._optimizer = adamw(model, rate=RATE, betas=BETAS, weight_decay=DECAY)
        self._as_authors = as_authors
        if as_authors:
            groups = [
                {"params": g["params"], "weight_decay": g["weight_decay"]}
                for g in self._optimizer.param_groups
            ]
            self._optimizer = torch.optim.AdamW(groups, lr=RATE, betas=BETAS)
        self._scaler = torch.amp.GradScaler(self._device.type, enabled=dtype == torch.float16)
        self._losses: list[Tensor] = []
        self.gradient: dict[str, Tensor] = {}
        self.first_seconds = 0.0

    def first(self) -> None:
        """The first step, which warms up. Its gradient is kept on the host, under the hub's names."""
        started = time.perf_counter()
        self._backward()
        self.first_seconds = time.perf_counter() - started
        gradients = {n: p.grad.float().cpu() for n, p in self._model.named_parameters() if p.grad is not None}
        self.gradient = {name: g.clone() for name, g in to_hub_names(gradients)[0].items()}
        self._update()

    def __call__(self) -> None:
        """One step."""
        self._backward()
        self._update()

    def drift(self, reference: TrainingStep) -> tuple[str, str]:
        """The last loss, and the cosine between the first gradients of this and a reference."""
        names = sorted(self.gradient.keys() & reference.gradient.keys())
        ours, theirs = (torch.cat([s.gradient[name].flatten() for name in names]) for s in (self, reference))
        cosine = functional.cosine_similarity(ours.double(), theirs.double(), dim=0)
        return f"{self._losses[-1].item():.5f}", f"{cosine:.6f}"

    def _backward(self) -> None:
        self._optimizer.zero_grad()
        with nullcontext() if self._dtype is None else torch.autocast(self._device.type, self._dtype):
            loss = self._loss()
        self._losses.append(loss.detach())
        if self._as_authors or self._device.type == "cpu":
            loss.item()
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def _update(self) -> None:
        if self._as_authors:
            self._scaler.unscale_(self._optimizer)
            norms = [torch.norm(p.grad) for p in self._model.parameters() if p.grad is not None]
            torch.norm(torch.stack(norms))
        self._scaler.step(self._optimizer)
        self._scaler.update()
        if self._as_authors and self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


class PretrainStep:
    """A complete step of `pretrain`, with new crops and masks each time."""

    def __init__(self, model: ViTMAEForPreTraining, case: PretrainingCase, options: PretrainOptions) -> None:
        distributed = DistributedContext(case.device)
        batches = BatchLoader(
            PackedPhotos(case.photos.numpy(), "", ()),
            options,
            image_size=case.config.image_shape[0],
            num_patches=case.config.num_patches,
            normalize=Normalize(IMAGENET_MEAN, IMAGENET_STD),
            distributed=distributed,
        )
        self._trainer = Trainer(model, batches, options, distributed)
        self._step = 0
        self._last: list[PendingStep] = []

    def first(self) -> None:
        """The first step, which warms up."""
        self()

    def __call__(self) -> None:
        """One step."""
        self._last = [self._trainer.gradient(self._step)]
        self._trainer.update(self._step, 1.0)
        self._step += 1

    def drift(self, reference: object) -> tuple[str, str]:
        """The last loss; gradients cannot be compared, because the crops differ."""
        return f"{self._trainer.fetch(self._last)[0].losses.loss:.5f}", "–"


def variants_on_cpu(case: PretrainingCase, authors: Path | None) -> Variants:
    """A CPU's variants: makers by name, each of which copies the same weights.

    Args:
        case: The input.
        authors: A clone of facebookresearch/mae, or None.
    """
    first = _initial_weights(case)
    variants: dict[str, Callable[[], Any]] = {
        REFERENCE: partial(reference_step, case, first),
        f"{REFERENCE}, bf16": partial(reference_step, case, first, torch.bfloat16),
    }
    if authors is not None:
        variants["authors"] = partial(authors_step, authors, case, first)
    for name, dtype in (
        ("ours", None),
        ("ours, bf16", torch.bfloat16),
        ("ours, bf16, compiled", torch.bfloat16),
    ):
        variants[name] = partial(our_step, case, first, dtype, compiled="compiled" in name)
    return variants


def variants_on_gpu(case: PretrainingCase, authors: Path | None) -> Variants:
    """A GPU's variants. Compiled ones are included if torch can compile here.

    Args:
        case: The input.
        authors: A clone of facebookresearch/mae, or None.
    """
    first, half = _initial_weights(case), torch.bfloat16
    variants: dict[str, Callable[[], Any]] = {REFERENCE: partial(reference_step, case, first, half)}
    if authors is not None:
        for name, dtype in (("authors, fp16", torch.float16), ("authors, bf16", half)):
            variants[name] = partial(authors_step, authors, case, first, dtype, in_their_loop=True)
    variants["ours"] = partial(our_step, case, first, half)
    variants["ours, as pretrain does it"] = partial(pretrain_step, case, first, compiled=False)
    if should_compile(case.device):
        variants[f"{REFERENCE}, compiled"] = partial(reference_step, case, first, half, compiled=True)
        variants["ours, compiled"] = partial(our_step, case, first, half, compiled=True)
        variants["ours, compiled, as pretrain does it"] = partial(pretrain_step, case, first, compiled=True)
    return variants


def _initial_weights(case: PretrainingCase) -> ViTMAEForPreTraining:
    torch.manual_seed(1)
    return ViTMAEForPreTraining(case.config)


def _copied(kind: Any, first: ViTMAEForPreTraining) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        first.save_pretrained(folder)
        return kind.from_pretrained(folder)


def reference_step(
    case: PretrainingCase,
    first: ViTMAEForPreTraining,
    dtype: torch.dtype | None = None,
    *,
    compiled: bool = False,
) -> TrainingStep:
    """The model of transformers, with frozen position tables, as in the paper and in ours.

    Args:
        case: The input.
        first: The initial weights.
        dtype: Type for autocast; None is fp32.
        compiled: Use `torch.compile`.
    """
    from transformers import ViTMAEForPreTraining as Reference

    theirs = _copied(Reference, first)
    theirs.vit.embeddings.position_embeddings.requires_grad_(False)
    theirs.decoder.decoder_pos_embed.requires_grad_(False)
    theirs = theirs.to(case.device)
    called = torch.compile(theirs) if compiled else theirs
    return TrainingStep(theirs, lambda: called(case.pixels, noise=case.noise).loss, dtype)


def our_step(
    case: PretrainingCase, first: ViTMAEForPreTraining, dtype: torch.dtype | None, *, compiled: bool = False
) -> TrainingStep:
    """Our model, without making the batch.

    Args:
        case: The input.
        first: The initial weights.
        dtype: Type for autocast; None is fp32.
        compiled: Compile layer by layer.
    """
    model = _copied(ViTMAEForPreTraining, first).to(case.device)
    eager = dtype is not None and case.device.type == "cpu"
    model.set_attn_implementation("eager" if eager else "sdpa")
    if compiled:
        compile_layers(model)
    return TrainingStep(model, lambda: model(case.pixels, noise=case.noise).loss, dtype)


def pretrain_step(case: PretrainingCase, first: ViTMAEForPreTraining, *, compiled: bool) -> PretrainStep:
    """Our model, with all that `pretrain` does.

    Args:
        case: The input.
        first: The initial weights.
        compiled: Compile layer by layer.
    """
    options = PretrainOptions(
        batch_size=case.count,
        learning_rate=RATE * 256 / case.count,
        precision="bf16",
        attention="eager" if case.device.type == "cpu" else "sdpa",
        cache="device",
        compiled=compiled,
    )
    return PretrainStep(_copied(ViTMAEForPreTraining, first), case, options)


def authors_step(
    folder: Path,
    case: PretrainingCase,
    like: ViTMAEForPreTraining,
    dtype: torch.dtype | None = None,
    *,
    in_their_loop: bool = False,
) -> TrainingStep:
    """The authors' model, with the common masks instead of those that it would draw.

    Args:
        folder: A clone of facebookresearch/mae.
        case: The input.
        like: The initial weights.
        dtype: Type for autocast; None is fp32.
        in_their_loop: Run the rest of their training loop too.
    """
    theirs = authors_model(folder, like).to(case.device)

    def given(*_: object, **__: object) -> Tensor:
        return case.noise

    def loss() -> Tensor:
        with mock.patch.object(torch, "rand", given):
            error: Tensor = theirs(case.pixels, case.config.mask_ratio)[0]
        return error

    return TrainingStep(theirs, loss, dtype, as_authors=in_their_loop)
