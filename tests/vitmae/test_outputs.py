"""Outputs are mappings, tuples and pytrees, as the reference's `ModelOutput` is."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from accelerate.utils import convert_outputs_to_fp32
from torch import Tensor
from torch.utils import _pytree as pytree
from transformers.models.vit_mae.modeling_vit_mae import ViTMAEForPreTrainingOutput as ReferenceOutput

from vitmae_search.vitmae import (
    BaseModelOutputWithPooling,
    ImageClassifierOutput,
    ViTConfig,
    ViTForImageClassification,
    ViTMAEConfig,
    ViTMAEDecoderOutput,
    ViTMAEForPreTraining,
    ViTMAEForPreTrainingOutput,
    ViTMAEModel,
    ViTMAEModelOutput,
    ViTModel,
)

Tiny = Callable[..., dict[str, Any]]
Pixels = Callable[[int, int], Tensor]

LOGITS, MASK, STATES = torch.ones(2), torch.zeros(3), (torch.ones(1), torch.zeros(1))
FIELDS = {"logits": LOGITS, "mask": MASK, "hidden_states": STATES}
BOTH = pytest.mark.parametrize("kind", [ViTMAEForPreTrainingOutput, ReferenceOutput])


@BOTH
def test_an_output_is_a_dict_and_a_tuple(kind: Any) -> None:
    output = kind(**FIELDS)
    assert isinstance(output, dict)
    assert isinstance(output, Mapping)
    assert list(output) == list(output.keys()) == ["logits", "mask", "hidden_states"]
    assert dict(**output) == dict(output.items()) == FIELDS
    assert output.to_tuple() == tuple(output.values()) == (LOGITS, MASK, STATES)
    assert output[1] is output.mask is output["mask"]
    assert output[1:] == (MASK, STATES)
    assert output[-1] is STATES
    assert output.loss is None
    assert output.get("loss") is None
    with pytest.raises(KeyError):
        output["loss"]
    first, *others = output.to_tuple()
    assert (first, len(others)) == (LOGITS, 2)


@BOTH
def test_what_is_assigned_is_in_the_dict(kind: Any) -> None:
    output = kind(**FIELDS)
    output.mask = LOGITS
    output["hidden_states"] = None
    assert output["mask"] is output[1] is LOGITS
    output.attentions = STATES
    assert list(output) == ["logits", "mask", "hidden_states", "attentions"]


@BOTH
@pytest.mark.parametrize(
    "change",
    [
        lambda output: output.pop("mask"),
        lambda output: output.update(mask=LOGITS),
        lambda output: output.setdefault("mask", LOGITS),
        lambda output: output.__delitem__("mask"),
    ],
)
def test_nothing_is_removed(kind: Any, change: Callable[[Any], object]) -> None:
    output = kind(**FIELDS)
    with pytest.raises(Exception, match=r"cannot"):
        change(output)
    assert list(output) == ["logits", "mask", "hidden_states"]


@BOTH
def test_an_output_is_made_of_a_dict_or_of_pairs(kind: Any) -> None:
    """As Accelerate and DataParallel make them again."""
    for items in (dict(FIELDS), tuple(FIELDS.items()), iter(FIELDS.items())):
        output = kind(items)
        assert output.loss is None
        assert output.mask is MASK
        assert dict(output.items()) == FIELDS
    assert kind(LOGITS).loss is LOGITS
    assert kind(STATES).loss is STATES


@BOTH
def test_an_output_is_copied_and_pickled(kind: Any) -> None:
    for again in (pickle.loads(pickle.dumps(kind(**FIELDS))), copy.deepcopy(kind(**FIELDS))):
        assert type(again) is kind
        assert list(again) == ["logits", "mask", "hidden_states"]
        assert again.loss is None
        assert torch.equal(again.logits, LOGITS)


@BOTH
def test_an_output_is_a_pytree(kind: Any) -> None:
    output = kind(**FIELDS)
    leaves, structure = pytree.tree_flatten(output)
    assert [leaf is value for leaf, value in zip(leaves, (LOGITS, MASK, *STATES), strict=True)] == [True] * 4
    again = pytree.tree_unflatten(leaves, structure)
    assert type(again) is kind
    assert again.hidden_states == STATES
    shapes = pytree.tree_map(lambda leaf: leaf.shape, output)
    assert shapes.logits == (2,)
    assert shapes["hidden_states"] == ((1,), (1,))
    assert structure == pytree.treespec_loads(pytree.treespec_dumps(structure))
    keys = [pytree.keystr(path) for path, _ in pytree.tree_leaves_with_path(output)]
    assert keys == ["['logits']", "['mask']", "['hidden_states'][0]", "['hidden_states'][1]"]


def test_every_output_has_the_reference_s_fields() -> None:
    modules = [
        transformers.models.vit_mae.modeling_vit_mae,
        transformers.modeling_outputs,
    ]
    for ours in (
        ViTMAEModelOutput,
        ViTMAEDecoderOutput,
        ViTMAEForPreTrainingOutput,
        BaseModelOutputWithPooling,
        ImageClassifierOutput,
    ):
        theirs = next(getattr(m, ours.__name__) for m in modules if hasattr(m, ours.__name__))
        assert list(ours.__dataclass_fields__) == list(theirs.__dataclass_fields__)


MODELS: dict[str, Callable[[dict[str, Any], dict[str, Any]], tuple[Any, dict[str, Any]]]] = {
    "pretraining": lambda mae, _: (ViTMAEForPreTraining(ViTMAEConfig(**mae)), {"noise": torch.rand(2, 16)}),
    "encoder": lambda mae, _: (ViTMAEModel(ViTMAEConfig(**mae)), {"noise": torch.rand(2, 16)}),
    "vit": lambda _, vit: (ViTModel(ViTConfig(**vit)), {}),
    "classification": lambda _, vit: (
        ViTForImageClassification(ViTConfig(**vit, num_labels=3)),
        {"labels": torch.tensor([0, 2])},
    ),
}


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest, tiny: Tiny) -> tuple[Any, dict[str, Any]]:
    """A model in evaluation mode, and arguments of its `forward` beside the pixels."""
    mae = tiny()
    vit = {name: value for name, value in mae.items() if not name.startswith("decoder_")}
    made, arguments = MODELS[request.param](mae, vit)
    return made.eval(), arguments


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_models_are_exported(model: tuple[Any, dict[str, Any]], pixels: Pixels, tmp_path: Path) -> None:
    module, arguments = model
    expected = module(pixels(32, 32), **arguments)
    program = torch.export.export(module, (pixels(32, 32),), arguments)
    torch.export.save(program, tmp_path / "model.pt2")
    for exported in (program, torch.export.load(tmp_path / "model.pt2")):
        found = exported.module()(pixels(32, 32), **arguments)
        assert type(found) is type(expected)
        assert list(found) == list(expected)
        assert all(torch.allclose(found[name], expected[name], atol=1e-6) for name in expected)


def test_accelerate_casts_outputs_to_fp32(model: tuple[Any, dict[str, Any]], pixels: Pixels) -> None:
    module, arguments = model
    half = module.bfloat16()
    plain = half(pixels(32, 32), **arguments)
    output = convert_outputs_to_fp32(half.forward)(pixels(32, 32), **arguments)
    assert type(output) is type(plain)
    assert list(output) == list(plain)
    floats = {name: value.dtype for name, value in output.items() if value.is_floating_point()}
    assert set(floats.values()) == {torch.float32}
    assert any(value.dtype == torch.bfloat16 for value in plain.values())
