"""`vitmae-search pretrain` as a person runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vitmae_search.cli import main

FAST = ["--epochs", "4", "--batch-size", "6", "--precision", "fp32", "--threads", "1"]


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def config_file(tiny_model: dict[str, Any], tmp_path: Path) -> str:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(tiny_model))
    return str(path)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Exit code, stdout and stderr of the command with these arguments, in this process."""

    def ran(*arguments: str | Path) -> tuple[int, str, str]:
        code = main.run(["pretrain", *map(str, arguments)])
        return code, *capsys.readouterr()

    return ran


def test_json_is_one_object_and_the_folder_a_checkpoint(
    run: Run, photo_folder: Path, config_file: str, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    code, out, err = run(photo_folder, "-o", output, "--model", config_file, *FAST, "--json")
    assert code == 0, err
    report = json.loads(out)
    assert (report["steps"], report["photos"], report["failed"]) == (8, 12, 0)
    assert report["interrupted"] is False
    assert {"config.json", "preprocessor_config.json", "model.safetensors", "log.jsonl"} <= {
        path.name for path in output.iterdir()
    }
    described = json.loads((output / "config.json").read_text())
    assert (described["hidden_size"], described["norm_pix_loss"]) == (16, True)
    assert "packing: 12 of 12" in err


def test_ctrl_c_saves_a_checkpoint_and_the_same_command_resumes(
    run: Run, photo_folder: Path, config_file: str, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    command = (photo_folder, "-o", output, "--model", config_file, *FAST[2:], "--epochs", "1000000")
    process = subprocess.Popen(
        [sys.executable, "-m", "vitmae_search", "pretrain", *map(str, command)],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    with process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("training:"):
                break
        process.send_signal(signal.SIGINT)
        err = process.stderr.read()
    assert process.returncode == 130
    assert "Traceback" not in err
    assert "goes on from the checkpoint" in err
    assert (output / "model.safetensors").exists()

    code, out, err = run(*command, "--max-minutes", "0.0001", "--json")  # that time is over already
    assert code == 0, err
    assert json.loads(out)["steps"] >= 20


def test_another_recipe_is_one_line_and_exit_code_1(
    run: Run, photo_folder: Path, config_file: str, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    run(photo_folder, "-o", output, "--model", config_file, *FAST)
    code, out, err = run(photo_folder, "-o", output, "--batch-size", "7")
    assert (code, out) == (1, "")
    assert err.startswith("error: ")
    assert "batch_size=6" in err
    assert len(err.strip().splitlines()) == 1
    code, out, _ = run(photo_folder, "-o", output)  # nothing given: it goes on as it began, and is done
    assert code == 0
    assert "4.00 epochs of 12 photos" in out


def test_usage_errors_are_exit_code_2(run: Run, tmp_path: Path) -> None:
    assert run(tmp_path / "nowhere")[0] == 2
    assert run(tmp_path, "--mask-ratio", "1.0")[0] == 2


def test_help_needs_no_torch() -> None:
    code = (
        "import sys; from vitmae_search.cli.main import run; run(['pretrain', '--help']); "
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Ctrl-C keeps a checkpoint" in done.stdout
