"""The masked autoencoder: `ViTMAEForPreTraining`."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from vitmae_search.vitmae.config import ViTMAEConfig
from vitmae_search.vitmae.decoder import DecoderInterpolation, ViTMAEDecoder
from vitmae_search.vitmae.encoder import ViTMAEModel
from vitmae_search.vitmae.layers import AttentionImplementation
from vitmae_search.vitmae.loss import reconstruction_loss
from vitmae_search.vitmae.outputs import ViTMAEForPreTrainingOutput, ViTMAEModelOutput
from vitmae_search.vitmae.patches import grid_of, patchify, unpatchify
from vitmae_search.vitmae.pretrained import PreTrainedModel


class ViTMAEForPreTraining(PreTrainedModel):
    """Encoder and decoder, trained to fill in removed patches (arXiv 2111.06377)."""

    config: ViTMAEConfig
    newly_made = ("decoder.",)

    def __init__(
        self, config: ViTMAEConfig, *, attn_implementation: AttentionImplementation | None = None
    ) -> None:
        super().__init__(config)
        self.vit = ViTMAEModel(config)
        self.decoder = ViTMAEDecoder(config)
        self.set_attn_implementation(attn_implementation)

    def forward(
        self,
        pixel_values: Tensor,
        noise: Tensor | None = None,
        interpolate_pos_encoding: bool = False,
        *,
        mask: Tensor | None = None,
        mask_ratio: float | None = None,
        keep_order: bool = True,
        decoder_interpolation: DecoderInterpolation = "sequence",
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
    ) -> Any:
        """Remove patches, encode the others, and predict all of them.

        Arguments as for `ViTMAEModel`; `hidden_states` and `attentions` are the encoder's. Returns a
        `ViTMAEForPreTrainingOutput`, or a tuple with `return_dict=False`; where no patch is removed it has
        no loss.
        """
        encoded: ViTMAEModelOutput = self.vit(
            pixel_values,
            noise,
            interpolate_pos_encoding,
            mask=mask,
            mask_ratio=mask_ratio,
            keep_order=keep_order,
            output_hidden_states=output_hidden_states,
            output_attentions=output_attentions,
            return_dict=True,
        )
        assert encoded.last_hidden_state is not None
        assert encoded.mask is not None
        grid = grid_of(pixel_values.shape[2], pixel_values.shape[3], self.config.patch_size)
        logits = self.decoder(
            encoded.last_hidden_state, encoded.ids_restore, grid, interpolation=decoder_interpolation
        ).logits
        complete = encoded.last_hidden_state.shape[1] == 1 + logits.shape[1]
        output = ViTMAEForPreTrainingOutput(
            loss=None if complete else self.forward_loss(pixel_values, logits, encoded.mask, True),
            logits=logits,
            mask=encoded.mask,
            ids_restore=encoded.ids_restore,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )
        return output if self._choice("return_dict", return_dict) else output.to_tuple()

    def forward_loss(
        self, pixel_values: Tensor, logits: Tensor, mask: Tensor, interpolate_pos_encoding: bool = False
    ) -> Tensor:
        """The pretraining loss, a scalar; see `loss.reconstruction_loss`."""
        patches = self.patchify(pixel_values, interpolate_pos_encoding)
        return reconstruction_loss(logits, patches, mask, norm_pix_loss=self.config.norm_pix_loss)

    def patchify(self, pixel_values: Tensor, interpolate_pos_encoding: bool = False) -> Tensor:
        """(N, C, H, W) to (N, L, ph·pw·C).

        Raises `ValueError` for other channels than the configuration's, for an image that patches do not
        tile, and, without `interpolate_pos_encoding`, for one that is neither square nor the model's size.
        """
        channels, height, width = pixel_values.shape[1:]
        if channels != self.config.num_channels:
            raise ValueError(f"the image has {channels} channels and the model {self.config.num_channels}")
        expected = height == width or (height, width) == self.config.image_shape
        if not (interpolate_pos_encoding or expected):
            raise ValueError(
                f"an image of {height}×{width} pixels is not square; pass interpolate_pos_encoding=True"
            )
        return patchify(pixel_values, self.config.patch_size)

    def unpatchify(self, patches: Tensor, original_image_size: tuple[int, int] | None = None) -> Tensor:
        """(N, L, ph·pw·C) to (N, C, H, W); `original_image_size` is (H, W) where not the configuration's.

        Raises `ValueError` where L is not that image's number of patches.
        """
        height, width = original_image_size or self.config.image_shape
        patch_size = self.config.patch_size
        return unpatchify(patches, patch_size, grid_of(height, width, patch_size))
