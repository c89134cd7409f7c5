"""The benchmarks of a GPU, tried on the CPU with a very small model: all rows are there, and right."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.encoder_cases import MODEL_CONFIGS
from benchmarks.gpu import BENCHMARKS, ROOT, Benchmark, environment, run_all
from benchmarks.gpu_encoding import forward_operations
from benchmarks.gpu_own_variants import VARIANTS
from benchmarks.gpu_profile import IDLE, Kernel, time_shares
from vitmae_search.vitmae import ViTMAEConfig, ViTMAEModel

NOT_ON_EVERY_GPU_BOX = ("sqlalchemy", "faiss", "streamlit", "pillow_heif")
CUDAS = {"cuDNN's attention", "memory-efficient attention"}


def run(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        env=environment() | {"OMP_NUM_THREADS": "1"} | more,
        capture_output=True,
        text=True,
        timeout=250,
    )


def cells(printed: str) -> dict[str, list[str]]:
    """The rows of all tables by what stands first."""
    rows = [line.strip("| ").split(" | ") for line in printed.splitlines() if line.startswith("|")]
    return {name: rest for name, *rest in rows}


def test_encoding_has_every_row_and_right_vectors_without_what_a_gpu_box_may_lack() -> None:
    blocked = f"import sys; sys.modules.update(dict.fromkeys({NOT_ON_EVERY_GPU_BOX!r}))"  # importing raises
    words = ["gpu_encoding", "--device", "cpu", "--only", "base", "--rounds", "1"]
    code = f"{blocked}; from benchmarks import gpu_peak_rates, gpu_encoding; sys.argv = {words!r}"
    done = run("-c", f"{code}; gpu_encoding.main(); del sys.argv[3:]; gpu_peak_rates.main()")
    assert done.returncode == 0, done.stderr
    rows = cells(done.stdout)
    compared = {"HF ViTMAE", "HF ViT", "ours, photos on the device", "ours"}
    assert compared | (VARIANTS.keys() - CUDAS) | {"fp32"} <= rows.keys()
    least = {
        name: float(rows[name][4 if name in compared else 2])
        for name in rows
        if name in compared | VARIANTS.keys()
    }
    assert min(least.values()) > 0.9995, least
    assert rows["fp32"][2] == "1.000000"
    assert {"products", "attention", IDLE} <= rows.keys()
    ceilings = {
        "ViT-L/16, fc2",
        "ViT-L/16, compiled",
        "ViT-B/16, flash",
        "to the device, from pinned memory",
    }
    assert min(float(rows[name][-1]) for name in ceilings) > 0


@pytest.mark.parametrize(("name", "giga"), [("base", 35.1), ("large", 123.1)])
def test_operations_are_those_that_are_counted(name: str, giga: float) -> None:
    config = ViTMAEConfig(**MODEL_CONFIGS[name])
    with torch.device("meta"):
        model = (
            ViTMAEModel(config, attn_implementation="eager").eval().to("meta")
        )  # tables are made on the CPU
        with FlopCounterMode(display=False) as counter:
            model.encode(torch.empty(1, 3, 224, 224), [config.num_hidden_layers])
    assert forward_operations(config) == counter.get_total_flops() == pytest.approx(giga * 1e9, rel=0.002)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("nvjet_tst_128x256_64x4_2x1_v_bz_coopA_bias_TNT", "products"),
        (
            "void cutlass::Kernel2<cutlass_80_tensorop_bf16_s16816gemm_bf16_128x256_32x3_tn_align8>",
            "products",
        ),
        (
            "void pytorch_flash::flash_fwd_kernel<Flash_fwd_kernel_traits<64, 128, cutlass::bfloat16_t>>",
            "attention",
        ),
        ("fmha_cutlassF_bf16_aligned_64x64_rf_sm80(PyTorchMemEffAttention::AttentionKernel)", "attention"),
        ("cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16_knob_7", "attention"),
        ("triton_per_fused__to_copy_add_native_layer_norm_0", "norms and sums, compiled"),
        ("Memcpy HtoD (Pinned -> Device)", "copies to and from the host"),
        (
            "void at::native::elementwise_kernel<128, 2, at::native::direct_copy_kernel_cuda>",
            "copies and look-ups",
        ),
        (
            "void at::native::vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add<float>>",
            "other norms, sums and GELUs",
        ),
    ],
)
def test_kernels_are_told_by_their_names(name: str, kind: str) -> None:
    assert Kernel(name, 0, 1).kind == kind


def test_shares_of_time_sum_to_one_where_kernels_overlap_and_where_none_runs() -> None:
    ran = [Kernel("a", 10, 20), Kernel("b", 15, 30), Kernel("a", 16, 18), Kernel("b", 40, 50)]
    assert time_shares(ran, lambda kernel: kernel.name) == {"a": 0.25, "b": 0.5, IDLE: 0.25}


def test_without_a_gpu_it_is_one_sentence() -> None:
    done = run("-m", "benchmarks.gpu", CUDA_VISIBLE_DEVICES="")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("cuda: ")
    assert len(done.stderr.splitlines()) == 1


def test_one_that_fails_and_one_that_hangs_are_said_and_the_next_runs() -> None:
    told: list[str] = []
    parts = {
        "broken": part("print('| its table |'); raise SystemExit('a reason')"),
        "endless": part("import time; print('begun', flush=True); time.sleep(600)", minutes=1 / 30),
        "good": part("import sys; print(sys.argv[1:])"),
    }
    assert run_all(parts, "cuda:1", 60, told.append) == ["broken", "endless"]
    text = "\n".join(told)
    assert "| its table |" in text
    assert "a reason" in text
    assert "**stopped after 2 seconds**" in text
    assert "['--device', 'cuda:1']" in text


@pytest.mark.parametrize("name", BENCHMARKS)
def test_each_has_its_program_which_takes_a_device(name: str) -> None:
    program = ROOT / f"{BENCHMARKS[name].words[1].replace('.', '/')}.py"
    options = {f'"{word}"' for word in BENCHMARKS[name].words if word.startswith("--")}
    source = program.read_text("utf-8")
    assert all(f"add_argument({option}" in source for option in options | {'"--device"'})


def test_nothing_is_started_that_there_is_no_time_for() -> None:
    told: list[str] = []
    assert run_all({"good": part("print('ran')")}, "cpu", 0, told.append) == ["good"]
    assert "**not run: no time was left**" in told[-1]
    assert "ran" not in told


def part(code: str, minutes: float = 10) -> Benchmark:
    return Benchmark(("-c", code), minutes)
