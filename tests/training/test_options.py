"""Options of a run: what a resumed run may change, what "auto" means, and presets."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from vitmae_search.errors import ConfigError, TrainingError
from vitmae_search.training import PRESETS, PretrainOptions, model_config
from vitmae_search.training.devices import precision_context, resolve_attention, resolve_auto, should_compile
from vitmae_search.training.shared_options import resume_options
from vitmae_search.vitmae import ViTMAEConfig


def test_options_survive_json() -> None:
    options = PretrainOptions(epochs=3.5, crop_scale=(0.4, 0.9), max_minutes=7)
    assert PretrainOptions.from_json(options.to_json()) == options
    with pytest.raises(TrainingError, match="momentum"):
        PretrainOptions.from_json({**options.to_json(), "momentum": 0.9})


def test_the_rate_grows_with_the_batch() -> None:
    assert PretrainOptions(batch_size=4096).peak_rate == pytest.approx(2.4e-3)  # the paper's


def test_a_resumed_run_may_change_runtime_options_only() -> None:
    saved = PretrainOptions(seed=3)
    assert resume_options(saved, {"threads": 2, "seed": 3}, "here") == replace(saved, threads=2)
    with pytest.raises(TrainingError, match=r"here holds a run with seed=3, and 4"):
        resume_options(saved, {"seed": 4}, "here")


def test_a_resumed_run_keeps_the_precision_that_it_began_in() -> None:
    saved = PretrainOptions(precision="fp32")
    assert resume_options(saved, {"precision": "auto"}, "here") == saved
    with pytest.raises(TrainingError, match="precision='fp32'"):
        resume_options(saved, {"precision": "bf16"}, "here")
    kept = PretrainOptions(attention="eager")
    assert resume_options(kept, {"attention": "auto"}, "here") == kept
    with pytest.raises(TrainingError, match="attention='eager'"):
        resume_options(kept, {"attention": "sdpa"}, "here")


@pytest.mark.parametrize("has", [True, False])
@pytest.mark.parametrize("instructions", ["_is_amx_tile_supported", "_is_avx512_bf16_supported"])
def test_auto_is_bf16_on_a_cpu_that_multiplies_in_it(
    has: bool, instructions: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda name=name: has and name == instructions, raising=False)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    options = resolve_auto(PretrainOptions(device="cpu"))
    assert options.precision == ("bf16" if has else "fp32")
    with precision_context(torch.device("cpu"), "auto"):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == (torch.bfloat16 if has else torch.float32)
    options = PretrainOptions(device="cpu", precision="fp32", attention="sdpa")
    assert resolve_auto(options) == options


def test_auto_is_fp32_with_the_fused_attention_where_torch_uses_avx2() -> None:
    program = (
        "from vitmae_search.training import PretrainOptions\n"
        "from vitmae_search.training.devices import resolve_auto\n"
        "options = resolve_auto(PretrainOptions(device='cpu'))\n"
        "print(options.precision, options.attention)"
    )
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": "avx2"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.stdout.split() == ["fp32", "sdpa"], done.stderr


def test_auto_is_the_fused_attention_everywhere_but_in_bf16_on_a_cpu() -> None:
    assert resolve_attention("auto", torch.device("cpu"), "bf16") == "eager"
    assert resolve_attention("auto", torch.device("cpu"), "fp32") == "sdpa"
    assert resolve_attention("auto", torch.device("cuda"), "bf16") == "sdpa"
    assert resolve_attention("eager", torch.device("cuda"), "bf16") == "eager"


def test_layers_are_compiled_by_default_only_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for found in (None, object()):
        monkeypatch.setattr("importlib.util.find_spec", lambda name, found=found: found)
        assert should_compile(torch.device("cuda")) == (found is not None)
        assert not should_compile(torch.device("cpu"))


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_models(preset: str) -> None:
    assert model_config(preset).norm_pix_loss
    assert model_config(preset, norm_pix_loss=False, mask_ratio=0.5).mask_ratio == 0.5


def test_a_model_may_be_a_config_file(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    ViTMAEConfig(num_hidden_layers=3).to_json_file(path)
    assert model_config(str(path), image_size=64) == ViTMAEConfig(num_hidden_layers=3, image_size=64)
    with pytest.raises(ConfigError, match="tiny, small, base, large"):
        model_config("medium")
