"""OpenVINO as the runtime of the encoder on a CPU; an optional package."""

from __future__ import annotations

import importlib
import threading
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vitmae_search.errors import DeviceError, PluginOptionError
from vitmae_search.vitmae import ViTMAEModel

from .options import NAME

_PRECISIONS = {"bf16": "bf16", "fp32": "f32"}


def runtime_name(device: torch.device) -> str:
    """The runtime's name with its version.

    Raises:
        DeviceError: The device is not a CPU.
        PluginOptionError: OpenVINO is not installed.
    """
    if device.type != "cpu":
        raise DeviceError(
            f"{device.type}: runtime=openvino computes on the CPU only; choose --device cpu, or runtime=torch"
        )
    version: str = _import_module("openvino").__version__
    return f"openvino {version.partition('-')[0]}"


class OpenVINOEncoder:
    """`ViTMAEModel.encode` in OpenVINO, for fixed layers and a fixed image size.

    It computes as many batches at a time as torch has threads, each on one core, if as many threads call
    `encode`.

    Args:
        encoder: Its weights are copied.
        layers: The layers whose states `encode` returns.
        size: (height, width) of the images, in pixels.
        precision: "bf16" or "fp32".
    """

    def __init__(
        self, encoder: ViTMAEModel, layers: Sequence[int], size: tuple[int, int], precision: str
    ) -> None:
        openvino, cores = _import_module("openvino"), torch.get_num_threads()
        model = _convert(EncoderWrapper(encoder, layers).eval(), torch.zeros(2, 3, *size))
        settings = {
            "INFERENCE_PRECISION_HINT": _PRECISIONS[precision],
            "NUM_STREAMS": cores,
            "INFERENCE_NUM_THREADS": cores,
            "ENABLE_CPU_PINNING": False,  # no slower, and photos are decoded at the same time
        }
        self._compiled = openvino.Core().compile_model(model, "CPU", settings)
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
        states = request.infer({0: pixel_values.contiguous().numpy()}, share_inputs=True)
        return tuple(torch.from_numpy(states[number]) for number in range(len(self._compiled.outputs)))


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
    frontend = _import_module("openvino.frontend").FrontEndManager().load_by_framework("pytorch")
    decoding = _import_module("openvino.frontend.pytorch.ts_decoder")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing fixes sizes, which is intended
        decoder = decoding.TorchScriptPythonDecoder(module, example_input=(example,))
        model = frontend.convert(frontend.load(decoder))
    model.reshape([-1, *example.shape[1:]])
    return model


def _import_module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        missing = "runtime=openvino needs a package that is not there: pip install 'vitmae-search[openvino]'"
        raise PluginOptionError(NAME, missing) from error
