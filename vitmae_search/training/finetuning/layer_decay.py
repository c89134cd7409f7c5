"""Learning rates that shrink from the head down to the pixels (Clark et al. 2020, `util/lr_decay.py`)."""

from __future__ import annotations

import re
from typing import Any

from torch import nn

_IN_LAYER = re.compile(r"vit\.encoder\.layer\.(\d+)\.")


def layer_number(name: str, depth: int) -> int:
    """0 for the embeddings, i + 1 for layer i of `depth`, depth + 1 for the final norm and the head."""
    if name.startswith("vit.embeddings."):
        return 0
    found = _IN_LAYER.match(name)
    return int(found[1]) + 1 if found else depth + 1


def layer_groups(
    model: nn.Module, *, depth: int, layer_decay: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Parameter groups for AdamW, each with the "scale" of its rate, layer_decay^(depth + 1 - number).

    Biases, norms, the CLS token and positions have no weight decay. Every trained parameter is in one
    group, frozen ones in none.
    """
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        spared = parameter.ndim <= 1 or name.endswith(("cls_token", "position_embeddings"))
        number = layer_number(name, depth)
        empty = {
            "params": [],
            "scale": layer_decay ** (depth + 1 - number),
            "weight_decay": 0.0 if spared else weight_decay,
        }
        groups.setdefault((number, spared), empty)["params"].append(parameter)
    return [groups[key] for key in sorted(groups)]
