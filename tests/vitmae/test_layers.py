"""The pure functions under the model: positions, masking, patches, loss, pooling."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitmae_search.errors import ConfigError
from vitmae_search.vitmae import (
    Pooling,
    patchify,
    pool,
    pool_layers,
    pooled_width,
    reconstruction_loss,
    unpatchify,
)
from vitmae_search.vitmae.layers import interpolate_grid, interpolate_sequence, sincos_positions
from vitmae_search.vitmae.loss import normalise_patches, patch_errors, patch_statistics
from vitmae_search.vitmae.masking import keep_all, mask_by_choice, mask_by_noise, num_kept, take_patches

sides = st.integers(1, 6)


def test_positions_have_columns_first_then_rows() -> None:
    table = sincos_positions((2, 3), 8)[0]
    assert table.shape == (7, 8)
    assert not table[0].any()
    for y in range(2):
        for x in range(3):
            row = table[1 + 3 * y + x].tolist()
            angles = [x, x * 0.01, y, y * 0.01]
            sines, cosines = [math.sin(a) for a in angles], [math.cos(a) for a in angles]
            expected = [*sines[:2], *cosines[:2], *sines[2:], *cosines[2:]]
            assert row == pytest.approx(expected, abs=1e-7)


def test_no_two_places_share_a_position() -> None:
    patches = sincos_positions((14, 14), 64)[0, 1:]
    distances = torch.cdist(patches, patches) + 10 * torch.eye(196)
    assert float(distances.min()) > 0.1


def test_interpolation_keeps_cls_and_stretches_rows_and_columns() -> None:
    ramp = torch.arange(4.0).repeat_interleave(4)  # grows downwards on a grid of 4×4
    table = torch.cat([torch.tensor([9.0]), ramp]).reshape(1, 17, 1)
    wide = interpolate_grid(table, (4, 4), (4, 8))
    assert wide[0, 0] == 9
    rows = wide[0, 1:, 0].reshape(4, 8)
    assert torch.allclose(rows, torch.arange(4.0).unsqueeze(1).expand(4, 8), atol=1e-6)
    assert interpolate_grid(table, (4, 4), (4, 4)) is table
    assert interpolate_sequence(table, 16) is table
    assert interpolate_sequence(table, 32).shape == (1, 33, 1)


@settings(deadline=None)
@given(st.integers(1, 400), st.floats(0, 1, exclude_max=True))
def test_kept_patches_are_truncated_as_in_floating_point(length: int, ratio: float) -> None:
    assert num_kept(length, ratio) == int(length * (1 - ratio))
    assert num_kept(10, 0.9) == 0  # 10 · (1 - 0.9) is 0.9999999999999998


@pytest.mark.parametrize("ratio", [1.0, -0.1, float("nan")])
def test_a_mask_ratio_out_of_range_is_refused(ratio: float) -> None:
    with pytest.raises(ConfigError, match="mask_ratio"):
        mask_by_noise(torch.rand(1, 4), ratio)


@settings(deadline=None)
@given(st.integers(0, 1000), st.integers(2, 30), st.floats(0, 0.95))
def test_masking_restores_every_patch_to_its_place(seed: int, length: int, ratio: float) -> None:
    noise = torch.rand(3, length, generator=torch.Generator().manual_seed(seed))
    masking = mask_by_noise(noise, ratio)
    kept = num_kept(length, ratio)
    patches = torch.arange(length).float().expand(3, length).unsqueeze(-1)
    seen = take_patches(patches, masking.ids_keep)
    removed = torch.full((3, length - kept, 1), -1.0)
    restored = take_patches(torch.cat([seen, removed], dim=1), masking.ids_restore)[..., 0]
    expected = torch.where(masking.mask.bool(), torch.tensor(-1.0), patches[..., 0])
    assert torch.equal(restored, expected)
    assert masking.mask.sum(dim=1).tolist() == [length - kept] * 3
    for row_noise, row_mask in zip(noise, masking.mask.bool(), strict=True):
        if 0 < kept < length:
            assert row_noise[~row_mask].max() <= row_noise[row_mask].min()


def test_a_chosen_mask_is_the_mask() -> None:
    removed = torch.tensor([[True, False, True, False], [False, True, True, False]])
    masking = mask_by_choice(removed)
    assert torch.equal(masking.mask.bool(), removed)
    assert masking.ids_keep.tolist() == [[1, 3], [0, 3]]
    with pytest.raises(ValueError, match="as many"):
        mask_by_choice(torch.tensor([[True, True], [True, False]]))


def test_keeping_all_keeps_the_order() -> None:
    masking = keep_all(2, 5, torch.device("cpu"))
    assert masking.in_order
    assert masking.ids_keep.tolist() == masking.ids_restore.tolist() == [[0, 1, 2, 3, 4]] * 2
    assert not mask_by_noise(torch.rand(2, 5), 0.5).in_order


@settings(deadline=None)
@given(sides, sides, st.integers(1, 5), st.sampled_from([1, 3, 4]))
def test_unpatchify_undoes_patchify(gh: int, gw: int, patch_size: int, channels: int) -> None:
    images = torch.randn(2, channels, gh * patch_size, gw * patch_size)
    patches = patchify(images, patch_size)
    assert patches.shape == (2, gh * gw, patch_size**2 * channels)
    assert torch.equal(unpatchify(patches, patch_size, (gh, gw)), images)


def test_a_patch_is_its_pixels_row_by_row_channels_last() -> None:
    images = torch.arange(2 * 4 * 6).float().reshape(1, 2, 4, 6)
    second_row_third_column = patchify(images, 2)[0, 1 * 3 + 2]
    expected = images[0, :, 2:4, 4:6].permute(1, 2, 0).flatten()
    assert torch.equal(second_row_third_column, expected)


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="not tiled"):
        patchify(torch.zeros(1, 3, 10, 8), 4)
    with pytest.raises(ValueError, match="do not fill"):
        unpatchify(torch.zeros(1, 5, 48), 4, (2, 3))


def test_the_loss_is_the_mean_over_removed_patches_alone() -> None:
    patches, logits = torch.randn(2, 4, 12), torch.randn(2, 4, 12)
    mask = torch.tensor([[1.0, 0, 0, 1], [0, 1, 1, 0]])
    expected = ((patches - logits) ** 2)[mask.bool()].mean()
    torch.testing.assert_close(reconstruction_loss(logits, patches, mask, norm_pix_loss=False), expected)
    normal = normalise_patches(patches)
    assert float(normal.mean(dim=-1).abs().max()) < 1e-6
    assert float((normal.std(dim=-1) - 1).abs().max()) < 1e-5
    assert float(patch_errors(normal, patches, norm_pix_loss=True).max()) < 1e-12
    nearly_flat = patches * 1e-3  # where what is added to the variance counts
    mean, deviation = patch_statistics(nearly_flat)
    assert torch.allclose(normalise_patches(nearly_flat), (nearly_flat - mean) / deviation, atol=1e-5)
    assert float(normalise_patches(nearly_flat).std()) < 0.9


@pytest.mark.parametrize("pooling", [one for one in get_args(Pooling) if one != "grid"])
def test_pooling_ignores_the_order_of_patches(pooling: Pooling) -> None:
    tokens = torch.randn(3, 10, 8)
    shuffled = torch.cat([tokens[:, :1], tokens[:, 1:].flip(1)], dim=1)
    pooled = pool(tokens, pooling)
    assert pooled.shape == (3, pooled_width(8, 1, pooling))
    assert pooled.dtype == torch.float32
    assert torch.allclose(pooled, pool(shuffled, pooling), atol=1e-6)


def test_gem_lies_between_mean_and_maximum_and_keeps_signs() -> None:
    tokens = torch.rand(2, 20, 8) + 0.1
    values = [pool(tokens, "mean"), *(pool(tokens, "gem", power=p) for p in (1.0, 3.0, 30.0))]
    assert torch.allclose(values[0], values[1], atol=1e-5)
    assert all(bool((a <= b + 1e-5).all()) for a, b in pairwise(values))
    assert bool((values[-1] <= tokens[:, 1:].amax(dim=1)).all())
    torch.testing.assert_close(pool(-tokens, "gem"), -pool(tokens, "gem"))
    assert torch.isfinite(pool(torch.zeros(1, 3, 4), "gem")).all()


def test_layers_are_normalised_before_they_are_joined() -> None:
    small, large = torch.randn(2, 5, 4), 1000 * torch.randn(2, 5, 4)
    both = pool_layers([small, large], "mean")
    assert both.shape == (2, 8)
    torch.testing.assert_close(both[:, :4].norm(dim=1), torch.ones(2))
    torch.testing.assert_close(both[:, 4:].norm(dim=1), torch.ones(2))
    assert torch.equal(pool_layers([large], "cls"), large[:, 0])


def test_poolings_are_normalised_before_they_are_joined() -> None:
    tokens = torch.randn(3, 6, 4)
    tokens[:, 0] *= 1000
    alone = pool_layers([tokens], "moments")
    torch.testing.assert_close(alone[:, :4], tokens[:, 1:].mean(dim=1))
    torch.testing.assert_close(alone[:, 4:], tokens[:, 1:].std(dim=1, correction=0))
    both = pool_layers([tokens, tokens], "cls+moments")
    assert both.shape == (3, pooled_width(4, 2, "cls+moments")) == (3, 24)
    assert torch.equal(both[:, :12], both[:, 12:])
    torch.testing.assert_close(both[:, :4].norm(dim=1), torch.ones(3))
    torch.testing.assert_close(both[:, 4:12], alone / alone.norm(dim=1, keepdim=True))
    assert torch.isfinite(pool_layers([torch.zeros(1, 2, 4)], "cls+moments")).all(), "a patch alone"


def test_a_grid_keeps_where_things_are() -> None:
    image = torch.arange(8 * 16, dtype=torch.float32).reshape(8, 16)
    tokens = torch.cat([torch.zeros(1), image.flatten()])[None, :, None] * torch.tensor([1.0, -1.0])
    cells = pool(tokens, "grid", grid_size=(8, 16)).view(4, 4, 2)
    torch.testing.assert_close(cells[0, 0], image[:2, :4].mean() * torch.tensor([1.0, -1.0]))
    assert cells[1, 3, 0] == pytest.approx(float(image[2:4, 12:].mean()))
    square = torch.randn(2, 1 + 36, 5)
    assert pool(square, "grid").shape == (2, pooled_width(5, 1, "grid"))
    mirrored = torch.cat([square[:, :1], square[:, 1:].view(2, 6, 6, 5).flip(2).flatten(1, 2)], dim=1)
    expected = pool(square, "grid").view(2, 4, 4, 5).flip(2).flatten(1)
    torch.testing.assert_close(pool(mirrored, "grid"), expected)


def test_an_unknown_pooling_is_refused() -> None:
    with pytest.raises(ConfigError, match="cls, mean, gem"):
        pool(torch.zeros(1, 2, 4), "max")  # type: ignore[arg-type]
