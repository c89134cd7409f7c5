"""docs/reference-parity.md: every test that it names exists, and every name of the reference is in it."""

from __future__ import annotations

import ast
import inspect
import re
from dataclasses import fields
from pathlib import Path

import pytest
import transformers

import vitmae_search.vitmae as ours
from vitmae_search.vitmae import ViTMAEConfig, ViTMAEForPreTrainingOutput, ViTMAEModelOutput
from vitmae_search.vitmae.pretrained import _NOT_SUPPORTED

PAGE = Path(__file__).parents[2] / "docs/reference-parity.md"
LINK = re.compile(r"\[(test_\w+\.py)::(test_\w+)\]\(([^)]+)\)")


def named_tests(file: Path) -> set[str]:
    return {n.name for n in ast.parse(file.read_text()).body if isinstance(n, ast.FunctionDef)}


def wrong_links(text: str) -> list[str]:
    """The links whose file or test is not there."""
    wrong = []
    for file, name, address in LINK.findall(text):
        path = (PAGE.parent / address).resolve()
        if path.name != file or not path.is_file() or name not in named_tests(path):
            wrong.append(f"{file}::{name}")
    return wrong


def rows() -> list[list[str]]:
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return [row for row in cells if row[-1] != "Test"]


def test_every_test_that_is_named_exists() -> None:
    text = PAGE.read_text()
    assert len(LINK.findall(text)) > 80
    assert wrong_links(text) == []
    gone = "[test_config.py::test_gone](../tests/vitmae/test_config.py)"
    elsewhere = "[test_config.py::test_x](../tests/test_config.py)"
    assert len(wrong_links(text + gone + elsewhere)) == 2


def test_every_row_has_a_test() -> None:
    assert len(rows()) > 70
    for row in rows():
        assert len(row) == 3, row
        assert LINK.search(row[2]), row


def left_out() -> set[str]:
    """The names that the page says are not here."""
    section = PAGE.read_text().split("## What is not here")[1].split("\n## ")[0].partition("\n- ")[2]
    return set(re.findall(r"`(\w+)(?:=\w+)?`", section))


@pytest.mark.parametrize(
    "name", ["ViTMAEForPreTraining", "ViTMAEModel", "ViTForImageClassification", "ViTModel"]
)
def test_every_public_name_of_a_model_is_here_or_left_out_on_the_page(name: str) -> None:
    theirs, mine = getattr(transformers, name), getattr(ours, name)
    missing = {attribute for attribute in dir(theirs) if not hasattr(mine, attribute)}
    assert {attribute for attribute in missing if not attribute.startswith("_")} - left_out() == set()
    arguments = set(inspect.signature(theirs.forward).parameters) - {"kwargs"}
    assert arguments - set(inspect.signature(mine.forward).parameters) - left_out() == set()


@pytest.mark.parametrize("name", ["ViTMAEConfig", "ViTConfig"])
def test_every_public_name_of_a_configuration_is_here_or_left_out_on_the_page(name: str) -> None:
    theirs, mine = getattr(transformers, name), getattr(ours, name)()
    missing = {attribute for attribute in dir(theirs) if not hasattr(mine, attribute)}
    assert {attribute for attribute in missing if not attribute.startswith("_")} - left_out() == set()


def test_every_class_is_here_or_left_out_on_the_page() -> None:
    names = {
        *transformers.models.vit_mae.modeling_vit_mae.__all__,
        *transformers.models.vit.modeling_vit.__all__,
    }
    assert {name for name in names if not hasattr(ours, name)} - left_out() == set()


def test_what_is_refused_is_left_out_on_the_page() -> None:
    assert set(_NOT_SUPPORTED) - {"offload_state_dict"} <= left_out()
    assert {name for name in left_out() if hasattr(ours.ViTMAEModel, name)} == set()


@pytest.mark.parametrize(
    "names",
    [
        list(ViTMAEConfig.own_rules),
        [f.name for f in fields(ViTMAEModelOutput)],
        [f.name for f in fields(ViTMAEForPreTrainingOutput)],
        ["pixel_values", "noise", "interpolate_pos_encoding", "return_dict", "attn_implementation"],
        [f.name for f in fields(transformers.PreTrainedConfig)],
    ],
)
def test_every_name_of_the_reference_has_a_row(names: list[str]) -> None:
    column = " ".join(row[0] for row in rows())
    assert [name for name in names if name not in column] == []


def test_the_version_that_is_compared_is_the_one_it_names() -> None:
    assert f"version {'.'.join(transformers.__version__.split('.')[:2])}" in PAGE.read_text()
