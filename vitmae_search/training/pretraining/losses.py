"""What pretraining minimises: the masked patches' error and, if asked for, a contrastive loss beside it.

The two together are CAN's (Mishra et al. 2022, arXiv 2210.16870, without its noise prediction): two masked
views of each photo, of which the first is reconstructed, and InfoNCE between the means of their visible
patches after SimCLR's projector (Chen et al. 2020, arXiv 2002.05709).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from vitmae_search.errors import ConfigError
from vitmae_search.training.distributed import Processes
from vitmae_search.training.pretraining.options import PretrainOptions
from vitmae_search.vitmae import ViTMAEForPreTraining
from vitmae_search.vitmae.masking import num_kept
from vitmae_search.vitmae.modeling import ViTMAEModelOutput

_HIDDEN, _PROJECTED = 1024, 128


class Outcome(NamedTuple):
    """Of a part of a batch: the mean error of the first views' masked patches; (V, N, 128) projections."""

    reconstruction: Tensor | None
    projections: Tensor | None


class Objective(nn.Module):
    """The masked autoencoder, and with a contrastive loss its projector, which is not part of the checkpoint.

    Raises `ConfigError` where every patch is kept, so that there is nothing to reconstruct.
    """

    def __init__(self, mae: ViTMAEForPreTraining, options: PretrainOptions) -> None:
        super().__init__()
        config = mae.config
        if options.reconstruction and num_kept(config.num_patches, config.mask_ratio) == config.num_patches:
            raise ConfigError("mask_ratio", config.mask_ratio, "leaves no patch out that could be learnt")
        self.mae = mae
        self.projector = _projector(config.hidden_size, options.seed) if options.contrastive else None
        self._reconstructs = options.reconstruction > 0

    def forward(self, pixels: Tensor, noise: Tensor, views: int) -> Outcome:
        """`pixels` (V·N, 3, S, S) and `noise` (V·N, L), view after view."""
        encoded: ViTMAEModelOutput = self.mae.vit(pixels, noise)
        tokens, mask, ids_restore = encoded.last_hidden_state, encoded.mask, encoded.ids_restore
        assert tokens is not None
        assert mask is not None
        assert ids_restore is not None
        reconstruction = projections = None
        if self._reconstructs:
            first = len(pixels) // views  # one view of each photo says as much, for half the decoder's time
            logits = self.mae.decoder(tokens[:first], ids_restore[:first]).logits
            reconstruction = self.mae.forward_loss(pixels[:first], logits, mask[:first])
        if self.projector is not None:
            projected: Tensor = self.projector(tokens[:, 1:].float().mean(dim=1))
            projections = projected.float().view(views, -1, _PROJECTED)
        return Outcome(reconstruction, projections)


def info_nce(projections: Tensor, temperature: float) -> Tensor:
    """SimCLR's NT-Xent of (2, N, D): every view must tell its photo's other view from all other 2N - 2."""
    count = projections.shape[1]
    unit = functional.normalize(projections.flatten(0, 1), dim=1)
    similarity = (unit @ unit.T / temperature).fill_diagonal_(-torch.inf)
    return functional.cross_entropy(similarity, torch.arange(2 * count, device=unit.device).roll(count))


def contrast(
    projections: Sequence[Tensor], temperature: float, processes: Processes
) -> tuple[Tensor, list[Tensor]]:
    """The contrastive loss over all parts of a batch, a scalar, and its gradient for each of these (2, n, D).

    So that the loss sees the whole batch, though each part has a graph of its own.
    """
    ours = torch.cat([part.detach() for part in projections], dim=1)
    together = processes.gather(ours.transpose(0, 1)).transpose(0, 1).requires_grad_()
    loss = info_nce(together, temperature)
    (gradient,) = torch.autograd.grad(loss, together)
    own = gradient[:, processes.share(together.shape[1])]
    return loss.detach(), list(torch.split(own, [part.shape[1] for part in projections], dim=1))


def _projector(width: int, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Linear(width, _HIDDEN), nn.LayerNorm(_HIDDEN), nn.GELU(), nn.Linear(_HIDDEN, _PROJECTED)
        )
