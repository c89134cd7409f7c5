"""Shell completion: commands, options and their values, quickly, in each shell that click knows."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vitmae_search.cli.main import COMMANDS

HEAVY = {"torch", "streamlit", "faiss", "sqlalchemy"}

# What the installed script does; at its end it prints which heavy modules are loaded.
SCRIPT = f"""
import atexit, sys
sys.argv[0] = "vitmae-search"
atexit.register(lambda: print("loaded", *sorted({HEAVY!r} & set(sys.modules)), file=sys.stderr))
from vitmae_search.cli.main import main
main()
"""


def completions(shell: str, *words: str) -> list[str]:
    """What is offered for the last word, as the shell's own function gets it."""
    # fish passes the word itself, the others its number.
    place = words[-1] if shell == "fish" else str(len(words))
    line = " ".join(("vitmae-search", *words))
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={
            **os.environ,
            "COMP_WORDS": line,
            "COMP_CWORD": place,
            "_VITMAE_SEARCH_COMPLETE": f"{shell}_complete",
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr.split() == ["loaded"], "nothing heavy is loaded"
    return done.stdout.splitlines()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_commands_are_completed(shell: str) -> None:
    offered = completions(shell, "ind")
    text = COMMANDS["index"][1]
    assert (
        offered
        == {
            "bash": ["plain,index"],
            "zsh": ["plain", "index", text],
            "fish": [f"plain,index\t{text}"],
        }[shell]
    )


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_options_are_completed(shell: str) -> None:
    offered = completions(shell, "index", "--emb")
    assert any("--embedder" in line for line in offered)
    assert not any("--exclude" in line for line in offered)


def test_every_command_is_offered_at_first() -> None:
    assert completions("bash", "") == [f"plain,{name}" for name in COMMANDS]


def test_subcommands_and_values_are_completed() -> None:
    assert completions("bash", "spaces", "d") == ["plain,derive", "plain,drop"]
    assert completions("bash", "index", "--decode", "e") == ["plain,exact"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shells_function_is_printed(shell: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, "_VITMAE_SEARCH_COMPLETE": f"{shell}_source"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"_VITMAE_SEARCH_COMPLETE={shell}_complete" in done.stdout


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_itself_completes_with_it(tmp_path: Path) -> None:
    command = tmp_path / "vitmae-search"
    command.write_text(f"#!{sys.executable}\n{SCRIPT}")
    command.chmod(0o755)
    typed = (
        'eval "$(_VITMAE_SEARCH_COMPLETE=bash_source vitmae-search)"; COMP_WORDS=(vitmae-search ind); '
        'COMP_CWORD=1; _vitmae_search_completion vitmae-search; echo "${COMPREPLY[@]}"'
    )
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    done = subprocess.run(["bash", "-c", typed], env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "index\n"
