"""`vitmae-search adapt` as a person runs it."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from vitmae_search.embedding import Projection
from vitmae_search.library import Library
from vitmae_search.vitmae import ViTImageProcessor, ViTMAEConfig, ViTMAEForPreTraining

FAST = ("--photos", 80, "--held-out", 20, "--views", 4, "--method", "discriminant", "--dimension", 12)


@pytest.fixture
def library(
    vitmae_search: Any,
    pieces: Path,
    mean_dominated_plugins: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """The pieces, indexed with the plugin "mean_dominated"."""
    monkeypatch.setenv("VITMAE_SEARCH_PLUGINS", str(mean_dominated_plugins))
    assert vitmae_search("index", pieces, "--embedder", "mean_dominated").code == 0
    return tmp_path / "library"


def test_the_report_says_before_and_after_and_what_was_made(
    vitmae_search: Any, library: Path, pieces: Path, tmp_path: Path
) -> None:
    output = tmp_path / "one.safetensors"
    done = vitmae_search("adapt", pieces, *FAST, "--output", output)
    assert done.code == 0, done.err
    assert "learned from 80 photos in 4 views each, compared on 20 others" in done.out
    assert "crop-40" in done.out
    assert f"written to {output}" in done.out
    assert "encoding: 1 of 100 photos" in done.err
    done = vitmae_search("adapt", pieces, *FAST, "--json")
    report = done.json
    assert (report["kept"], report["kind"], report["space"]) == (True, "discriminant", 2)
    assert report["digest"] == Projection.read(output).digest
    assert report["before"]["all"]["value"] < report["after"]["all"]["value"]
    assert report["difference"]["low"] > 0
    assert [space["current"] for space in vitmae_search("spaces", "--json").json["spaces"]] == [False, True]


def test_a_projection_that_is_not_better_is_reported_and_is_no_error(
    vitmae_search: Any, library: Path, pieces: Path
) -> None:
    done = vitmae_search("adapt", pieces, *FAST[:6], "--method", "whitening", "--dimension", 1)
    assert done.code == 0
    assert done.out.splitlines()[-1] == "not better beyond chance: nothing was changed"
    assert len(vitmae_search("spaces", "--json").json["spaces"]) == 1


def test_ctrl_c_ends_with_130_and_changes_nothing(library: Path, pieces: Path) -> None:
    words = ("adapt", pieces, "--library", library, *FAST[:4], "--views", 200, "--json")
    process = subprocess.Popen(
        [sys.executable, "-m", "vitmae_search", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    with process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("encoding:"):
                break
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in err
    assert json.loads(out)["interrupted"]
    with Library.open(library) as opened:
        assert len(opened.spaces()) == 1
        assert opened.jobs()[0].state == "cancelled"


def test_errors_are_one_line_and_usage_is_exit_code_2(
    vitmae_search: Any, pieces: Path, tmp_path: Path
) -> None:
    done = vitmae_search("adapt", pieces, *FAST)
    assert done.code == 1
    assert done.err.strip().splitlines()[-1].startswith("error: ")
    assert vitmae_search("adapt", tmp_path / "nowhere").code == 2
    assert vitmae_search("adapt", pieces, "--method", "magic").code == 2
    done = vitmae_search("adapt", pieces, "--encoder", "--held-out", 9)
    assert done.code == 2
    assert "--held-out is for a projection" in done.err


def test_encoder_goes_on_with_the_pretraining(vitmae_search: Any, pieces: Path, tmp_path: Path) -> None:
    config = ViTMAEConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        decoder_hidden_size=16,
        decoder_num_hidden_layers=1,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=16,
        image_size=16,
        patch_size=4,
    )
    torch.manual_seed(0)
    before = ViTMAEForPreTraining(config)
    before.save_pretrained(tmp_path / "model")
    ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(tmp_path / "model")
    run = tmp_path / "the run"
    words = ("adapt", pieces, "--encoder", "--model", tmp_path / "model", "--epochs", 3, "--device", "cpu")
    done = vitmae_search(*words, "--output", run, "--json")
    assert done.code == 0, done.err
    assert shlex.split(done.json["index_with"]) == [
        *("vitmae-search", "index", str(pieces)),
        *("--model", str(run)),
    ]
    after = ViTMAEForPreTraining.from_pretrained(run)
    changes = [
        (ours - theirs).abs().max().item()
        for ours, theirs in zip(before.vit.parameters(), after.vit.parameters(), strict=True)
        if theirs.requires_grad
    ]
    assert 0 < max(changes) < 0.01  # it went on from there, by a few steps
    assert "index with it" in vitmae_search(*words, "--output", run).out  # it is done, and says so again
