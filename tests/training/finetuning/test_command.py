"""`vitmae-search finetune` as a person runs it, and its result as an embedder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vitmae_search.catalog import Catalog
from vitmae_search.cli import main
from vitmae_search.training import load_classifier
from vitmae_search.vitmae import ViTImageProcessor

FAST = ["--epochs", "10", "--batch-size", "16", "--learning-rate", "2", "--threads", "1"]

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Exit code, stdout and stderr of `finetune` with these arguments, in this process."""

    def ran(*arguments: str | Path) -> tuple[int, str, str]:
        code = main.run(["finetune", *map(str, arguments)])
        return code, *capsys.readouterr()

    return ran


def test_json_is_one_object_and_the_folder_a_model(
    run: Run, coloured_folder: Path, start_model: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    code, out, err = run(coloured_folder, "-o", output, "--model", start_model, *FAST, "--json")
    assert code == 0, err
    report = json.loads(out)
    assert (report["classes"], report["photos"], report["validation_photos"]) == (3, 48, 12)
    assert (report["mode"], report["pooling"], report["interrupted"]) == ("probe", "cls", False)
    assert report["model"] == str(start_model)
    pictures = {"loss.png", "accuracy.png", "confusion.png"}
    model = {"config.json", "preprocessor_config.json", "model.safetensors"}
    assert pictures | model | {"log.jsonl"} <= {path.name for path in output.iterdir()}
    assert "packing: 60 of 60" in err
    assert "encoding: 108 of 108" in err


def test_the_result_is_printed_for_people(
    run: Run, coloured_folder: Path, start_model: Path, tmp_path: Path
) -> None:
    table = tmp_path / "labels.csv"
    rows = [f"{name}/{i:02d}.png,{name}" for name in ("red", "green") for i in (0, 2, 4)]
    table.write_text("\n".join(["path,label", *rows, "blue/00.png,blue"]))
    code, out, err = run(
        *(coloured_folder, "-o", tmp_path / "run", "--model", start_model, "--labels", table),
        *("--pooling", "mean", *FAST),
    )
    assert code == 0, err
    assert "10.00 epochs of 5 photos in 3 classes" in out
    assert "on 2 photos held out" in out
    assert "no photo was held out of blue: the accuracy does not speak for them" in out
    assert "transformers would not read" in err


def test_ctrl_c_saves_a_checkpoint_and_the_same_command_resumes(
    run: Run, coloured_folder: Path, start_model: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    command = (coloured_folder, "-o", output, "--model", start_model, *FAST[2:])
    process = subprocess.Popen(
        [sys.executable, "-m", "vitmae_search", "finetune", *map(str, command), "--epochs", "1000000"],
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
    assert (output / "state.pt").exists()
    code, out, err = run(*command, "--epochs", "5")
    assert (code, out) == (1, "")
    assert "epochs=1000000.0" in err


def test_mistakes_are_one_line_and_exit_code_1(
    run: Run, coloured_folder: Path, start_model: Path, tmp_path: Path
) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("path,label\nred/00.png,red\nred/gone.png,red\n")
    for wrong, message in (
        (("--labels", table), "line 3: red/gone.png"),
        (("--mixup", "0.5"), "has no part in mode probe"),
        (("--model", tmp_path / "nowhere"), "nowhere"),
        (("--device", "cuda:99"), "cuda:99"),
    ):
        code, out, err = run(coloured_folder, "-o", tmp_path / "run", "--model", start_model, *wrong)
        assert (code, out) == (1, ""), message
        assert err.startswith("error: ")
        assert message in err
        assert len(err.strip().splitlines()) == 1


def test_usage_errors_are_exit_code_2(run: Run, tmp_path: Path) -> None:
    assert run(tmp_path / "nowhere")[0] == 2
    assert run(tmp_path, "--val-share", "1.0")[0] == 2
    assert run(tmp_path, "--pooling", "gem")[0] == 2


def test_help_needs_no_torch() -> None:
    code = (
        "import sys; from vitmae_search.cli.main import run; run(['finetune', '--help']); "
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--layer-decay" in done.stdout


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_a_fine_tuned_encoder_is_an_embedder_too(
    run: Run,
    capsys: pytest.CaptureFixture[str],
    coloured_folder: Path,
    start_model: Path,
    tmp_path: Path,
    pooling: str,
) -> None:
    output, folder = tmp_path / "run", tmp_path / "library"
    full = ("--mode", "full", "--epochs", "1", "--pooling", pooling, "--threads", "1")
    code, _, err = run(coloured_folder, "-o", output, "--model", start_model, *full)
    assert code == 0, err
    library = ("--library", str(folder), "--json")
    indexed = ["index", str(coloured_folder), "--model", str(output), "-o", f"pooling={pooling}"]
    indexed += ["--precision", "fp32", *library]
    assert main.run(indexed) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["added"], report["failed"], report["model"]) == (60, 0, "run")

    path = coloured_folder / "red/00.png"
    assert main.run(["search", str(path), "-k", "3", *library]) == 0
    assert json.loads(capsys.readouterr().out)["hits"][0]["path"] == str(path)
    assert main.run(["reconstruct", str(path), "--model", str(output), "-o", str(tmp_path / "x.png")]) == 1
    assert "cannot reconstruct" in capsys.readouterr().err

    model, processor = load_classifier(output), ViTImageProcessor.from_pretrained(output)
    with Image.open(path) as image, torch.inference_mode():
        tokens = model.vit(**processor(image, return_tensors="pt")).last_hidden_state[0]
    expected = (tokens[0] if pooling == "cls" else tokens[1:].mean(dim=0)).numpy()
    catalog = Catalog.open(folder)
    photo = next(photo for photo in catalog.photos() if photo.path == str(path))
    space = catalog.current_space()
    assert space is not None
    vector = catalog.vector(space.space_id, photo.content_id)
    catalog.close()
    assert vector is not None
    np.testing.assert_allclose(vector, expected / np.linalg.norm(expected), atol=1e-5)
