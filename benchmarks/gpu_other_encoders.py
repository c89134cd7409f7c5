"""The other encoders in `gpu_encoding`: transformers and timm, each eager and compiled."""

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
"""(N, 3, H, W) bf16 on the device → (N, D), the mean of the patch tokens after the last norm."""

MODES = ("default", "max-autotune-no-cudagraphs")
"""Modes of `torch.compile`. At these sizes the device is the limit and not launching its kernels, so CUDA
graphs ("reduce-overhead") would gain little; they can be chosen with `--modes`."""


@dataclass(frozen=True)
class Candidate:
    """An encoder with its batch.

    Attributes:
        run: Computes the vectors of the first `batch` photos; it need not wait for the device.
        batch: Photos.
        first: Seconds of the first call, which may compile or capture a graph.
        memory: Peak memory of the device in GiB.
    """

    run: Callable[[], Any]
    batch: int
    first: float = 0.0
    memory: float = 0.0


def reference_candidates(
    folder: Path, pixels: Tensor, sizes: Sequence[int], modes: Sequence[str], seconds: float
) -> Iterator[tuple[str, Candidate]]:
    """Candidates by name, each at its fastest batch size. What is not installed is reported and left out.

    Args:
        folder: The checkpoint's folder.
        pixels: (N, 3, H, W) bf16 on the device.
        sizes: Batch sizes to try.
        modes: Modes of `torch.compile` to try.
        seconds: About the time for compiling; modes that are left after it are reported and left out.
    """
    loaders: dict[str, Callable[[], nn.Module]] = {
        "HF ViTMAE": partial(hf_model, folder, torch.bfloat16),
        "HF ViT": partial(hf_vit, folder),
    }
    if installed("timm"):
        loaders["timm"] = partial(timm_model, folder)
    order: dict[str, list[int]] = {}
    for name, load in loaders.items():
        found = try_or_report(name, partial(best_candidate, load, None, pixels, sizes))
        order[name] = found[1] if found else []
        if found:
            yield name, found[0]
    deadline = time.perf_counter() + seconds
    wanted = [
        (mode, name) for mode in modes for name in reversed(order) if order[name]
    ]  # the likely fastest first
    for number, (mode, name) in enumerate(wanted):
        title = f"{name}, compiled" + ("" if mode == "default" else f" ({mode})")
        left = deadline - time.perf_counter()
        if left < 0:
            print(f"left out: {title}; no time")
            continue
        until = time.perf_counter() + left / (len(wanted) - number)
        found = try_or_report(title, partial(best_candidate, loaders[name], mode, pixels, order[name], until))
        if found:
            yield title, found[0]


T = TypeVar("T")


def try_or_report(name: str, make: Callable[[], T]) -> T | None:
    """What `make` returns, or None if it fails in any way, which is reported.

    Args:
        name: Its name in the report.
        make: Calls others' code.
    """
    try:
        return make()
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        print(f"left out: {name}; {reason}")
        return None


def best_candidate(
    load: Callable[[], nn.Module],
    mode: str | None,
    pixels: Tensor,
    sizes: Sequence[int],
    deadline: float | None = None,
) -> tuple[Candidate, list[int]]:
    """Find the fastest batch size.

    Args:
        load: Makes the model.
        mode: A mode of `torch.compile`; None is eager.
        pixels: (N, 3, H, W) bf16 on the device.
        sizes: Batch sizes to try.
        deadline: The `time.perf_counter()` after which no more are tried.

    Returns:
        The candidate at the fastest size, and the sizes, the fastest first.
    """
    memory = PeakMemory(pixels.device)
    encode = mean_pooling_encoder(load().to(pixels.device))
    if mode is not None:
        encode = compiled_encoder(encode, mode)
    firsts: dict[int, float] = {}
    rates: dict[int, float] = {}
    for size in sizes:
        if rates and deadline is not None and time.perf_counter() > deadline:
            break
        try:
            firsts[size], rates[size] = first_call_and_rate(
                partial(encode, pixels[:size]), size, pixels.device
            )
        except torch.OutOfMemoryError:
            print(f"left out: batches of {size}; no memory")
    order = sorted(rates, key=lambda size: -rates[size])
    run = partial(encode, pixels[: order[0]])
    return Candidate(run, order[0], firsts[order[0]], memory.peak(run)), order


def first_call_and_rate(run: Callable[[], Any], size: int, device: torch.device) -> tuple[float, float]:
    """Seconds of the first call, and photos a second afterwards.

    Args:
        run: Encodes a batch.
        size: Its photos.
        device: Where it runs.
    """
    started = time.perf_counter()
    run()
    synchronizer(device)()
    first = time.perf_counter() - started
    return first, size / median_seconds(run, device, repeats=5)


def mean_pooling_encoder(model: nn.Module) -> Encode:
    """Mean pooling over a model that returns tokens (CLS first) after its last norm."""

    @torch.no_grad()
    def encode(pixels: Tensor) -> Tensor:
        output = model(pixels)
        tokens: Tensor = output if isinstance(output, Tensor) else output.last_hidden_state
        return tokens[:, 1:].float().mean(dim=1)

    return encode


def compiled_encoder(encode: Encode, mode: str) -> Encode:
    """Compile with static shapes, for each batch size separately.

    Args:
        encode: The eager encoder.
        mode: A mode of `torch.compile`.
    """
    dynamo: Any = importlib.import_module("torch._dynamo.config")
    inductor: Any = importlib.import_module("torch._inductor.config")
    inductor.autotune_num_choices_displayed = 0
    dynamo.cache_size_limit = 64  # candidates share code objects; beyond this limit torch stops compiling
    fast: Encode = torch.compile(encode, mode=mode, dynamic=False)
    return fast


def hf_vit(folder: Path) -> nn.Module:
    """The ViT of transformers with the same weights; it does not shuffle patches."""
    import transformers

    kept: Any = {"add_pooling_layer": False, "dtype": torch.bfloat16}
    model: Any = transformers.ViTModel.from_pretrained(folder, **kept)
    module: nn.Module = model.eval()
    return module


def timm_model(folder: Path) -> nn.Module:
    """The ViT of timm with the same weights, without a head."""
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
