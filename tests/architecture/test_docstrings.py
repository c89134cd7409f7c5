"""Public functions with two parameters or more have an `Args:` section that names each of them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

PACKAGES = sorted(
    str(path.relative_to(ROOT))
    for path in (*(ROOT / "vitmae_search").iterdir(), *(ROOT / "plugins").iterdir(), ROOT / "benchmarks")
    if path.suffix == ".py" or (path.is_dir() and path.name not in {"_bundled", "__pycache__"})
)

Function = ast.FunctionDef | ast.AsyncFunctionDef


def public_functions(node: ast.Module | ast.ClassDef, name: str = "") -> Iterator[tuple[str, Function]]:
    """Yield the public functions of a module, and the public methods of its public classes."""
    for part in node.body:
        if isinstance(part, ast.ClassDef | Function) and not part.name.startswith("_"):
            if isinstance(part, ast.ClassDef):
                yield from public_functions(part, f"{name}{part.name}.")
            elif not is_excused(part):
                yield f"{name}{part.name}", part


def is_excused(function: Function) -> bool:
    """Whether its parameters are documented elsewhere: an override's, a property's, a command's."""
    decorators = {ast.unparse(decorator) for decorator in function.decorator_list}
    return any(re.search(r"overload|override|\.setter|click|option|argument", text) for text in decorators)


def parameters(function: Function) -> list[str]:
    """Return the names of its parameters, `self` and `cls` aside."""
    given = function.args
    every = [*given.posonlyargs, *given.args, *given.kwonlyargs]
    every += [one for one in (given.vararg, given.kwarg) if one is not None]
    return [one.arg for one in every if one.arg not in {"self", "cls"} and not one.arg.startswith("_")]


def documented(function: Function) -> set[str]:
    """Return the names in the `Args:` section, which may share a line: `height, width: In pixels.`"""
    section = re.search(r"^Args:\n((?:[ \t]+.*\n|\n)+)", (ast.get_docstring(function) or "") + "\n", re.M)
    lines = re.findall(r"^ +([\w*, ]+?)(?: \(.*?\))?:", section[1] if section else "", re.M)
    return {name.strip(" *") for line in lines for name in line.split(",")}


def lacking(package: str) -> list[str]:
    found = []
    for path in [ROOT / package] if package.endswith(".py") else sorted((ROOT / package).rglob("*.py")):
        for name, function in public_functions(ast.parse(path.read_text("utf-8"))):
            absent = set(parameters(function)) - documented(function)
            if absent and len(parameters(function)) > 1:
                found.append(f"{path.relative_to(ROOT)}: {name} lacks {', '.join(sorted(absent))}")
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_parameters_are_documented(package: str) -> None:
    assert lacking(package) == []
