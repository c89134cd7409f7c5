"""The four examples of the reference's page (Apache-2.0), with nothing but the import changed.

They are in `examples/`: the calls that the page makes, under its names, as a reader would type them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

import vitmae_search.vitmae as ours

EXAMPLES = Path(__file__).with_name("examples")
TOLERANCE = 1e-5
SEED = 6


def run(name: str) -> dict[str, Any]:
    """The names that an example leaves behind."""
    code = (EXAMPLES / f"{name}.txt").read_text()
    changed = code.replace("from transformers import", "from vitmae_search.vitmae import")
    assert changed != code
    assert "transformers" not in changed
    left: dict[str, Any] = {}
    torch.manual_seed(SEED)
    exec(compile(changed, name, "exec"), left)
    return left


@pytest.fixture
def expected(reference: Any, reference_processor: Any, photo: Path) -> Any:
    """What the reference's model makes of the photo, with the same noise."""
    inputs = reference_processor(Image.open(photo), return_tensors="pt")
    torch.manual_seed(SEED)
    with torch.no_grad():
        return reference(**inputs, output_hidden_states=True)


def near(a: Tensor, b: Tensor) -> bool:
    a, b = a.detach(), b.detach()
    scale = max(1.0, float(b.abs().max()))
    return a.shape == b.shape and float((a - b).abs().max()) <= TOLERANCE * scale


def test_all_four_are_here() -> None:
    names = sorted(path.stem for path in EXAMPLES.iterdir())
    assert names == ["configuration", "encoder", "pretraining", "reconstruction"]


def test_reconstruction(base: str, asked: list[str], expected: Any) -> None:
    left = run("reconstruction")
    assert asked == [left["url"]]
    assert isinstance(left["model"], ours.ViTMAEForPreTraining)
    assert left["reconstruction"].shape == (1, 196, 768)
    assert near(left["reconstruction"], expected.logits)
    assert near(left["outputs"].loss, expected.loss)
    other = expected.logits.roll(1, dims=1)
    assert not near(left["reconstruction"], other)


def test_configuration() -> None:
    left = run("configuration")
    assert left["configuration"] == ours.ViTMAEConfig()
    assert left["model"].num_parameters() == 85_647_360
    assert all(bool(value.any()) for name, value in left["model"].state_dict().items() if "bias" not in name)


def test_encoder(base: str, asked: list[str], reference: Any, expected: Any) -> None:
    left = run("encoder")
    assert asked == [left["url"]]
    assert isinstance(left["model"], ours.ViTMAEModel)
    last = reference.vit.layernorm(expected.hidden_states[-1])
    assert left["last_hidden_states"].shape == (1, 50, 768)
    assert near(left["last_hidden_states"], last)
    assert torch.equal(left["outputs"].ids_restore, expected.ids_restore)


def test_pretraining(base: str, asked: list[str], expected: Any) -> None:
    left = run("pretraining")
    assert asked == [left["url"]]
    assert near(left["loss"], expected.loss)
    assert torch.equal(left["mask"], expected.mask)
    assert torch.equal(left["ids_restore"], expected.ids_restore)
    left["loss"].backward()
    assert all(p.grad is not None for p in left["model"].parameters())
