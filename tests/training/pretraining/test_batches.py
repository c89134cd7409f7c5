from __future__ import annotations

import numpy as np
import torch

from vitmae_search.training.data.normalize import Normalize
from vitmae_search.training.data.packed_photos import PackedPhotos
from vitmae_search.training.data.sampler import step_seed
from vitmae_search.training.distributed import DistributedContext
from vitmae_search.training.pretraining.batches import BatchLoader
from vitmae_search.training.pretraining.options import PretrainOptions


def numbered(count: int) -> np.ndarray:
    """Pictures of one colour each: picture i is all i."""
    return np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 8, 8, 3)).copy()


def batches(count: int = 10, batch_size: int = 4, **options: object) -> BatchLoader:
    return BatchLoader(
        PackedPhotos(numbered(count), "", ()),
        PretrainOptions(batch_size=batch_size, **options),  # type: ignore[arg-type]
        image_size=8,
        num_patches=16,
        normalize=Normalize((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)),
        distributed=DistributedContext(torch.device("cpu")),
    )


def seen(source: BatchLoader, step: int) -> list[int]:
    pixels, _ = source.model_input(source.at(step))
    return [round(float(value)) for value in pixels.mean(dim=(1, 2, 3))]


def test_every_epoch_sees_every_photo_once_in_another_order() -> None:
    source = batches()
    stream = [photo for step in range(5) for photo in seen(source, step)]  # 20 photos: two epochs
    assert sorted(stream[:10]) == list(range(10))
    assert sorted(stream[10:]) == list(range(10))
    assert stream[:10] != stream[10:]


def test_a_batch_larger_than_the_folder_wraps_around() -> None:
    assert sorted(seen(batches(count=3, batch_size=7), 0)).count(0) in (2, 3)


def test_a_step_does_not_depend_on_the_order_of_requests() -> None:
    first, second = batches(), batches()
    for step in (7, 0, 3, 3):
        pair = (source.model_input(source.at(step)) for source in (first, second))
        for ours, theirs in zip(*pair, strict=True):
            assert torch.equal(ours, theirs)
    assert not torch.equal(first.at(0).views[0].noise, first.at(1).views[0].noise)
    assert not torch.equal(first.at(0).views[0].noise, batches(seed=1).at(0).views[0].noise)


def test_the_parts_of_a_batch_are_the_batch() -> None:
    source = batches(batch_size=7)
    whole = source.at(3)
    parts = whole.split(3)
    assert [len(part) for part in parts] == [3, 2, 2]
    for i, value in enumerate(source.model_input(whole)):
        assert torch.equal(torch.cat([source.model_input(part)[i] for part in parts]), value)


def test_step_seeds_differ() -> None:
    assert len({step_seed(seed, step) for seed in range(20) for step in range(100)}) == 2000


def test_normalisation_brings_pixels_to_the_models_range() -> None:
    normalise = Normalize((0.5, 0.25, 0.0), (0.5, 0.25, 1.0))
    pixels = torch.full((1, 3, 2, 2), 255.0)
    torch.testing.assert_close(normalise(pixels)[0, :, 0, 0], torch.tensor([1.0, 3.0, 1.0]))


def test_each_step_draws_its_own_mask_ratio_and_nothing_else_changes() -> None:
    drawn, fixed = batches(mask_ratios=(0.4, 0.85)), batches()
    ratios = [drawn.at(step).mask_ratio for step in range(50)]
    assert fixed.at(0).mask_ratio is None
    assert all(ratio is not None and 0.4 <= ratio <= 0.85 for ratio in ratios)
    assert len(set(ratios)) == 50
    assert {part.mask_ratio for part in drawn.at(0).split(2)} == {ratios[0]}
    assert torch.equal(drawn.at(7).views[0].noise, fixed.at(7).views[0].noise)
