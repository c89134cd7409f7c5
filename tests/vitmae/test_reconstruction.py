"""Reconstructions: the panels, the masks, the error in the loss's units, and whose statistics are used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vitmae_search.errors import ConfigError, NoDecoder
from vitmae_search.vitmae import (
    NewParametersWarning,
    ViTImageProcessor,
    ViTMAEForPreTraining,
    ViTMAEModel,
    patchify,
    reconstruct,
)
from vitmae_search.vitmae.reconstruction import visible_statistics

Models = Callable[..., ViTMAEForPreTraining]
Photos = dict[str, Image.Image]


@pytest.mark.parametrize("norm_pix_loss", [False, True])
@pytest.mark.parametrize("size", [32, (32, 64)])
def test_panels_show_what_was_seen_and_what_was_made(
    size: int | tuple[int, int], norm_pix_loss: bool, random_model: Models, photos: Photos
) -> None:
    model = random_model(image_size=size, norm_pix_loss=norm_pix_loss)
    height, width = model.config.image_shape
    processor = ViTImageProcessor(size={"height": height, "width": width})
    result = reconstruct(model, processor, photos["coffee"], mask_ratio=0.75, seed=4)
    assert result.mask.shape == result.error.shape == model.config.grid_size
    assert result.mask.sum() == 0.75 * model.config.num_patches
    for panel in (result.original, result.masked, result.reconstruction, result.pasted):
        assert panel.shape == (height, width, 3)
        assert panel.dtype == np.uint8
    hidden = result.mask.repeat(8, axis=0).repeat(8, axis=1)
    assert np.array_equal(result.original, np.asarray(photos["coffee"].resize((width, height), 2)))
    assert np.array_equal(result.masked[~hidden], result.original[~hidden])
    assert set(np.unique(result.masked[hidden])) == {128}
    assert np.array_equal(result.pasted[~hidden], result.original[~hidden])
    assert np.array_equal(result.pasted[hidden], result.reconstruction[hidden])
    assert result.statistics == ("visible" if norm_pix_loss else "none")
    assert result.photo_shape == (photos["coffee"].height, photos["coffee"].width)
    assert result.loss == pytest.approx(float(result.error[result.mask].mean()), rel=1e-5)


def test_the_loss_is_that_of_the_model(random_model: Models, photos: Photos) -> None:
    for norm_pix_loss in (False, True):
        model = random_model(norm_pix_loss=norm_pix_loss)
        processor = ViTImageProcessor(size=32)
        result = reconstruct(model, processor, photos["china"], mask_ratio=0.5, seed=9)
        noise = torch.rand(1, 16, generator=torch.Generator().manual_seed(9))
        pixels = processor(photos["china"], return_tensors="pt").pixel_values
        with torch.inference_mode():
            output = model(pixels, noise, mask_ratio=0.5)
        assert result.loss == pytest.approx(float(output.loss), rel=1e-5)
        assert np.array_equal(result.mask.ravel(), output.mask[0].bool().numpy())


def test_a_perfect_prediction_gives_the_picture_back(
    random_model: Models, photos: Photos, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, processor = random_model(), ViTImageProcessor(size=32)
    pixels = processor(photos["astronaut"], return_tensors="pt").pixel_values
    decoder = model.decoder.forward

    def perfect(*args: object, **kwargs: object) -> object:
        output = decoder(*args, **kwargs)  # type: ignore[arg-type]
        output.logits = patchify(pixels, 8)
        return output

    monkeypatch.setattr(model.decoder, "forward", perfect)
    result = reconstruct(model, processor, photos["astronaut"])
    assert np.array_equal(result.reconstruction, result.original)
    assert np.array_equal(result.pasted, result.original)
    assert result.loss == 0


def test_a_seed_chooses_patches_and_a_mask_overrides_it(random_model: Models, photos: Photos) -> None:
    model, processor = random_model(), ViTImageProcessor(size=32)
    state = torch.get_rng_state()
    one, again, other = (reconstruct(model, processor, photos["rocket"], seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(one.reconstruction, again.reconstruction)
    assert not np.array_equal(one.mask, other.mask)
    chosen = np.zeros((4, 4), dtype=np.bool_)
    chosen[0, 1:3] = True
    painted = reconstruct(model, processor, photos["rocket"], mask=chosen)
    assert np.array_equal(painted.mask, chosen)
    assert painted.mask_ratio == pytest.approx(2 / 16)


def test_nothing_and_everything_removed(random_model: Models, photos: Photos) -> None:
    for norm_pix_loss in (False, True):
        model, processor = random_model(norm_pix_loss=norm_pix_loss), ViTImageProcessor(size=32)
        nothing = reconstruct(model, processor, photos["moon"], mask_ratio=0)
        assert nothing.loss is None
        assert not nothing.mask.any()
        assert np.array_equal(nothing.pasted, nothing.original)
        everything = reconstruct(model, processor, photos["moon"], mask=np.ones((4, 4), dtype=np.bool_))
        assert everything.loss is not None
        assert np.array_equal(everything.pasted, everything.reconstruction)


def test_removed_patches_do_not_leak_into_their_reconstruction(random_model: Models, photos: Photos) -> None:
    model, processor = random_model(norm_pix_loss=True), ViTImageProcessor(size=32)
    mask = np.zeros((4, 4), dtype=np.bool_)
    mask[1:3, 1:3] = True
    picture = np.asarray(photos["coffee"].resize((32, 32))).copy()
    before = reconstruct(model, processor, picture, mask=mask)
    picture[8:24, 8:24] = 255 - picture[8:24, 8:24] // 3
    after = reconstruct(model, processor, picture, mask=mask)
    assert not np.array_equal(before.original, after.original)
    assert np.array_equal(before.reconstruction, after.reconstruction)
    assert before.loss != after.loss


def test_visible_statistics_are_a_mean_of_the_neighbours() -> None:
    patches = torch.stack([torch.linspace(-1, 1, 12) * (1 + place % 3) + place for place in range(6)])
    removed = torch.tensor([False, True, False, False, False, False])
    mean, deviation = visible_statistics(patches, removed, (2, 3))
    own = patches.mean(dim=1)
    torch.testing.assert_close(mean[~removed, 0], own[~removed])
    # Distances from place 1: 1 to places 0, 2 and 4; √2 to places 3 and 5.
    weights = torch.tensor([1.0, 1.0, 2**-1.5, 1.0, 2**-1.5])
    assert float(mean[1]) == pytest.approx(float((weights * own[~removed]).sum() / weights.sum()), rel=1e-5)
    assert 0 < float(deviation[1]) < float(deviation.max()) + 1e-6


def test_an_encoder_alone_is_refused(random_model: Models, photos: Photos, tmp_path: Path) -> None:
    random_model().vit.save_pretrained(tmp_path)
    with pytest.warns(NewParametersWarning):
        model = ViTMAEForPreTraining.from_pretrained(tmp_path)
    for without in (model, ViTMAEModel.from_pretrained(tmp_path)):
        with pytest.raises(NoDecoder, match="encoder alone"):
            reconstruct(without, ViTImageProcessor(size=32), photos["china"])


def test_arguments_are_checked(random_model: Models, photos: Photos) -> None:
    model, processor = random_model(), ViTImageProcessor(size=32)
    for ratio in (1.0, -0.5):
        with pytest.raises(ConfigError, match="mask_ratio"):
            reconstruct(model, processor, photos["china"], mask_ratio=ratio)
    with pytest.raises(ConfigError, match=r"\(4, 4\)"):
        reconstruct(model, processor, photos["china"], mask=np.zeros((4, 5), dtype=np.bool_))


def test_the_model_keeps_its_mode(random_model: Models, photos: Photos) -> None:
    model = random_model(hidden_dropout_prob=0.5).train()
    one, again = (reconstruct(model, ViTImageProcessor(size=224), photos["china"]) for _ in range(2))
    assert model.training
    assert np.array_equal(one.reconstruction, again.reconstruction)
    assert one.original.shape == (32, 32, 3)
    half = reconstruct(random_model().to(torch.bfloat16), ViTImageProcessor(), photos["china"])
    assert np.isfinite(half.error).all()
