"""A machine that only trains needs torch, numpy, Pillow and safetensors, not what searches and shows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

PROGRAM = """
import json, sys

ABSENT = {"faiss", "sqlalchemy", "streamlit", "click", "rich", "matplotlib", "psutil", "pillow_heif",
          "platformdirs", "huggingface_hub"}

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"{name} is not here")

sys.meta_path.insert(0, Absent())
from vitmae_search.training import pretrain
folder, output, model = sys.argv[1:]
options = {"batch_size": 12, "epochs": 2.0, "device": "cpu"}
report = pretrain(folder, output, model=json.loads(model), options=options)
print(json.dumps({"steps": report.steps, "loaded": sorted(ABSENT & set(sys.modules))}))
"""


def test_training_does_not_import_search_or_web_packages(
    photo_folder: Path, tiny_model: dict[str, Any], tmp_path: Path
) -> None:
    command = [
        sys.executable,
        "-c",
        PROGRAM,
        str(photo_folder),
        str(tmp_path / "run"),
        json.dumps(tiny_model),
    ]
    folders = {"VITMAE_SEARCH_DATA": str(tmp_path / "data"), "VITMAE_SEARCH_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **folders})
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"steps": 2, "loaded": []}
    assert (tmp_path / "run" / "model.safetensors").exists()
