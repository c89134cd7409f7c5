"""docs/reference-parity.md: every test that it names exists, and every name of the reference is in it."""

from __future__ import annotations

import ast
import re
from dataclasses import fields
from pathlib import Path

import pytest
import transformers

from vitmae_search.vitmae import ViTMAEConfig, ViTMAEForPreTrainingOutput, ViTMAEModelOutput

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


@pytest.mark.parametrize(
    "names",
    [
        list(ViTMAEConfig.own_rules),
        [f.name for f in fields(ViTMAEModelOutput)],
        [f.name for f in fields(ViTMAEForPreTrainingOutput)],
        ["pixel_values", "noise", "interpolate_pos_encoding", "return_dict", "attn_implementation"],
    ],
)
def test_every_name_of_the_reference_has_a_row(names: list[str]) -> None:
    column = " ".join(row[0] for row in rows())
    assert [name for name in names if name not in column] == []


def test_the_version_that_is_compared_is_the_one_it_names() -> None:
    assert f"version {'.'.join(transformers.__version__.split('.')[:2])}" in PAGE.read_text()
