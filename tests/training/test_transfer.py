"""Tensors arrive unchanged on every device."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from vitmae_search.training import transfer

DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.gpu),
]


@dataclass(frozen=True)
class Record:
    flags: Tensor
    rest: tuple[Tensor, ...] | None


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """The CPU is made to pack the bytes as for a GPU, in memory that is not pinned."""
    if request.param == "cpu":
        monkeypatch.setattr(transfer, "_pinned", lambda size: torch.empty(size, dtype=torch.uint8))
        packed_copy = transfer._packed_copy
        monkeypatch.setattr(transfer, "_packed_copy", lambda tensors, _: packed_copy(tensors, device_here))
    device_here = torch.device(request.param)
    return device_here


def test_every_type_and_shape_arrives(device: torch.device) -> None:
    torch.manual_seed(0)
    sources = [
        torch.rand(7) < 0.5,
        torch.randint(-9, 9, (3, 5)),
        torch.randn(4, 1, 3)[:, 0],
        torch.randint(0, 256, (3, 2), dtype=torch.uint8),
        torch.zeros(0, 2),
        torch.randn(5).double(),
    ]
    sent = transfer._packed_copy(sources, device)
    for there, here in zip(sent, sources, strict=True):
        assert there.device.type == device.type
        assert torch.equal(there.cpu(), here)


def test_records_keep_their_structure_and_device_tensors_are_not_copied(device: torch.device) -> None:
    there = torch.arange(3, device=device)
    record = Record(torch.tensor([True, False]), (torch.arange(4), there))
    flags, rest = (lambda sent: (sent.flags, sent.rest))(transfer.to_device(record, device))
    assert torch.equal(flags.cpu(), record.flags)
    assert rest is not None
    assert torch.equal(rest[0].cpu(), torch.arange(4))
    assert rest[1] is there
    assert transfer.to_device(Record(there, None), device).rest is None
