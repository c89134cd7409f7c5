"""OpenVINO in torch's place for the encoder's layers, on a CPU. Its package is optional."""

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
    """With its version. Raises `DeviceError` for another device, `PluginOptionError` where it is missing."""
    if device.type != "cpu":
        raise DeviceError(
            f"{device.type}: runtime=openvino computes on the CPU only; choose --device cpu, or runtime=torch"
        )
    version: str = _module("openvino").__version__
    return f"openvino {version.partition('-')[0]}"


class OpenVINOEncoder:
    """What `ViTMAEModel.encode` gives, of images of one size, (height, width), and of these layers only.

    As many images are computed at a time as torch has threads, each on one core, where as many threads call
    `encode`. Nothing is kept of `encoder` but a copy of its weights.
    """

    def __init__(
        self, encoder: ViTMAEModel, layers: Sequence[int], size: tuple[int, int], precision: str
    ) -> None:
        openvino, cores = _module("openvino"), torch.get_num_threads()
        model = _converted(_States(encoder, layers).eval(), torch.zeros(2, 3, *size))
        settings = {
            "INFERENCE_PRECISION_HINT": _PRECISIONS[precision],
            "NUM_STREAMS": cores,
            "INFERENCE_NUM_THREADS": cores,
            "ENABLE_CPU_PINNING": False,  # photos are decoded beside it; no slower
        }
        self._compiled = openvino.Core().compile_model(model, "CPU", settings)
        self._of_thread = threading.local()

    def encode(
        self, pixel_values: Tensor, layers: Sequence[int], *, interpolate_pos_encoding: bool = False
    ) -> tuple[Tensor, ...]:
        """(N, 3, H, W) to (N, 1 + L, D) float32 for each layer; the other arguments are as it was made for.

        Called by several threads at a time.
        """
        request = getattr(self._of_thread, "request", None)
        if request is None:
            request = self._of_thread.request = self._compiled.create_infer_request()
        states = request.infer({0: pixel_values.contiguous().numpy()}, share_inputs=True)
        return tuple(torch.from_numpy(states[number]) for number in range(len(self._compiled.outputs)))


class _States(nn.Module):
    """What is handed over."""

    def __init__(self, encoder: ViTMAEModel, layers: Sequence[int]) -> None:
        super().__init__()
        self.encoder, self.layers = encoder, tuple(layers)

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        return self.encoder.encode(pixel_values, self.layers, interpolate_pos_encoding=True)


def _converted(module: nn.Module, example: Tensor) -> Any:
    """Its graph, for any number of images.

    What `openvino.convert_model` does, but for the message that it sends to its makers about each use.
    """
    frontend = _module("openvino.frontend").FrontEndManager().load_by_framework("pytorch")
    decoding = _module("openvino.frontend.pytorch.ts_decoder")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a trace, that sizes are fixed, as they are meant to be
        decoder = decoding.TorchScriptPythonDecoder(module, example_input=(example,))
        model = frontend.convert(frontend.load(decoder))
    model.reshape([-1, *example.shape[1:]])
    return model


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        missing = "runtime=openvino needs a package that is not there: pip install 'vitmae-search[openvino]'"
        raise PluginOptionError(NAME, missing) from error
