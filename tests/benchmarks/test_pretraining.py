"""The rows of the pretraining benchmark, tried on the CPU with a very small model: they compute the same."""

from __future__ import annotations

import pytest
import torch

from benchmarks.pretraining import SIZES, measure_cpu, measure_gpu, start_all, step_operations
from vitmae_search.vitmae import ViTMAEConfig

CPU = torch.device("cpu")


def cells(printed: str) -> dict[str, list[str]]:
    rows = [line.strip("| ").split(" | ") for line in printed.splitlines() if line.startswith("|")]
    return {name: rest for name, *rest in rows}


@pytest.fixture(autouse=True)
def in_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.nn.Module.compile", lambda self, **_: None)  # it would take a minute


def test_a_gpus_rows_compute_the_same_step() -> None:
    rows = cells(measure_gpu("debug", CPU, None, 1))
    assert {"transformers", "ours", "ours, as pretrain does it"} <= rows.keys()
    assert float(rows["ours"][-1]) > 0.999
    assert float(rows["ours"][-2]) == pytest.approx(float(rows["transformers"][-2]), rel=1e-2)
    assert 0.5 < float(rows["ours, as pretrain does it"][-2]) < 3


def test_a_variant_that_fails_is_named_and_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    class Variant:
        def first(self) -> None:
            pass

    def fail() -> Variant:
        raise RuntimeError("Failed to find C compiler.")

    steps, memory = start_all({"compiled": fail, "plain": Variant}, CPU)
    assert list(steps) == list(memory) == ["plain"]
    assert capsys.readouterr().out == "left out: compiled; RuntimeError: Failed to find C compiler.\n"


def test_a_cpus_rows_compute_the_same_step() -> None:
    rows = cells(measure_cpu("debug", CPU, None, 1))
    assert {"transformers", "transformers, bf16", "ours", "ours, bf16", "ours, bf16, compiled"} <= rows.keys()
    assert float(rows["ours"][-1]) == pytest.approx(1, abs=1e-5)
    assert float(rows["ours, bf16"][-1]) > 0.999


def test_operations_are_those_of_the_products() -> None:
    config = ViTMAEConfig(**{**SIZES["tiny"].fields, "norm_pix_loss": True})
    tokens, width = 17, 192
    encoder = 12 * (12 * tokens * width**2 + 2 * tokens**2 * width)
    decoder = 2 * (12 * 65 * 128**2 + 2 * 65**2 * 128)
    ends = 64 * 192 * 192 + tokens * 192 * 128 + 65 * 128 * 192
    forward = 2 * (encoder + decoder + ends)
    assert step_operations(config) == pytest.approx(3 * forward, rel=0.03)
