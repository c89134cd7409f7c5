"""The pinned versions lie in the ranges of pyproject.toml, and so above the versions with known holes."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]


NOT_RUN = ("bench",)
"""Extras that the tests do not use, so that no set of them is tested."""


def ranges() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    return [
        *project["dependencies"],
        *(one for extra, of in extras.items() if extra not in NOT_RUN for one in of),
    ]


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pairs}


@pytest.mark.parametrize("text", ranges())
def test_every_dependency_is_pinned_within_its_range(text: str) -> None:
    wanted = Requirement(text)
    pinned = pins()[canonicalize_name(wanted.name)]
    assert wanted.specifier.contains(pinned), f"{wanted} is pinned to {pinned}"
