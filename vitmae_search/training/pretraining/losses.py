"""The pretraining objective: MAE's reconstruction loss and an optional contrastive loss.

Together the two are CAN (Mishra et al. 2022, arXiv 2210.16870) without its noise prediction: of two masked
views of each photo the first is reconstructed, and InfoNCE is taken between the mean visible patch tokens of
both, after SimCLR's projector (Chen et al. 2020, arXiv 2002.05709).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from vitmae_search.errors import ConfigError
from vitmae_search.training.distributed import DistributedContext
from vitmae_search.training.pretraining.options import PretrainOptions
from vitmae_search.vitmae import ViTMAEForPreTraining
from vitmae_search.vitmae.masking import num_kept
from vitmae_search.vitmae.modeling import ViTMAEModelOutput

_PROJECTOR_HIDDEN, _PROJECTION_SIZE = 1024, 128


class ObjectiveOutput(NamedTuple):
    """What the objective gives for part of a batch.

    Attributes:
        reconstruction: Scalar, the mean error of the masked patches of the first views.
        projections: (V, N, 128) float32 for the contrastive loss.
    """

    reconstruction: Tensor | None
    projections: Tensor | None


class Objective(nn.Module):
    """The masked autoencoder with the projector of the contrastive loss, which no checkpoint contains.

    Args:
        mae: The model to train.
        options: The weights of the two losses, and the seed of the projector.

    Raises:
        ConfigError: The mask ratio keeps every patch, so that there is nothing to reconstruct.
    """

    def __init__(self, mae: ViTMAEForPreTraining, options: PretrainOptions) -> None:
        super().__init__()
        config = mae.config
        least = config.mask_ratio if options.mask_ratios is None else options.mask_ratios[0]
        if options.reconstruction and num_kept(config.num_patches, least) == config.num_patches:
            raise ConfigError("mask_ratio", least, "leaves no patch out that could be learnt")
        self.mae = mae
        self.projector = _make_projector(config.hidden_size, options.seed) if options.contrastive else None
        self._reconstructs = options.reconstruction > 0

    def forward(
        self, pixels: Tensor, noise: Tensor, views: int, mask_ratio: float | None = None
    ) -> ObjectiveOutput:
        """Encode all views and decode the first of each photo.

        Args:
            pixels: (V·N, 3, S, S), one view after another.
            noise: (V·N, L), by which patches are masked.
            views: V.
            mask_ratio: Share of patches to remove; None is the model's own.
        """
        encoded: ViTMAEModelOutput = self.mae.vit(pixels, noise, mask_ratio=mask_ratio)
        tokens, mask, ids_restore = encoded.last_hidden_state, encoded.mask, encoded.ids_restore
        assert tokens is not None
        assert mask is not None
        assert ids_restore is not None
        reconstruction = projections = None
        if self._reconstructs:
            first = len(pixels) // views  # decoding the second view as well costs time and helps little
            logits = self.mae.decoder(tokens[:first], ids_restore[:first]).logits
            reconstruction = self.mae.forward_loss(pixels[:first], logits, mask[:first])
        if self.projector is not None:
            projected: Tensor = self.projector(tokens[:, 1:].float().mean(dim=1))
            projections = projected.float().view(views, -1, _PROJECTION_SIZE)
        return ObjectiveOutput(reconstruction, projections)


def info_nce(projections: Tensor, temperature: float) -> Tensor:
    """SimCLR's NT-Xent (Chen et al. 2020, eq. 1): find each view's other view among all 2N - 1 others.

    Args:
        projections: (2, N, D), two views of N photos.
        temperature: Divides the cosine similarities.

    Returns:
        Scalar, the mean cross-entropy.
    """
    count = projections.shape[1]
    unit = functional.normalize(projections.flatten(0, 1), dim=1)
    similarity = (unit @ unit.T / temperature).fill_diagonal_(-torch.inf)
    return functional.cross_entropy(similarity, torch.arange(2 * count, device=unit.device).roll(count))


def info_nce_gradients(
    projections: Sequence[Tensor], temperature: float, distributed: DistributedContext
) -> tuple[Tensor, list[Tensor]]:
    """InfoNCE over a whole batch, and its gradient with respect to the projections of each part.

    Each part has a graph of its own, which the gradient is then propagated through.

    Args:
        projections: (2, n, D) for each part of this process's batch.
        temperature: As for `info_nce`.
        distributed: The loss is over the parts of all processes.

    Returns:
        The loss, a scalar, and a gradient of the shape of each part.
    """
    local = torch.cat([part.detach() for part in projections], dim=1)
    whole = distributed.all_gather(local.transpose(0, 1)).transpose(0, 1).requires_grad_()
    loss = info_nce(whole, temperature)
    (gradient,) = torch.autograd.grad(loss, whole)
    local_gradient = gradient[:, distributed.local_slice(whole.shape[1])]
    return loss.detach(), list(torch.split(local_gradient, [part.shape[1] for part in projections], dim=1))


def _make_projector(width: int, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Linear(width, _PROJECTOR_HIDDEN),
            nn.LayerNorm(_PROJECTOR_HIDDEN),
            nn.GELU(),
            nn.Linear(_PROJECTOR_HIDDEN, _PROJECTION_SIZE),
        )
