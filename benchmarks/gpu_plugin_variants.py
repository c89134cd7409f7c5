"""Ours in `gpu_encoding`: through the plugin, of photos on the device, and with each choice undone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.devices import PeakMemory, synchronizer
from benchmarks.encoder_cases import open_plugin
from benchmarks.gpu_variants import Way, attempt, tried
from plugins.vitmae.devices import computing
from plugins.vitmae.engine import _LANES, CudaEngine, engine_for
from plugins.vitmae.features import FeatureSpec
from plugins.vitmae.lanes import Stream, Work, part_for
from plugins.vitmae.networks import UnitVectors, levels_of
from plugins.vitmae.streams import CudaStream
from vitmae_search.vitmae import ViTImageProcessor, ViTMAEModel
from vitmae_search.vitmae.fused import fused, fusing

Images = NDArray[np.uint8]


@dataclass(frozen=True)
class Variant:
    """What is not as the plugin has it. `part` is times as many photos as a lane of its computes at once."""

    part: float = 1.0
    lanes: int = _LANES
    graph: bool = True
    fused: bool = True
    gelu_in_product: bool = True
    attention: SDPBackend | None = None

    def chosen(self) -> ExitStack:
        """A context in which these choices hold, where no graph was captured with others."""
        stack = ExitStack()
        if not self.fused:
            stack.enter_context(mock.patch.object(fused, "devices", ()))
        if not self.gelu_in_product:
            stack.enter_context(mock.patch.object(torch, "_addmm_activation", _gelu_after))
        if self.attention is not None:
            stack.enter_context(sdpa_kernel(self.attention))
        return stack


VARIANTS = {
    "as the plugin has it": Variant(),
    "norms and sums not compiled": Variant(fused=False),
    "no graphs": Variant(graph=False),
    "no graphs, nothing compiled": Variant(graph=False, fused=False),
    "one lane": Variant(lanes=1),
    "three lanes": Variant(lanes=3),
    "GELU after the product": Variant(gelu_in_product=False),
    "flash attention": Variant(attention=SDPBackend.FLASH_ATTENTION),
    "cuDNN's attention": Variant(attention=SDPBackend.CUDNN_ATTENTION),
    "memory-efficient attention": Variant(attention=SDPBackend.EFFICIENT_ATTENTION),
    "parts a quarter as large": Variant(part=0.25),
    "parts half as large": Variant(part=0.5),
    "parts twice as large": Variant(part=2.0),
}


def through_the_plugin(folder: Path, images: Images, device: torch.device, precision: str = "auto") -> Way:
    """As `index` calls it, from bytes of the host to vectors of the host; the batch is the plugin's own."""
    memory = PeakMemory(device)
    embedder = open_plugin(folder, str(device), precision)
    opened: Any = embedder._embedder
    opened._engine.fuse_after = 0.0  # as in a long run
    batch = images[: embedder.batch_size]
    run = partial(embedder.embed, batch)
    first, _ = tried(run, len(batch), device)
    return Way(run, len(batch), first, memory.peak(run))


def on_the_device(folder: Path, images: Images, device: torch.device) -> Way:
    """A lane's part over and over, of bytes that are there: without what copies and the host cost."""
    memory = PeakMemory(device)
    network = network_of(folder, device)
    part = part_of(network, images)
    bytes_in = torch.from_numpy(images[:part]).to(device)
    stream, out = stream_of(device), torch.empty(part, network.width, device=device)

    def compute() -> None:
        with computing(device, "bf16"), fusing():
            out.copy_(network(bytes_in))

    started = time.perf_counter()
    synchronizer(device)()
    again = stream.recorded(compute)

    def run() -> Tensor:
        stream.launch(again)
        return out

    run()
    stream.wait()
    return Way(run, part, time.perf_counter() - started, memory.peak(run))


def variants(folder: Path, images: Images, device: torch.device) -> Iterator[tuple[str, Way]]:
    """By name, from the host's bytes to its vectors. What the device cannot do is named and left out."""
    for name, variant in VARIANTS.items():
        found = attempt(name, partial(of_variant, folder, images, device, variant))
        if found is not None:
            yield name, found
    yield "fp32", through_the_plugin(folder, images, device, "fp32")


def of_variant(folder: Path, images: Images, device: torch.device, variant: Variant) -> Way:
    memory = PeakMemory(device)
    network = network_of(folder, device)
    part = part_of(network, images, variant.part)
    streams = [stream_of(device, variant.graph) for _ in range(variant.lanes)]
    engine = CudaEngine(network, device, "bf16", part, streams)
    engine.fuse_after = 0.0
    batch = images[: engine.batch_size]

    def run() -> NDArray[np.float32]:
        with variant.chosen():
            return engine.run(batch)

    first, _ = tried(run, len(batch), device)
    return Way(run, len(batch), first, memory.peak(run))


def network_of(folder: Path, device: torch.device) -> UnitVectors:
    """What the plugin computes, in bf16 on the device, as its engine makes it."""
    encoder = ViTMAEModel.from_pretrained(str(folder)).eval()
    config = encoder.config
    features = FeatureSpec((config.num_hidden_layers,), "mean", None, {})
    levels = levels_of(ViTImageProcessor.from_pretrained(str(folder)))
    network = UnitVectors(encoder, levels, config.hidden_size, features=features, gem_power=3.0, views="1")
    engine_for(network, config, config.image_shape, device=device, precision="bf16")
    return network


def part_of(network: UnitVectors, images: Images, times: float = 1.0) -> int:
    """As `times` as many photos as a lane of the plugin's computes at once; a quarter of `images` at most."""
    encoder: Any = network.encoder
    part = part_for(1 + encoder.config.num_patches, encoder.config.hidden_size)
    return min(int(times * part), len(images) // 4)


def stream_of(device: torch.device, graph: bool = True) -> Stream:
    if device.type != "cuda":
        return _AtOnce()
    CudaStream.graphs = True  # what one variant cannot, another can
    return CudaStream(device) if graph else _NoGraph(device)


class _NoGraph(CudaStream):
    def _captured(self, work: Work) -> Work:
        return work


class _AtOnce:
    """A CPU in a stream's place."""

    def on_host(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return torch.empty(shape, dtype=dtype)

    on_device = on_host

    def launch(self, work: Work) -> None:
        work()

    def wait(self) -> None:
        pass

    def recorded(self, work: Work) -> Work:
        work()
        return work


def _gelu_after(bias: Tensor, rows: Tensor, weight: Tensor, *, use_gelu: bool) -> Tensor:
    assert use_gelu
    return functional.gelu(torch.addmm(bias, rows, weight), approximate="tanh")
