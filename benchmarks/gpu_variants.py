"""The ways of others in `gpu_encoding`: transformers and timm, each as it is and compiled."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from benchmarks.devices import PeakMemory, median_seconds, synchronizer
from benchmarks.encoder_cases import hf_model, installed
from vitmae_search.vitmae import ViTMAEConfig, ViTMAEForPreTraining
from vitmae_search.vitmae.checkpoint.keys import to_hub_names

Encode = Callable[[Tensor], Any]
"""(N, 3, H, W) bf16 on the device to the mean of the patch tokens after the last norm, (N, D)."""

MODES = ("default", "max-autotune-no-cudagraphs")
"""Of `torch.compile`. At these sizes the device is the limit, not what launches its kernels, so that graphs
("reduce-overhead") have little to give; they can be asked for."""


@dataclass(frozen=True)
class Way:
    """`run` gives the vectors of the first `batch` photos; it need not wait for them.

    `first` is how many seconds the first call took, which may compile or capture; `memory` the device's, GiB.
    """

    run: Callable[[], Any]
    batch: int
    first: float = 0.0
    memory: float = 0.0


def others(
    folder: Path, pixels: Tensor, sizes: Sequence[int], modes: Sequence[str], seconds: float
) -> Iterator[tuple[str, Way]]:
    """By name, each at the fastest of `sizes`; what is not installed is named and left out.

    `seconds` is about the time for all that compiles; what is left when it is spent is named and left out.
    """
    loaders: dict[str, Callable[[], nn.Module]] = {
        "HF ViTMAE": partial(hf_model, folder, torch.bfloat16),
        "HF ViT": partial(hf_vit, folder),
    }
    if installed("timm"):
        loaders["timm"] = partial(timm_model, folder)
    order: dict[str, list[int]] = {}
    for name, load in loaders.items():
        found = attempt(name, partial(open_other, load, None, pixels, sizes))
        order[name] = found[1] if found else []
        if found:
            yield name, found[0]
    deadline = time.perf_counter() + seconds
    wanted = [
        (mode, name) for mode in modes for name in reversed(order) if order[name]
    ]  # the likely best first
    for number, (mode, name) in enumerate(wanted):
        title = f"{name}, compiled" + ("" if mode == "default" else f" ({mode})")
        left = deadline - time.perf_counter()
        if left < 0:
            print(f"left out: {title}; no time")
            continue
        until = time.perf_counter() + left / (len(wanted) - number)
        found = attempt(title, partial(open_other, loaders[name], mode, pixels, order[name], until))
        if found:
            yield title, found[0]


T = TypeVar("T")


def attempt(name: str, make: Callable[[], T]) -> T | None:
    """What it makes; where it fails, whatever of others' code that may be, it is named and left out."""
    try:
        return make()
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        print(f"left out: {name}; {reason}")
        return None


def open_other(
    load: Callable[[], nn.Module],
    mode: str | None,
    pixels: Tensor,
    sizes: Sequence[int],
    deadline: float | None = None,
) -> tuple[Way, list[int]]:
    """The way at the fastest of `sizes`, and these, the fastest first. After `deadline` no more are tried."""
    memory = PeakMemory(pixels.device)
    encode = mean_of_patches(load().to(pixels.device))
    if mode is not None:
        encode = compiled(encode, mode)
    firsts: dict[int, float] = {}
    rates: dict[int, float] = {}
    for size in sizes:
        if rates and deadline is not None and time.perf_counter() > deadline:
            break
        try:
            firsts[size], rates[size] = tried(partial(encode, pixels[:size]), size, pixels.device)
        except torch.OutOfMemoryError:
            print(f"left out: batches of {size}; no memory")
    order = sorted(rates, key=lambda size: -rates[size])
    run = partial(encode, pixels[: order[0]])
    return Way(run, order[0], firsts[order[0]], memory.peak(run)), order


def tried(run: Callable[[], Any], size: int, device: torch.device) -> tuple[float, float]:
    """Seconds of the first call, and photos a second after it."""
    started = time.perf_counter()
    run()
    synchronizer(device)()
    first = time.perf_counter() - started
    return first, size / median_seconds(run, device, repeats=5)


def mean_of_patches(model: nn.Module) -> Encode:
    """`model` gives tokens, or an output that has them, after its last norm; CLS comes first."""

    @torch.no_grad()
    def encode(pixels: Tensor) -> Tensor:
        output = model(pixels)
        tokens: Tensor = output if isinstance(output, Tensor) else output.last_hidden_state
        return tokens[:, 1:].float().mean(dim=1)

    return encode


def compiled(encode: Encode, mode: str) -> Encode:
    """For each size on its own; what was compiled for one size is never stretched to another."""
    dynamo: Any = importlib.import_module("torch._dynamo.config")
    inductor: Any = importlib.import_module("torch._inductor.config")
    inductor.autotune_num_choices_displayed = 0
    dynamo.cache_size_limit = 64  # all ways of a package share their code; beyond it none is compiled
    fast: Encode = torch.compile(encode, mode=mode, dynamic=False)
    return fast


def hf_vit(folder: Path) -> nn.Module:
    """transformers' ViT with the same weights: without the shuffling of patches, which it does not need."""
    import transformers

    kept: Any = {"add_pooling_layer": False, "dtype": torch.bfloat16}
    model: Any = transformers.ViTModel.from_pretrained(folder, **kept)
    module: nn.Module = model.eval()
    return module


def timm_model(folder: Path) -> nn.Module:
    """timm's ViT with the same weights, without a head: vit_base_patch16_224 where the sizes are its."""
    models = importlib.import_module("timm.models.vision_transformer")
    ours = ViTMAEForPreTraining.from_pretrained(str(folder))
    theirs = models.VisionTransformer(**_timm_fields(ours.config), num_classes=0, global_pool="")
    state = ours.state_dict()
    with torch.no_grad():
        for name, value in to_hub_names(theirs.state_dict())[0].items():  # views of its tensors
            value.copy_(state[name])
    module: nn.Module = theirs.eval().to(torch.bfloat16)
    return module


def _timm_fields(config: ViTMAEConfig) -> dict[str, Any]:
    return {
        "img_size": config.image_shape,
        "patch_size": config.patch_shape,
        "embed_dim": config.hidden_size,
        "depth": config.num_hidden_layers,
        "num_heads": config.num_attention_heads,
        "mlp_ratio": config.intermediate_size / config.hidden_size,
        "norm_layer": partial(nn.LayerNorm, eps=config.layer_norm_eps),
    }
