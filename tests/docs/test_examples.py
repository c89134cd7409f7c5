"""The examples in docstrings (`>>>`) give what they say."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def modules_with_examples() -> list[str]:
    paths = sorted((ROOT / "vitmae_search").rglob("*.py"))
    having = [path for path in paths if ">>> " in path.read_text("utf-8") and "_bundled" not in path.parts]
    return [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in having]


@pytest.mark.parametrize("module", modules_with_examples())
def test_examples_give_what_they_say(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = [
        test for test in doctest.DocTestFinder().find(importlib.import_module(module)) if test.examples
    ]
    assert examples
    for number, example in enumerate(examples):
        folder = tmp_path / f"working-folder-{number}"
        folder.mkdir()
        monkeypatch.chdir(folder)
        report: list[str] = []
        result = doctest.DocTestRunner().run(example, out=report.append)
        assert result.failed == 0, "".join(report)
        assert list(folder.iterdir()) == [], f"{example.name} left something behind"
