"""One of several processes that train together: run as `ddp_worker.py RANK COUNT FOLDER`.

Rank 0 also trains alone on everybody's images, for comparison.
"""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from vitmae_search.vitmae import ViTMAEConfig, ViTMAEForPreTraining

STEPS = 3


def train(model: nn.Module, batches: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    for images, noise in batches:
        optimiser.zero_grad()
        first = model(images, noise).loss
        second = model(images.flip(-1), noise).loss  # two forwards before one backward
        (first + second).backward()
        optimiser.step()


def main(rank: int, count: int, folder: Path) -> None:
    torch.manual_seed(0)
    config = ViTMAEConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        image_size=(16, 32),
        patch_size=8,
        decoder_hidden_size=24,
        decoder_num_attention_heads=3,
        decoder_num_hidden_layers=1,
        decoder_intermediate_size=40,
    )
    model = ViTMAEForPreTraining(config).train()
    alone = copy.deepcopy(model)
    batches = [(torch.randn(2 * count, 3, 16, 32), torch.rand(2 * count, 8)) for _ in range(STEPS)]
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=count)
    mine = slice(2 * rank, 2 * rank + 2)
    train(DistributedDataParallel(model), [(images[mine], noise[mine]) for images, noise in batches])
    torch.save(model.state_dict(), folder / f"{rank}.pt")
    if rank == 0:
        train(alone, batches)
        torch.save(alone.state_dict(), folder / "alone.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
