"""A step never waits for its device: run on torch's fake tensors, which have a device but no values.

A fake tensor raises when its value is read, and in operations between two devices. The device is "meta",
which every build of torch has; `transfer` treats it as a GPU here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode
from torch._subclasses.fake_tensor import DataDependentOutputException
from torch.utils._python_dispatch import TorchDispatchMode

from vitmae_search.training import transfer
from vitmae_search.training.data.color_jitter import ColorJitter, RotationSplit
from vitmae_search.training.data.normalize import Normalize
from vitmae_search.training.data.packed_photos import PackedPhotos
from vitmae_search.training.distributed import DistributedContext
from vitmae_search.training.optim import adamw
from vitmae_search.training.pretraining import trainer as trainer_module
from vitmae_search.training.pretraining.batches import BatchLoader
from vitmae_search.training.pretraining.options import PretrainOptions
from vitmae_search.training.pretraining.trainer import Trainer
from vitmae_search.vitmae import ViTMAEConfig, ViTMAEForPreTraining

DEVICE = torch.device("meta")


class Copies(TorchDispatchMode):
    """Notes the copies between the host and the device, and whether they are waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.to_device: list[bool] = []
        self.to_host = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if func in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default):
            source = args[0] if func is torch.ops.aten._to_copy.default else args[1]
            if source.device != out.device:
                if out.device == DEVICE:
                    self.to_device.append(bool(kwargs.get("non_blocking", False)))
                else:
                    self.to_host += 1
        return out


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(transfer, "_PINNED_DEVICES", {"meta"})
    monkeypatch.setattr(transfer, "_pinned", lambda tensor: tensor)
    monkeypatch.setattr(nn.Module, "to", moved)
    monkeypatch.setattr(trainer_module, "adamw", plain_adamw)
    monkeypatch.setattr(RotationSplit, "of", first_half_unrotated)
    monkeypatch.setattr(FakeTensorMode, "__deepcopy__", lambda self, _: self, raising=False)
    mode = FakeTensorMode()
    mode.allow_meta = True
    with mode:
        yield


def moved(model: nn.Module, device: torch.device) -> nn.Module:
    """`Module.to`, which cannot take stand-ins from one device to another."""
    for module in model.modules():
        for name, value in module._parameters.items():
            if value is not None:
                module._parameters[name] = nn.Parameter(value.detach().to(device))
        for name, value in module._buffers.items():
            if value is not None:
                module._buffers[name] = value.to(device)
    return model


def first_half_unrotated(jitter: ColorJitter) -> RotationSplit:
    """How many are rotated is a number, which the host knows and fake tensors do not."""
    assert jitter.angle.device.type == "cpu"
    rows = torch.arange(len(jitter.angle))
    half = len(rows) // 2
    return RotationSplit(rows[:half], rows[half:], torch.zeros(3))


def plain_adamw(model: nn.Module, **options: Any) -> torch.optim.Optimizer:
    """AdamW's groups without its fused kernel, which "meta" has not."""
    optimizer = adamw(model, **options)
    for group in optimizer.param_groups:
        group["fused"] = False
    return optimizer


def new_trainer(model: dict[str, Any], **options: Any) -> Trainer:
    chosen = PretrainOptions(batch_size=6, precision="fp32", attention="sdpa", cache="device", **options)
    config = ViTMAEConfig(**model)
    images = np.zeros((10, 20, 20, 3), np.uint8)
    distributed = DistributedContext(DEVICE)
    batches = BatchLoader(
        PackedPhotos(images, "", ()),
        chosen,
        image_size=config.image_shape[0],
        num_patches=config.num_patches,
        normalize=Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        distributed=distributed,
    )
    return Trainer(ViTMAEForPreTraining(config), batches, chosen, distributed)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"clip_norm": 1.0, "ema": 0.9, "accumulate": 2},
        {"contrastive": 1.0, "clip_norm": 1.0, "ema": 0.9},
        {"contrastive": 1.0, "reconstruction": 0.0},
    ],
    ids=str,
)
@pytest.mark.usefixtures("fake")
def test_a_step_does_not_synchronise(tiny_model: dict[str, Any], options: dict[str, Any]) -> None:
    trainer = new_trainer(tiny_model, **options)
    first = trainer.gradient(0)
    trainer.update(0, 1.0)
    with Copies() as copies:
        unread = trainer.gradient(1)
        trainer.update(1, 1.0)
    assert copies.to_host == 0
    assert copies.to_device
    assert all(copies.to_device)
    assert all(part.device == DEVICE for part, _ in unread.reconstruction)
    with pytest.raises(DataDependentOutputException):  # to read is to wait
        trainer.fetch([first, unread])


@pytest.mark.usefixtures("fake")
def test_fake_tensors_detect_a_synchronisation() -> None:
    far = torch.zeros(3, device=DEVICE)
    for wait in (far.sum().item, far.tolist, lambda: bool(far.any())):
        with pytest.raises(DataDependentOutputException):
            wait()
    with Copies() as copies:
        far.cpu()
        torch.zeros(3).to(DEVICE)
    assert (copies.to_host, copies.to_device) == (1, [False])
    with pytest.raises(RuntimeError, match="device"):
        far + torch.zeros(3)


@pytest.mark.usefixtures("fake")
def test_tensors_of_all_types_are_copied_without_waiting() -> None:
    tensors = (torch.zeros(3, dtype=torch.bool), torch.zeros(2, 5, dtype=torch.int64), torch.zeros(4, 1))
    with Copies() as copies:
        flags, (numbers, values), nothing = transfer.to_device((tensors[0], tensors[1:], None), DEVICE)
    assert copies.to_device == [True, True, True]
    assert nothing is None
    for there, here in zip((flags, numbers, values), tensors, strict=True):
        assert (there.device, there.dtype, there.shape) == (DEVICE, here.dtype, here.shape)
