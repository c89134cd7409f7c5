"""The arithmetic on a device, and what it is called."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch


@contextmanager
def computing(device: torch.device, precision: str) -> Iterator[None]:
    """No gradients, and arithmetic as `precision` says.

    bf16 on a GPU is autocast: matrix products in bf16 over fp32 weights, while norms and the residual
    stream stay in fp32, which keeps vectors closer than a model made bf16 throughout; on a CPU the model
    is prepacked, which is the same but for its speed. fp32 on CUDA really is: cuDNN would round the patch
    projection's inputs to TF32 if left alone. Raises MemoryError on the CPU too.
    """
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode())
        if precision == "bf16" and device.type != "cpu":
            stack.enter_context(torch.autocast(device.type, dtype=torch.bfloat16))
        elif device.type == "cuda":
            exact = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
            stack.enter_context(exact)
        try:
            yield
        except RuntimeError as error:
            if "DefaultCPUAllocator" in str(error):  # torch has no class for this on the CPU
                raise MemoryError(str(error).splitlines()[0]) from error
            raise


def device_name(device: torch.device) -> str:
    """The device as a person knows it."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
