"""OpenVINO computes the encoder in long runs on a CPU; an optional package.

Converting and compiling take seconds, so what is compiled is kept in the cache folder.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import json
import logging
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vitmae_search.atomic import write_atomically
from vitmae_search.errors import DeviceError, PluginOptionError, display_path
from vitmae_search.settings import settings
from vitmae_search.vitmae import ViTMAEModel

from .options import NAME
from .quantization import Quantization, Range

log = logging.getLogger(__name__)

_PRECISIONS = {"bf16": "bf16", "fp32": "f32"}
_CACHE = "openvino"
_KEPT = 4
"""Compiled encoders in the cache folder: 22 MB for the bundled model, 340 MB for a ViT-B/16."""
_INPUT_LEVELS, _WEIGHT_LEVELS = 256, 255
"""Of int8; OpenVINO multiplies whole numbers for these alone."""
_WEIGHT_MARGIN = 127 / 63
"""Weights use 63 of the 127 levels above 0: with all, sums of two products overflow 16 bits, which is what a
CPU without VNNI has for them, so that it would give other vectors."""
_MODULE = "__module.encoder."
"""Before the names of the encoder's modules in a converted model."""
_DIGEST_SIZE = hashlib.sha256().digest_size


def is_installed() -> bool:
    """Whether the package is there; it is not imported."""
    return importlib.util.find_spec("openvino") is not None


def require_openvino(device: torch.device, option: str = "runtime=openvino") -> None:
    """Check that OpenVINO can compute.

    Args:
        device: Must be a CPU.
        option: What asks for it, for the message.

    Raises:
        DeviceError: The device is not a CPU.
        PluginOptionError: OpenVINO is not installed.
    """
    if device.type != "cpu":
        raise DeviceError(
            f"{device.type}: {option} computes on the CPU only; choose --device cpu, or runtime=torch"
        )
    if not is_installed():
        missing = f"{option} needs a package that is not there: pip install 'vitmae-search[openvino]'"
        raise PluginOptionError(NAME, missing)


def runtime_name() -> str:
    """The package's name with its version."""
    return f"openvino {importlib.metadata.version('openvino').partition('-')[0]}"


class OpenVINOEncoder(nn.Module):
    """`ViTMAEModel.encode` in OpenVINO, for fixed layers and a fixed image size.

    It computes as many batches at a time as torch has threads, each on one core, if as many threads call
    `encode`.

    Args:
        compiled: A `CompiledModel`.
    """

    def __init__(self, compiled: Any) -> None:
        super().__init__()
        self._compiled = compiled
        self._local = threading.local()

    def encode(
        self, pixel_values: Tensor, layers: Sequence[int], *, interpolate_pos_encoding: bool = False
    ) -> tuple[Tensor, ...]:
        """The hidden states of the layers; may be called by several threads at a time.

        Args:
            pixel_values: (N, 3, H, W).
            layers: The layers that it was made for.
            interpolate_pos_encoding: Ignored; positions always fit the size that it was made for.

        Returns:
            (N, 1 + L, D) float32 for each layer.
        """
        request = getattr(self._local, "request", None)
        if request is None:
            request = self._local.request = self._compiled.create_infer_request()
        states = request.infer({0: pixel_values.float().contiguous().numpy()}, share_inputs=True)
        return tuple(torch.from_numpy(states[number]) for number in range(len(self._compiled.outputs)))


@dataclass(frozen=True, slots=True)
class OpenVINOCompiler:
    """Compiles an encoder, or takes the one that was compiled before from the cache folder.

    Attributes:
        load_encoder: Gives the encoder in fp32.
        layers: The layers whose states `encode` will return.
        size: (height, width) of the images, in pixels.
        precision: "bf16" or "fp32".
        identity: Of the embedder, as JSON values: what the encoder is cached by.
        quantization: For int8; None computes in `precision`.
    """

    load_encoder: Callable[[], ViTMAEModel]
    layers: tuple[int, ...]
    size: tuple[int, int]
    precision: str
    identity: dict[str, Any]
    quantization: Quantization | None = None

    def is_cached(self) -> bool:
        """Whether `compile` need not compile."""
        return self._path().exists()

    def compile(self) -> OpenVINOEncoder:
        """The encoder in OpenVINO; takes seconds if it was never compiled here.

        Raises:
            PluginOptionError: The model loses too much in int8.
        """
        # OpenVINO gives the thread that loads it a stack for signal handlers, and frees that stack when the
        # last model goes, in whatever thread. The next Ctrl-C would crash, so this thread ends before.
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(self._compile).result()

    def _compile(self) -> OpenVINOEncoder:
        encoder = self._compile_or_load()
        # OpenVINO's first inference sets up what its Python part shares. Two threads at once would wait for
        # each other there, one of them with Python's lock.
        encoder.encode(torch.zeros(1, 3, *self.size), self.layers)
        return encoder

    def _compile_or_load(self) -> OpenVINOEncoder:
        openvino = importlib.import_module("openvino")
        core, options = openvino.Core(), self._options()
        blob = _read(self._path())
        if blob is not None:
            return OpenVINOEncoder(core.import_model(BytesIO(blob), "CPU", options))
        encoder = self.load_encoder()
        model = _convert(EncoderWrapper(encoder, self.layers).eval(), torch.zeros(2, 3, *self.size))
        if self.quantization is not None:
            _quantize(model, self.quantization.input_ranges(encoder))
        compiled = core.compile_model(model, "CPU", options)
        result = OpenVINOEncoder(compiled)
        if self.quantization is not None:
            self.quantization.check(encoder.encode, result.encode, self.layers)
        _write(self._path(), compiled.export_model().getvalue())
        return result

    def _options(self) -> dict[str, Any]:
        cores = torch.get_num_threads()
        return {
            "INFERENCE_PRECISION_HINT": _PRECISIONS[self.precision],
            "NUM_STREAMS": cores,
            "INFERENCE_NUM_THREADS": cores,
            "ENABLE_CPU_PINNING": False,  # no slower, and photos are decoded at the same time
        }

    def _path(self) -> Path:
        """Named by all that the compiled encoder depends on, this CPU's instructions included."""
        facts = (self.identity, self.layers, self.size, self._options(), runtime_name())
        cpu = torch.backends.cpu.get_cpu_capability()
        name = hashlib.sha256(json.dumps([facts, cpu], sort_keys=True).encode()).hexdigest()
        return settings().cache / _CACHE / f"{name}.blob"


