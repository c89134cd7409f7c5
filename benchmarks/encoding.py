"""Encoding: images a second from pixels to vectors, compared with other runtimes.

    python -m benchmarks.encoding [--only base|tiny] [--quick] [--device cuda]

--quick leaves out what compiles or is far behind, and takes three rounds: some two minutes for each model.

"base" is ViT-B/16 at 224 pixels with random weights, which are as fast as any; "tiny" is the bundled model.
All take turns in one run, on batches of the size that `index` uses (32, or 128 of small images); the
reference, which takes one image at a time, on some of them. Packages that are not installed (`pip install -e
".[bench]"`) are reported and left out.

Others get normalised pixels; ours gets the bytes that `prepare` gives, and normalises them. "Workers" are
threads that share the weights, with one torch thread each. The cosine is to the reference's vectors. On CUDA
the reference, as it is and compiled, is given pixels that are on the device already.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.devices import describe_device, require_device
from benchmarks.encoder_cases import (
    SHIPPED,
    EncoderCase,
    Rows,
    case_from_model,
    hf_model,
    installed,
    mean_pooled,
    one_at_a_time,
    open_plugin,
    random_case,
    unit_rows,
)
from benchmarks.timing import (
    ROUNDS,
    available_cores,
    comparison_rows,
    describe_machine,
    markdown_table,
    time_interleaved,
)
from plugins.vitmae.cpu_threads import WorkerPool
from vitmae_search.embedding import GuardedEmbedder
from vitmae_search.vitmae import ViTMAEModel, multiplies_in_bf16

BASE_BATCH, TINY_BATCH = 32, 128
"""The batch sizes that `index` uses."""

REFERENCE = "reference"
WARM_UP_BATCHES = 3
QUICK_ROUNDS = 3


@dataclass
class Variant:
    """`run` computes (N, D) means of the patch tokens, not normalised, from the case's images."""

    run: Callable[[], Any]
    note: str = ""


def chunk_size(case: EncoderCase) -> int:
    """How many images the others compute at a time: a quarter of the batch."""
    return len(case.pixels) // 4


def reference_batch(case: EncoderCase) -> Tensor:
    """The images that the reference is timed on: fewer, because it is slow."""
    return case.pixels[: 32 if case.pixels.shape[-1] < 100 else 4]


