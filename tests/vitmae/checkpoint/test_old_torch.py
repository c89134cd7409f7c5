"""With a torch that does not read torch files safely, they are refused; safetensors files are not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from vitmae_search.errors import CheckpointError
from vitmae_search.vitmae.checkpoint import weights


def test_torch_files_need_a_torch_that_reads_them_safely(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = {"weight": torch.arange(4.0)}
    torch.save(state, tmp_path / "model.pth")
    save_file(state, tmp_path / "model.safetensors")
    assert set(weights.read_weights(tmp_path / "model.pth")[0]) == {"weight"}
    monkeypatch.setattr(torch, "__version__", type(torch.__version__)("2.9.1+cpu"))
    with pytest.raises(CheckpointError, match=r"torch 2\.9\.1.*CVE-2026-24747.*safetensors"):
        weights.read_weights(tmp_path / "model.pth")
    assert set(weights.read_weights(tmp_path / "model.safetensors")[0]) == {"weight"}
