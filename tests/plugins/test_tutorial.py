"""docs/plugins.md, followed to the letter: its files are written, its commands run, its outputs compared.

In an output, a line `...` stands for any lines.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from vitmae_search import embedding
from vitmae_search.embedding import Classifier, Embedder, EmbedderPlugin, OpenModel, PluginInfo

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "plugins.md").read_text("utf-8")
TUTORIAL, _, REFERENCE = PAGE.partition("\n## Reference\n")
BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
END_OF_BLOCK = "--- end of block ---"

# The reader's commands, as this environment has them; pip installs offline, into a folder of its own.
COMMANDS = {
    "python": 'exec {python} "$@"',
    "pytest": 'exec {python} -m pytest -p no:cacheprovider "$@"',
    "vitmae-search": 'exec {python} -m vitmae_search "$@"',
    "pip": '[ "$1" = install ] || exit 2\nexec {python} -m pip "$@" --target {site} '
    "--no-deps --no-build-isolation --no-index --disable-pip-version-check --quiet",
}


@dataclass
class Command:
    """A block of shell code, and the output that the page shows for it, if any."""

    code: str
    output: str | None = None


def tutorial_script() -> tuple[str, list[Command]]:
    """The whole tutorial as one shell script, and its commands."""
    lines, commands = ["set -euo pipefail"], []
    for language, title, code in BLOCK.findall(TUTORIAL):
        if title:
            folder = Path(title).parent
            lines.append(f"mkdir -p '{folder}'\ncat > '{title}' <<'END_OF_FILE'\n{code}END_OF_FILE")
        elif language == "bash":
            commands.append(Command(code))
            lines.append(f"{code}echo; echo '{END_OF_BLOCK}'")
        else:
            assert language == "text", f"a block of {language} without a title"
            commands[-1].output = code
    return "\n".join(lines), commands


def same_output(shown: str, output: str, home: str) -> bool:
    """Whether an output is the one on the page, but for durations, the home folder, and lines left out."""
    shown, output = (re.sub(r"=* (\d+ passed) in .*", r"\1", text) for text in (shown, output))
    shown, output = (re.sub(r"\d+\.\d s\b", "0.0 s", text) for text in (shown, output))
    lines = ["(?:.*\n)*" if line == "..." else re.escape(line) + "\n" for line in shown.splitlines()]
    return re.fullmatch("".join(lines), output.replace(home, "/home/you")) is not None


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory, real_photos: dict[str, Path]) -> dict[str, str]:
    """A reader's environment: a home with photos, and the commands on the path."""
    pytest.importorskip("hatchling")
    home = tmp_path_factory.mktemp("reader")
    (home / "Pictures").mkdir()
    for name, photo in (("beach.jpg", "china"), ("cat.png", "chelsea"), ("coffee.png", "coffee")):
        shutil.copy(real_photos[photo], home / "Pictures" / name)
    (home / "bin").mkdir()
    for name, code in COMMANDS.items():
        command = home / "bin" / name
        command.write_text("#!/bin/sh\n" + code.format(python=sys.executable, site=home / "site") + "\n")
        command.chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("VITMAE_SEARCH_")}
    path = [home / "site", ROOT, os.environ.get("PYTHONPATH", "")]
    return {
        **kept,
        "HOME": str(home),
        "PATH": f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(map(str, filter(None, path))),
        "PYTHONDONTWRITEBYTECODE": "1",
        "XDG_DATA_HOME": str(home / "data"),
        "XDG_CACHE_HOME": str(home / "cache"),
        "OMP_NUM_THREADS": "1",
    }


@pytest.mark.timeout(900)
def test_the_tutorial_works(reader: dict[str, str]) -> None:
    script, commands = tutorial_script()
    work = Path(reader["HOME"]) / "work"
    work.mkdir()
    done = subprocess.run(
        ["bash", "-c", script], cwd=work, env=reader, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    outputs = done.stdout.split(f"\n{END_OF_BLOCK}\n")[:-1]
    assert len(outputs) == len(commands)
    for command, output in zip(commands, outputs, strict=True):
        if command.output is not None:
            assert same_output(command.output, output, reader["HOME"]), f"{command.code}\n{output}"
    assert len([command for command in commands if command.output]) >= 8


def test_the_reference_names_every_member() -> None:
    """The tables of the page and the classes of the contract have the same members."""
    named = set(re.findall(r"^\| `(\w+)", REFERENCE, re.MULTILINE))
    for contract in (EmbedderPlugin, Embedder, Classifier, PluginInfo):
        members = {*contract.__annotations__, *vars(contract), *OpenModel.__annotations__, *vars(OpenModel)}
        missing = {name for name in members if not name.startswith("_")} - named
        assert not missing, contract


def test_everything_that_the_page_names_can_be_imported() -> None:
    names = set(re.findall(r"`([A-Z][A-Za-z]+)(?:\([^`]*\))?`", REFERENCE))
    ours = names - {"None", "MemoryError", "PluginBroken"}
    assert "PluginOptionError" in ours
    assert not [name for name in ours if not hasattr(embedding, name)]
