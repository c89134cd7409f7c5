"""Tensors arrive unchanged on every device."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from vitmae_search.training.transfer import to_device


@dataclass(frozen=True)
class Record:
    flags: Tensor
    rest: tuple[Tensor, ...] | None


@pytest.fixture(params=["meta", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> torch.device:
    """A device other than the host; "meta" keeps types and shapes only."""
    return torch.device(request.param)


def test_every_type_and_shape_arrives(device: torch.device) -> None:
    torch.manual_seed(0)
    sources = (
        torch.rand(7) < 0.5,
        torch.randint(-9, 9, (3, 5)),
        torch.randn(4, 1, 3)[:, 0],
        torch.randint(0, 256, (3, 2), dtype=torch.uint8),
        torch.zeros(0, 2),
        torch.randn(5).double(),
    )
    for there, here in zip(to_device(sources, device), sources, strict=True):
        assert (there.device.type, there.dtype, there.shape) == (device.type, here.dtype, here.shape)
        if device.type != "meta":
            assert torch.equal(there.cpu(), here)


def test_records_keep_their_structure_and_device_tensors_are_not_copied(device: torch.device) -> None:
    there = torch.arange(3, device=device)
    sent = to_device(Record(torch.tensor([True, False]), (torch.arange(4), there)), device)
    assert isinstance(sent, Record)
    assert sent.rest is not None
    assert sent.flags.device.type == sent.rest[0].device.type == device.type
    assert sent.rest[1] is there
    assert to_device(Record(there, None), device).rest is None


def test_on_the_host_nothing_is_copied() -> None:
    tensor = torch.arange(3)
    assert to_device((tensor,), torch.device("cpu"))[0] is tensor
