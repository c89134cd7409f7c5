"""Training on a GPU equals training on the CPU; the same tests also run on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from vitmae_search.training import FinetuneOptions, finetune, pretrain
from vitmae_search.training.data.normalize import Normalize
from vitmae_search.training.data.packed_photos import PackedPhotos, pack
from vitmae_search.training.distributed import DistributedContext
from vitmae_search.training.finetuning.report import LOG_FILE, EpochLog
from vitmae_search.training.log import PretrainLog
from vitmae_search.training.pretraining.batches import BatchLoader
from vitmae_search.training.pretraining.options import PretrainOptions
from vitmae_search.training.pretraining.trainer import PretrainState
from vitmae_search.training.run_folder import load_state
from vitmae_search.vitmae import ViTMAEConfig
from vitmae_search.vitmae.masking import mask_by_noise

CUDA = pytest.param("cuda", marks=pytest.mark.gpu)
DEVICES = ["cpu", CUDA]
STEPS = 20
OPTIONS: dict[str, Any] = {
    "epochs": STEPS * 6 / 12,
    "batch_size": 6,
    "learning_rate": 0.01,
    "precision": "fp32",
    "log_every": 1,
    "compiled": False,
}
RECIPES: list[dict[str, Any]] = [
    {},
    {"contrastive": 0.5, "ema": 0.9, "clip_norm": 1.0},
    {"contrastive": 0.5, "accumulate": 2, "cache": "host"},
]


def losses(output: Path) -> list[tuple[float, ...]]:
    lines = PretrainLog(output / "log.jsonl").read()
    return [(x.step, x.loss, x.gradient_norm, x.contrastive or 0.0) for x in lines]


def stop_after(steps: int) -> Any:
    left = iter(range(steps - 1, -1, -1))
    return lambda: next(left) == 0


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_the_losses_are_the_cpus(
    photo_folder: Path, tiny_model: dict[str, Any], tmp_path: Path, device: str, recipe: dict[str, Any]
) -> None:
    options = {**OPTIONS, "attention": "eager", **recipe}
    pretrain(photo_folder, tmp_path / "cpu", model=tiny_model, options={**options, "device": "cpu"})
    other = {**options, "device": device, "attention": "sdpa"}
    pretrain(photo_folder, tmp_path / "other", model=tiny_model, options=other)
    assert len(losses(tmp_path / "cpu")) == STEPS
    for theirs, ours in zip(losses(tmp_path / "cpu"), losses(tmp_path / "other"), strict=True):
        assert ours == pytest.approx(theirs, rel=5e-3)
    assert losses(tmp_path / "cpu")[-1] != pytest.approx(losses(tmp_path / "cpu")[0], rel=5e-3)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_resumed_run_equals_an_uninterrupted_one(
    photo_folder: Path, tiny_model: dict[str, Any], tmp_path: Path, device: str, precision: str
) -> None:
    options = {**OPTIONS, **RECIPES[1], "precision": precision, "device": device, "log_every": 3}
    pretrain(photo_folder, tmp_path / "whole", model=tiny_model, options=options)
    for stop in (stop_after(4), stop_after(7), stop_after(99)):
        pretrain(photo_folder, tmp_path / "parts", model=tiny_model, options=options, stop=stop)
    exact = device == "cpu"  # on a GPU the attention's gradient is summed in any order
    whole, parts = losses(tmp_path / "whole"), losses(tmp_path / "parts")
    assert len(whole) == STEPS // 3
    for theirs, ours in zip(whole, parts, strict=True):
        assert ours == (theirs if exact else pytest.approx(theirs, rel=1e-2))
    first, second = (
        load_state(PretrainState, tmp_path / "whole"),
        load_state(PretrainState, tmp_path / "parts"),
    )
    assert first is not None
    assert second is not None
    for name, value in first.model.items():
        torch.testing.assert_close(
            second.model[name], value, rtol=0 if exact else 1e-2, atol=0 if exact else 1e-2
        )


@pytest.mark.parametrize("device", DEVICES)
def test_a_run_may_change_its_device(
    photo_folder: Path, tiny_model: dict[str, Any], tmp_path: Path, device: str
) -> None:
    options = {**OPTIONS, **RECIPES[1], "attention": "eager"}
    pretrain(photo_folder, tmp_path / "whole", model=tiny_model, options={**options, "device": "cpu"})
    for place, stop in (("cpu", stop_after(5)), (device, stop_after(5)), ("cpu", stop_after(99))):
        given = {**options, "device": place}
        pretrain(photo_folder, tmp_path / "moved", model=tiny_model, options=given, stop=stop)
    for theirs, ours in zip(losses(tmp_path / "whole"), losses(tmp_path / "moved"), strict=True):
        assert ours == pytest.approx(theirs, rel=5e-3)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("cache", ["host", "device"])
def test_photos_crops_and_masks_are_the_cpus(
    photo_folder: Path, tmp_path: Path, device: str, cache: str
) -> None:
    photos = pack(photo_folder, tmp_path, side=20)
    pixels, masks = {}, {}
    for place in ("cpu", device):
        batches = _batches(photos, place, cache="host" if place == "cpu" else cache)
        pixels[place], noise = batches.model_input(batches.at(3))
        assert noise.device.type == pixels[place].device.type == place
        masks[place] = mask_by_noise(noise, 0.75).mask.cpu()
    assert torch.equal(masks[device], masks["cpu"])
    torch.testing.assert_close(pixels[device].cpu(), pixels["cpu"], rtol=0, atol=2e-3)
    assert float(pixels["cpu"].std()) > 0.2


def _batches(photos: PackedPhotos, device: str, **options: Any) -> BatchLoader:
    return BatchLoader(
        photos,
        PretrainOptions(batch_size=8, contrastive=1.0, **options),
        image_size=16,
        num_patches=ViTMAEConfig(image_size=16, patch_size=4).num_patches,
        normalize=Normalize((0.5, 0.5, 0.5), (0.25, 0.25, 0.25)),
        distributed=DistributedContext(torch.device(device)),
    )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("mode", ["probe", "full"])
def test_a_finetuning_is_the_cpus(
    coloured_folder: Path, start_model: Path, tmp_path: Path, device: str, mode: str
) -> None:
    options = {"epochs": 3.0, "batch_size": 16, "learning_rate": 1e-3, "precision": "fp32"}
    if mode == "full":
        options |= {"drop_path": 0.0}  # which is drawn on the device
    accepted = set(FinetuneOptions.__dataclass_fields__)
    assert set(options) <= accepted
    for name, place in (("cpu", "cpu"), ("other", device)):
        given = {**options, "device": place}
        finetune(coloured_folder, tmp_path / name, model=str(start_model), mode=mode, options=given)
    theirs, ours = (EpochLog(tmp_path / name / LOG_FILE).read() for name in ("cpu", "other"))
    assert len(theirs) == 3
    for there, here in zip(theirs, ours, strict=True):
        assert (here.loss, here.val_loss) == pytest.approx((there.loss, there.val_loss), rel=1e-2)
