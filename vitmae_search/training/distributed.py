"""Several processes that train one model together, as `accelerate launch` and `torchrun` start them."""

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

_PATIENCE = timedelta(days=1)
"""How long processes wait for one another: while the first one packs the photos, the others do."""


@dataclass(frozen=True, slots=True)
class Processes:
    """This process, number `index` of `count`, and its device. One alone speaks to nobody.

    What is asked of several must be asked in each of them, in the same order.
    """

    device: torch.device
    index: int = 0
    count: int = 1

    @property
    def main(self) -> bool:
        """Whether this is the one that writes files and tells of the progress."""
        return self.index == 0

    def share(self, count: int) -> slice:
        """This process's part of `count` rows. Raises `ConfigError` where the parts would be unequal."""
        if count % self.count:
            raise ConfigError("batch_size", count, f"must be a multiple of the {self.count} processes")
        size = count // self.count
        return slice(self.index * size, (self.index + 1) * size)

    def total(self, values: Sequence[float]) -> list[float]:
        """Each value summed over the processes."""
        if self.count == 1:
            return list(values)
        from accelerate.utils import reduce

        summed: Tensor = reduce(torch.tensor(values, dtype=torch.float64, device=self.device), "sum")
        return summed.tolist()

    def gather(self, rows: Tensor) -> Tensor:
        """The (n, …) of every process, as many in each, one after another."""
        if self.count == 1:
            return rows
        from accelerate.utils import gather

        gathered: Tensor = gather(rows.contiguous())
        return gathered

    def add_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Leave the sum of all processes' gradients in each of them."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        if self.count == 1 or not gradients:
            return
        from accelerate.utils import reduce

        vector_to_parameters(reduce(parameters_to_vector(gradients), "sum"), gradients)

    def wait(self) -> None:
        """Until all processes are here."""
        if self.count > 1:
            from accelerate import PartialState

            PartialState().wait_for_everyone()

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """The main process does what is inside, and then the others, which find its files."""
        if not self.main:
            self.wait()
        yield
        if self.main:
            self.wait()


def is_main_process() -> bool:
    """Whether this process is alone, or the main one of several."""
    joined = torch.distributed.is_available() and torch.distributed.is_initialized()
    return not joined or torch.distributed.get_rank() == 0


def _launched() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_torchelastic_launched()


def join_processes(device: str) -> Processes:
    """This process among those that were launched with it; alone, with its device, where none were.

    Among several, "cpu" is the CPU and "auto" a GPU of its own for each, or the CPU where there is none.
    Raises `DeviceError`; `ConfigError` for another device among several; `TrainingError` where Accelerate,
    which connects them, is not installed.
    """
    if not _launched():
        return Processes(choose_device(device))
    try:
        from accelerate import PartialState
    except ImportError as error:
        how = "pip install 'vitmae-search[distributed]'"
        raise TrainingError(f"several processes need Accelerate: {how}") from error
    if device not in ("auto", "cpu"):
        raise ConfigError("device", device, "must be auto or cpu: each process has a device of its own")
    cpu = device == "cpu" or not torch.cuda.is_available()
    state = PartialState(cpu=cpu, timeout=_PATIENCE)
    atexit.register(state.destroy_process_group)
    return Processes(state.device, state.process_index, state.num_processes)
