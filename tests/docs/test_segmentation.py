"""The example of docs/segmentation.md runs, and its head reaches what the page says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "segmentation.md").read_text("utf-8")


def test_a_head_on_features_learns_what_one_on_pixels_does_not(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(code, "segmentation.md", "exec"), names)
    reached = names["reached"]
    said = [float(figure) for figure in re.findall(r"\b0\.\d\d\b", PAGE.split("```")[-1])[:2]]
    assert [reached["features"], reached["pixels"]] == pytest.approx(said, abs=0.05)
    assert reached["features"] > reached["pixels"] + 0.3
    assert "features" in capsys.readouterr().out
