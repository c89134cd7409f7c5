"""The four examples of the reference's page (Apache-2.0), with only the import changed.

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
    """Run an example; returns its variables."""
    code = (EXAMPLES / f"{name}.txt").read_text()
    changed = code.replace("from transformers import", "from vitmae_search.vitmae import")
    assert changed != code
    assert "transformers" not in changed
    names: dict[str, Any] = {}
    torch.manual_seed(SEED)
    exec(compile(changed, name, "exec"), names)
    return names


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


def test_all_four_examples_exist() -> None:
    names = sorted(path.stem for path in EXAMPLES.iterdir())
    assert names == ["configuration", "encoder", "pretraining", "reconstruction"]


def test_reconstruction(base: str, requested_urls: list[str], expected: Any) -> None:
    names = run("reconstruction")
    assert requested_urls == [names["url"]]
    assert isinstance(names["model"], ours.ViTMAEForPreTraining)
    assert names["reconstruction"].shape == (1, 196, 768)
    assert near(names["reconstruction"], expected.logits)
    assert near(names["outputs"].loss, expected.loss)
    other = expected.logits.roll(1, dims=1)
    assert not near(names["reconstruction"], other)


def test_configuration() -> None:
    names = run("configuration")
    assert names["configuration"] == ours.ViTMAEConfig()
    assert names["model"].num_parameters() == 85_647_360
    assert all(bool(value.any()) for name, value in names["model"].state_dict().items() if "bias" not in name)


def test_encoder(base: str, requested_urls: list[str], reference: Any, expected: Any) -> None:
    names = run("encoder")
    assert requested_urls == [names["url"]]
    assert isinstance(names["model"], ours.ViTMAEModel)
    last = reference.vit.layernorm(expected.hidden_states[-1])
    assert names["last_hidden_states"].shape == (1, 50, 768)
    assert near(names["last_hidden_states"], last)
    assert torch.equal(names["outputs"].ids_restore, expected.ids_restore)


def test_pretraining(base: str, requested_urls: list[str], expected: Any) -> None:
    names = run("pretraining")
    assert requested_urls == [names["url"]]
    assert near(names["loss"], expected.loss)
    assert torch.equal(names["mask"], expected.mask)
    assert torch.equal(names["ids_restore"], expected.ids_restore)
    names["loss"].backward()
    assert all(p.grad is not None for p in names["model"].parameters())
