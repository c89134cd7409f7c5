"""Data-parallel training in several processes, as `accelerate launch` and `torchrun` start them."""

from __future__ import annotations

import atexit
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from vitmae_search.errors import ConfigError, TrainingError
from vitmae_search.vitmae import choose_device

_TIMEOUT = timedelta(days=1)
"""How long processes wait for one another. The others wait while the first one packs the photos."""


@dataclass(frozen=True, slots=True)
class DistributedContext:
    """This process's rank among `world_size` processes, its device, and the collectives between them.

    With `world_size` 1 all collectives are no-ops. Otherwise every process must call the same ones in the
    same order.
    """

    device: torch.device
    rank: int = 0
    world_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files and reports progress."""
        return self.rank == 0

    def local_slice(self, count: int) -> slice:
        """This process's part of `count` rows.

        Raises:
            ConfigError: `count` is not a multiple of the number of processes.
        """
        if count % self.world_size:
            raise ConfigError("batch_size", count, f"must be a multiple of the {self.world_size} processes")
        size = count // self.world_size
        return slice(self.rank * size, (self.rank + 1) * size)

    def sum(self, values: Sequence[float]) -> list[float]:
        """Each value summed over the processes."""
        if self.world_size == 1:
            return list(values)
        from accelerate.utils import reduce

        summed: Tensor = reduce(torch.tensor(values, dtype=torch.float64, device=self.device), "sum")
        return summed.tolist()

    def all_gather(self, rows: Tensor) -> Tensor:
        """The rows (n, …) of every process, in rank order; n must be the same in each."""
        if self.world_size == 1:
            return rows
        from accelerate.utils import gather

        gathered: Tensor = gather(rows.contiguous())
        return gathered

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replace each gradient by its sum over the processes."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        if self.world_size == 1 or not gradients:
            return
        from accelerate.utils import reduce

        vector_to_parameters(reduce(parameters_to_vector(gradients), "sum"), gradients)

    def barrier(self) -> None:
        """Wait until all processes have called this."""
        if self.world_size > 1:
            from accelerate import PartialState

            PartialState().wait_for_everyone()

    @contextmanager
    def main_process_first(self) -> Iterator[None]:
        """Run the block in the main process before the others, which then find its files."""
        if not self.is_main:
            self.barrier()
        yield
        if self.is_main:
            self.barrier()


def is_main_process() -> bool:
    """Whether this process is the only one, or the main one of several."""
    joined = torch.distributed.is_available() and torch.distributed.is_initialized()
    return not joined or torch.distributed.get_rank() == 0


def init_distributed(device: str) -> DistributedContext:
    """Join the processes that were launched together with this one, if any.

    Args:
        device: As for `choose_device`. Among several processes only "cpu", or "auto": each process gets a
            GPU of its own, or the CPU where there is none.

    Raises:
        DeviceError: The device is not available.
        ConfigError: A specific device was requested in one of several processes.
        TrainingError: There are several processes and Accelerate is not installed.
    """
    if not _is_launched():
        return DistributedContext(choose_device(device))
    try:
        from accelerate import PartialState
    except ImportError as error:
        how = "pip install 'vitmae-search[distributed]'"
        raise TrainingError(f"several processes need Accelerate: {how}") from error
    if device not in ("auto", "cpu"):
        raise ConfigError("device", device, "must be auto or cpu: each process has a device of its own")
    cpu = device == "cpu" or not torch.cuda.is_available()
    state = PartialState(cpu=cpu, timeout=_TIMEOUT)
    atexit.register(state.destroy_process_group)
    return DistributedContext(state.device, state.process_index, state.num_processes)


def _is_launched() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_torchelastic_launched()
