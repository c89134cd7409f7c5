"""A configuration that claims too much, and paths that are no files, are refused at once and by name."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from vitmae_search.bundled import DEFAULT_MODEL, bundled
from vitmae_search.embedding import Projection
from vitmae_search.errors import CheckpointError, ConfigError, VitmaeSearchError
from vitmae_search.vitmae import ViTImageProcessor, ViTMAEConfig, ViTMAEForPreTraining

MEMORY = 4 << 30
"""Bytes of address space that refusing may take; torch alone maps some 2 GB."""

LOAD = """
import resource, sys
import torch
from vitmae_search.vitmae import ViTMAEForPreTraining
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[2]), int(sys.argv[2])))
try:
    ViTMAEForPreTraining.from_pretrained(sys.argv[1])
except Exception as error:
    print(f"{type(error).__name__}: {error}")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the bundled checkpoint."""
    return Path(shutil.copytree(bundled("data/models") / DEFAULT_MODEL, tmp_path / "model"))


def change(folder: Path, **fields: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def refusal(folder: Path) -> str:
    """What loading says, in a process that has little memory."""
    done = subprocess.run(
        [sys.executable, "-c", LOAD, os.fspath(folder), str(MEMORY)],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    return done.stdout


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"num_hidden_layers": 1_000_000},
            "ConfigError: num_hidden_layers=1000000: must be an integer from 1",
        ),
        ({"decoder_num_hidden_layers": 10**9}, "ConfigError: decoder_num_hidden_layers=1000000000: must be"),
        ({"num_labels": 10**9}, "ConfigError: num_labels=1000000000: must be an integer from 0 to 1,000,000"),
        ({"image_size": 32768}, "CheckpointError: .*position_embeddings is .* and should be"),
        ({"intermediate_size": 10**9}, "CheckpointError: .*intermediate.dense.weight is .* and should be"),
        ({"num_channels": 10**6}, "CheckpointError: .*projection.weight is .* and should be"),
    ],
)
def test_a_configuration_that_claims_too_much(folder: Path, fields: dict[str, object], said: str) -> None:
    change(folder, **fields)
    assert re.match(said, refusal(folder))


def test_what_the_weights_lack_must_fit_the_memory(folder: Path) -> None:
    """An encoder alone, with a configuration of a decoder that nothing could hold."""
    weights = folder / "model.safetensors"
    encoder = {name: value for name, value in load_file(weights).items() if not name.startswith("decoder.")}
    save_file(encoder, weights, metadata={"format": "pt"})
    change(folder, decoder_hidden_size=400_000_000)
    assert "CheckpointError: the configuration calls for a model of" in refusal(folder)


def test_as_many_layers_as_any_model_has() -> None:
    ViTMAEConfig(num_hidden_layers=1000)
    with pytest.raises(ConfigError):
        ViTMAEConfig(num_hidden_layers=1001)


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    """Nobody will ever write into it."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "preprocessor_config.json"])
def test_a_pipe_in_a_models_folder_is_not_waited_for(folder: Path, fifo: Path, name: str) -> None:
    (folder / name).unlink()
    fifo.rename(folder / name)
    part = ViTImageProcessor if name.startswith("preprocessor") else ViTMAEForPreTraining
    with pytest.raises(VitmaeSearchError):
        part.from_pretrained(folder)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ""])
def test_a_pipe_as_a_model_or_projection_is_not_waited_for(fifo: Path, suffix: str) -> None:
    path = fifo.rename(fifo.with_suffix(suffix))
    with pytest.raises(VitmaeSearchError):
        ViTMAEForPreTraining.from_pretrained(path)
    with pytest.raises(CheckpointError, match="not a file"):
        Projection.read(path)