def main() -> None:
    """Print a table for each model as Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=["base", "tiny"])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--device", default="cpu")
    chosen = parser.parse_args()
    only, quick, device = chosen.only, chosen.quick, require_device(chosen.device)
    print(describe_device(device))
    print(describe_machine("torch", "transformers", "openvino", "onnxruntime"))
    with tempfile.TemporaryDirectory() as folder:
        if only != "tiny":
            compare("base", random_case("base", BASE_BATCH * _scale(device), Path(folder)), device, quick)
        if only != "base":
            compare("tiny", case_from_model(SHIPPED, 64, TINY_BATCH * _scale(device)), device, quick)


def _scale(device: torch.device) -> int:
    """How many times as large a batch is as on a CPU."""
    return 16 if device.type == "cuda" else 1


def compare(title: str, case: EncoderCase, device: torch.device, quick: bool = False) -> None:
    """Time all variants that are available, and print their table.

    Args:
        title: The table's title.
        case: Model and batch.
        device: Where they run.
        quick: Fewer variants and rounds.
    """
    variants = dict(cpu_variants(case, quick) if device.type == "cpu" else gpu_variants(case, device))
    vectors = {
        name: unit_rows(variant.run()) for name, variant in variants.items()
    }  # a first call may compile
    exact = unit_rows(one_at_a_time(hf_model(case.folder, torch.float32), case.pixels))
    for variant in variants.values():
        for _ in range(1 if quick else WARM_UP_BATCHES):
            variant.run()
    runs = {name: variant.run for name, variant in variants.items()}
    seconds = time_interleaved(runs, rounds=QUICK_ROUNDS if quick else ROUNDS)
    seconds[REFERENCE] *= len(case.pixels) / len(reference_batch(case))
    cosines = {name: (rows * exact[: len(rows)]).sum(axis=1).min() for name, rows in vectors.items()}
    notes = {name: [f"{cosines[name]:.6f}", variant.note] for name, variant in variants.items()}
    told: dict[str, Any] = {"unit": "images/s", "notes": notes, "columns": ["lowest cosine", "note"]}
    rows = comparison_rows(seconds, reference=REFERENCE, count=len(case.pixels), **told)
    print(f"\n{title}, {available_cores()} cores, batches of {len(case.pixels)}\n")
    print(markdown_table(*rows), flush=True)


def gpu_variants(case: EncoderCase, device: torch.device) -> Iterator[tuple[str, Variant]]:
    """Variants by name: the reference with its pixels on the device, as it is and compiled, and ours.

    Args:
        case: Model and batch.
        device: A GPU.
    """
    model = hf_model(case.folder, torch.bfloat16).to(device)
    pixels = case.pixels.to(device, torch.bfloat16)
    few = reference_batch(case).to(device, torch.bfloat16)
    yield REFERENCE, Variant(lambda: one_at_a_time(model, few), "transformers, bf16, one at a time")
    yield "HF bf16", Variant(lambda: mean_pooled(model, pixels))
    compiled: Any = torch.compile(model)
    yield "torch.compile bf16", Variant(lambda: mean_pooled(compiled, pixels))
    for compile_after, name in ((float("inf"), "ours"), (0.0, "ours, as in long runs")):
        embedder: Any = open_plugin(case.folder, str(device), "auto")
        embedder._embedder._engine.compile_after = compile_after
        yield name, _own(embedder, case, "from the host's bytes")


def _own(embedder: GuardedEmbedder, case: EncoderCase, note: str) -> Variant:
    return Variant(lambda: embedder.embed(case.images), note)


def cpu_variants(case: EncoderCase, quick: bool = False) -> Iterator[tuple[str, Variant]]:
    """Variants by name; those whose package is missing are reported and left out.

    Args:
        case: Model and batch.
        quick: Leave out those that compile for long, or are far behind.
    """
    full = hf_model(case.folder, torch.float32)
    yield (
        REFERENCE,
        Variant(lambda: one_at_a_time(full, reference_batch(case)), "transformers, fp32, one at a time"),
    )
    yield "HF fp32", Variant(lambda: mean_pooled(full, case.pixels))
    in_bf16 = multiplies_in_bf16(torch.device("cpu"))
    if in_bf16 or not quick:
        yield from hf_bf16_variants(case, quick)
    if installed("openvino"):
        for precision in ("f32", "bf16") if in_bf16 else ("f32",):
            yield f"OpenVINO {precision}", openvino_variant(case, precision)
    if installed("onnxruntime", "onnx"):
        yield from onnx_variants(case)
    runtimes = ("torch", "openvino") if installed("openvino") else ("torch",)
    for precision, runtime in product(("fp32", "auto"), runtimes):
        embedder = open_plugin(case.folder, "cpu", precision, runtime)
        said = f"{embedder.provenance['precision']}, normalisation included"
        yield f"ours, {precision}, {runtime}", _own(embedder, case, said)
    if installed("openvino"):
        embedder = open_plugin(case.folder, "cpu", "auto", quantization="int8")
        yield "ours, int8", _own(embedder, case, "int8, normalisation included")


def hf_bf16_variants(case: EncoderCase, quick: bool) -> Iterator[tuple[str, Variant]]:
    """The reference in bf16: in one batch, in workers, and compiled.

    Args:
        case: Model and batch.
        quick: Do not compile.
    """
    model = hf_model(case.folder, torch.bfloat16)
    half = case.pixels.bfloat16()
    pool = WorkerPool(available_cores(), chunk_size(case))
    yield "HF bf16", Variant(lambda: mean_pooled(model, half))
    yield "HF bf16, workers", Variant(lambda: in_workers(pool, model, half))
    if not quick:
        yield "torch.compile bf16, workers", compiled_variant(model, half, pool, chunk_size(case))


# Variants of other runtimes


def in_workers(pool: WorkerPool, model: nn.Module, pixels: Tensor) -> Rows:
    """`mean_pooled` in parts, of which each worker takes the next.

    Args:
        pool: The workers.
        model: A model of transformers.
        pixels: (N, 3, H, W).
    """
    dtype, rows = pixels.dtype, pixels.float().numpy()  # NumPy has no bf16
    return pool.run(lambda part: mean_pooled(model, torch.from_numpy(part).to(dtype)), rows)


def compiled_variant(model: nn.Module, pixels: Tensor, pool: WorkerPool, part: int) -> Variant:
    """`torch.compile` with frozen weights, compiled for one thread, as its workers have.

    Args:
        model: A model of transformers.
        pixels: (N, 3, H, W).
        pool: The workers.
        part: Images in a chunk.
    """
    import torch._inductor.config as inductor

    inductor.freezing = True
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    fast: Any = torch.compile(model)
    started = time.perf_counter()
    mean_pooled(fast, pixels[:part])
    taken = time.perf_counter() - started
    torch.set_num_threads(before)

    def run() -> Rows:
        return in_workers(pool, fast, pixels)

    return Variant(run, f"compiled in {taken:.0f} s")


class ExportedEncoder(nn.Module):
    """Our encoder in fp32 with mean pooling, for conversion to other runtimes."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.encoder = ViTMAEModel.from_pretrained(str(folder)).eval()
        self.last = (self.encoder.config.num_hidden_layers,)

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, D)."""
        tokens: Tensor = self.encoder.encode(pixels, self.last)[0]
        return tokens[:, 1:].mean(dim=1)


def openvino_variant(case: EncoderCase, precision: str) -> Variant:
    """OpenVINO with a stream for each core.

    Args:
        case: Model and batch.
        precision: "f32" or "bf16".
    """
    import openvino as ov

    started = time.perf_counter()
    model = ov.convert_model(ExportedEncoder(case.folder), example_input=case.pixels[: chunk_size(case)])
    hints = {
        "INFERENCE_PRECISION_HINT": precision,
        "NUM_STREAMS": available_cores(),
        "INFERENCE_NUM_THREADS": available_cores(),
    }
    network = ov.Core().compile_model(model, "CPU", hints)
    taken = time.perf_counter() - started
    parts = [part.numpy() for part in case.pixels.tensor_split(len(case.pixels) // chunk_size(case))]
    queue = ov.AsyncInferQueue(network, 2 * available_cores())
    found: dict[int, Rows] = {}
    queue.set_callback(
        lambda request, number: found.__setitem__(number, request.get_output_tensor(0).data.copy())
    )

    def run() -> Rows:
        for number, part in enumerate(parts):
            queue.start_async({0: part}, number)
        queue.wait_all()
        return np.concatenate([found[number] for number in range(len(parts))])

    return Variant(run, f"converted in {taken:.0f} s")


def onnx_variants(case: EncoderCase) -> Iterator[tuple[str, Variant]]:
    """ONNX Runtime in fp32 and in int8 (dynamic quantisation per channel), with one worker for each core."""
    import onnxruntime as ort
    from onnxruntime.quantization import quantize_dynamic

    pool = ThreadPoolExecutor(available_cores())
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = 1
    settings.log_severity_level = 3
    parts = [part.numpy() for part in case.pixels.tensor_split(len(case.pixels) // chunk_size(case))]
    with tempfile.TemporaryDirectory() as folder:
        whole, small = f"{folder}/fp32.onnx", f"{folder}/int8.onnx"
        example, free = (case.pixels[: chunk_size(case)],), {"pixels": {0: "batch"}}
        named: dict[str, Any] = {"input_names": ["pixels"], "dynamic_axes": free, "dynamo": False}
        torch.onnx.export(ExportedEncoder(case.folder), example, whole, **named)
        quantize_dynamic(whole, small, per_channel=True)
        for name, path in (("ONNX Runtime fp32", whole), ("ONNX Runtime int8", small)):
            session = ort.InferenceSession(path, settings, providers=["CPUExecutionProvider"])

            def run(session: Any = session) -> Rows:
                return np.concatenate(
                    list(pool.map(lambda part: session.run(None, {"pixels": part})[0], parts))
                )

            yield name, Variant(run)


if __name__ == "__main__":
    main()
