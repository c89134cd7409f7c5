"""Ours in `gpu_encoding`: through the plugin, from photos on the device, and with each choice undone."""

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
from benchmarks.gpu_other_encoders import Candidate, first_call_and_rate, try_or_report
from plugins.vitmae.devices import inference_context
from plugins.vitmae.engine import _LANES, CudaEngine, engine_for
from plugins.vitmae.features import FeatureSpec
from plugins.vitmae.lanes import Stream, Work, rows_per_part
from plugins.vitmae.networks import UnitVectors, normalization_table
from plugins.vitmae.streams import CudaStream
from vitmae_search.vitmae import ViTImageProcessor, ViTMAEModel
from vitmae_search.vitmae.fused import fused, fusing

Images = NDArray[np.uint8]


@dataclass(frozen=True)
class Variant:
    """Settings that differ from the plugin's. `part` multiplies the number of photos in a chunk."""

    part: float = 1.0
    lanes: int = _LANES
    graph: bool = True
    fused: bool = True
    gelu_in_product: bool = True
    attention: SDPBackend | None = None

    def chosen(self) -> ExitStack:
        """A context in which these settings apply, unless a graph was captured with others."""
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


def plugin_candidate(
    folder: Path, images: Images, device: torch.device, precision: str = "auto"
) -> Candidate:
    """The plugin as `index` calls it, from the host's bytes to vectors on the host, in its own batch size.

    Args:
        folder: The checkpoint's folder.
        images: (N, H, W, 3) uint8.
        device: Where it runs.
        precision: As `--precision` takes it.
    """
    memory = PeakMemory(device)
    embedder = open_plugin(folder, str(device), precision)
    opened: Any = embedder._embedder
    opened._engine.fuse_after = 0.0  # as in a long run
    batch = images[: embedder.batch_size]
    run = partial(embedder.embed, batch)
    first, _ = first_call_and_rate(run, len(batch), device)
    return Candidate(run, len(batch), first, memory.peak(run))


def resident_candidate(folder: Path, images: Images, device: torch.device) -> Candidate:
    """One chunk again and again, from bytes on the device: without copies and work of the host.

    Args:
        folder: The checkpoint's folder.
        images: (N, H, W, 3) uint8.
        device: Where it runs.
    """
    memory = PeakMemory(device)
    network = network_for(folder, device)
    part = chunk_size(network, images)
    bytes_in = torch.from_numpy(images[:part]).to(device)
    stream, out = stream_for(device), torch.empty(part, network.width, device=device)

    def compute() -> None:
        with inference_context(device, "bf16"), fusing():
            out.copy_(network(bytes_in))

    started = time.perf_counter()
    synchronizer(device)()
    again = stream.record(compute)

    def run() -> Tensor:
        stream.launch(again)
        return out

    run()
    stream.wait()
    return Candidate(run, part, time.perf_counter() - started, memory.peak(run))


def variant_candidates(folder: Path, images: Images, device: torch.device) -> Iterator[tuple[str, Candidate]]:
    """Variants by name, from the host's bytes to its vectors. What the device cannot do is reported.

    Args:
        folder: The checkpoint's folder.
        images: (N, H, W, 3) uint8.
        device: Where it runs.
    """
    for name, variant in VARIANTS.items():
        found = try_or_report(name, partial(candidate_of, folder, images, device, variant))
        if found is not None:
            yield name, found
    yield "fp32", plugin_candidate(folder, images, device, "fp32")


def candidate_of(folder: Path, images: Images, device: torch.device, variant: Variant) -> Candidate:
    """The engine with a variant's settings.

    Args:
        folder: The checkpoint's folder.
        images: (N, H, W, 3) uint8.
        device: Where it runs.
        variant: The settings.
    """
    memory = PeakMemory(device)
    network = network_for(folder, device)
    part = chunk_size(network, images, variant.part)
    streams = [stream_for(device, variant.graph) for _ in range(variant.lanes)]
    engine = CudaEngine(network, device, "bf16", part, streams)
    engine.fuse_after = 0.0
    batch = images[: engine.batch_size]

    def run() -> NDArray[np.float32]:
        with variant.chosen():
            return engine.run(batch)

    first, _ = first_call_and_rate(run, len(batch), device)
    return Candidate(run, len(batch), first, memory.peak(run))


def network_for(folder: Path, device: torch.device) -> UnitVectors:
    """The network of the plugin in bf16 on the device, as its engine prepares it.

    Args:
        folder: The checkpoint's folder.
        device: Where it runs.
    """
    encoder = ViTMAEModel.from_pretrained(str(folder)).eval()
    config = encoder.config
    features = FeatureSpec((config.num_hidden_layers,), "mean", None, {})
    levels = normalization_table(ViTImageProcessor.from_pretrained(str(folder)))
    network = UnitVectors(encoder, levels, config.hidden_size, features=features, gem_power=3.0, views="1")
    engine_for(network, config, config.image_shape, device=device, precision="bf16")
    return network


def chunk_size(network: UnitVectors, images: Images, times: float = 1.0) -> int:
    """How many photos a chunk has; at most a quarter of `images`.

    Args:
        network: The plugin's network.
        images: The batch.
        times: Multiplies the plugin's own number.
    """
    encoder: Any = network.encoder
    part = rows_per_part(1 + encoder.config.num_patches, encoder.config.hidden_size)
    return min(int(times * part), len(images) // 4)


def stream_for(device: torch.device, graph: bool = True) -> Stream:
    """A CUDA stream; on a CPU an object that runs work at once.

    Args:
        device: Where it runs.
        graph: Capture CUDA graphs.
    """
    if device.type != "cuda":
        return _CpuStream()
    CudaStream.graphs = True  # what one variant cannot, another can
    return CudaStream(device) if graph else _GraphlessStream(device)


class _GraphlessStream(CudaStream):
    def _capture(self, work: Work) -> Work:
        return work


class _CpuStream:
    """Stands in for a CUDA stream on a CPU: work runs at once."""

    def on_host(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return torch.empty(shape, dtype=dtype)

    on_device = on_host

    def launch(self, work: Work) -> None:
        work()

    def wait(self) -> None:
        pass

    def record(self, work: Work) -> Work:
        work()
        return work


def _gelu_after(bias: Tensor, rows: Tensor, weight: Tensor, *, use_gelu: bool) -> Tensor:
    assert use_gelu
    return functional.gelu(torch.addmm(bias, rows, weight), approximate="tanh")