class EncoderWrapper(nn.Module):
    """Traceable module returning the selected hidden states."""

    def __init__(self, encoder: ViTMAEModel, layers: Sequence[int]) -> None:
        super().__init__()
        self.encoder, self.layers = encoder, tuple(layers)

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        """(N, 3, H, W) to (N, 1 + L, D) for each layer."""
        return self.encoder.encode(pixel_values, self.layers, interpolate_pos_encoding=True)


def _convert(module: nn.Module, example: Tensor) -> Any:
    """Convert a module for any batch size, as `openvino.convert_model` does, but without its telemetry."""
    frontend = importlib.import_module("openvino.frontend").FrontEndManager().load_by_framework("pytorch")
    decoding = importlib.import_module("openvino.frontend.pytorch.ts_decoder")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing fixes sizes, which is intended
        # To trace twice and compare would be most of the time that a first start takes.
        once = {"check_trace": False}
        decoder = decoding.TorchScriptPythonDecoder(module, example_input=(example,), trace_kwargs=once)
        model = frontend.convert(frontend.load(decoder))
    model.reshape([-1, *example.shape[1:]])
    return model


def _quantize(model: Any, ranges: Mapping[str, Range]) -> None:
    """Round inputs and weights of linear maps, in place; OpenVINO then multiplies whole numbers.

    Args:
        model: As `_convert` returns it.
        ranges: Of the inputs of all of the encoder's linear maps that are computed, by name.
    """
    rounded = importlib.import_module("openvino.opset13").fake_quantize
    waiting = dict(ranges)
    for node in model.get_ordered_ops():
        name = node.get_friendly_name().removeprefix(_MODULE).partition("/")[0]
        if node.get_type_name() != "MatMul" or name not in waiting:
            continue
        inputs, weights = (port.get_source_output() for port in node.inputs())
        lowest, highest = waiting.pop(name)
        step = (highest - lowest) / (_INPUT_LEVELS - 1)
        lowest = round(lowest / step) * step  # so that 0 is a level
        limits = np.float32(lowest), np.float32(lowest + step * (_INPUT_LEVELS - 1))
        largest = (
            np.abs(weights.get_node().data).max(axis=1, keepdims=True) * _WEIGHT_MARGIN
        )  # of each output
        node.input(0).replace_source_output(rounded(inputs, *limits, *limits, _INPUT_LEVELS).output(0))
        sides = (-largest, largest) * 2
        node.input(1).replace_source_output(rounded(weights, *sides, _WEIGHT_LEVELS).output(0))
    if waiting:
        raise RuntimeError(f"not found in the converted model: {', '.join(waiting)}")


def _read(path: Path) -> bytes | None:
    """A cached encoder; None if there is none, or it is damaged, which OpenVINO itself would not notice."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    blob, digest = content[:-_DIGEST_SIZE], content[-_DIGEST_SIZE:]
    return blob if hashlib.sha256(blob).digest() == digest else None


def _write(path: Path, blob: bytes) -> None:
    """Keep an encoder, and drop the oldest; what cannot be written is compiled again the next time."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_atomically(path, durable=False) as stream:
            stream.write(blob)
            stream.write(hashlib.sha256(blob).digest())
        for old in sorted(path.parent.glob("*.blob"), key=lambda file: -file.stat().st_mtime)[_KEPT:]:
            old.unlink(missing_ok=True)
    except OSError as error:
        log.warning(
            "%s cannot be written, so OpenVINO compiles again next time: %s", display_path(path), error
        )
