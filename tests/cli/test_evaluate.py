"""`evaluate`: its output, its files, and its errors."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image


@pytest.fixture
def colours(tmp_path: Path, write_colour: Callable[[Path, str, int], Path]) -> Path:
    """Nine photos in the folders red, green and blue."""
    for seed in range(9):
        colour = ("red", "green", "blue")[seed % 3]
        write_colour(tmp_path / "photos" / colour / f"{seed}.jpg", colour, seed)
    return tmp_path / "photos"


def test_tables_json_markdown_and_a_plot(vitmae_search: Any, colours: Path, tmp_path: Path) -> None:
    words = ("evaluate", colours, "--embedder", "color_layout", "--instances", "4")
    files = ("--output", tmp_path / "report.md", "--plot", tmp_path / "plot.png")
    done = vitmae_search(*words, *files, "--json")
    assert done.code == 0, done.err
    assert done.json["methods"][0]["name"] == "color-layout"
    assert done.json["methods"][0]["neighbours"]["P@1"]["value"] == 1
    assert (done.json["photos"], done.json["instances"], done.json["failed"]) == (9, 4, 0)
    assert "of 13 photos" in done.err  # nine, and four again that are searched for
    with Image.open(tmp_path / "plot.png") as opened:
        assert opened.format == "PNG"
    text = vitmae_search(*words).out
    assert text == (tmp_path / "report.md").read_text("utf-8")
    assert "| color-layout | 268 | 100.00 (100.00–100.00) |" in text
    assert not (tmp_path / "library").exists()


def test_a_csv_may_stand_for_the_folder_that_it_lies_in(vitmae_search: Any, colours: Path) -> None:
    (colours / "labels.csv").write_text("path,label\nred/0.jpg,a\nred/3.jpg,a\nblue/2.jpg,b\n")
    words = ("--embedder", "color_layout", "--instances", "0", "--json")
    alone = vitmae_search("evaluate", colours / "labels.csv", *words).json
    both = vitmae_search("evaluate", colours, "--labels", colours / "labels.csv", *words).json
    assert (alone["photos"], alone["classes"]) == (3, 2)
    assert alone["methods"] == both["methods"]


def test_options_of_the_plugin_and_a_broken_photo(vitmae_search: Any, colours: Path) -> None:
    (colours / "red/broken.jpg").write_bytes(b"no picture")
    words = ("evaluate", colours, "--embedder", "color_layout", "-o", "histogram=false", "--instances", "0")
    done = vitmae_search(*words, "--json")
    assert (done.code, done.json["failed"]) == (0, 1)
    assert done.json["failures"][0]["path"].endswith("broken.jpg")
    assert done.json["methods"][0]["name"] == "color-layout-only, histogram False"
    assert "broken.jpg" in vitmae_search(*words).out


def test_a_terminal_gets_tables(vitmae_search: Any, colours: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr("vitmae_search.cli.evaluate._is_terminal", lambda: True)
    (colours / "red/broken.jpg").write_bytes(b"no picture")
    done = vitmae_search("evaluate", colours, "--embedder", "color_layout", "--instances", "0")
    assert done.code == 0, done.err
    assert "color-layout" in done.out
    assert "broken.jpg" in done.out
    assert "|---" not in done.out


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("no-such-folder",), 2, "no-such-folder"),
        (("{photos}", "--instances", "-1"), 2, "--instances"),
        (("{photos}", "--labels", "gone.csv"), 2, "gone.csv"),
        (("{photos}", "--output", "no-such-folder/x.md"), 2, "there is no folder no-such-folder"),
        (("{photos}", "--plot", "no-such-folder/x.png"), 2, "there is no folder no-such-folder"),
        (("{photos}", "-o", "histogram"), 2, "KEY=VALUE"),
        (("{photos}", "--embedder", "nobody"), 1, "nobody"),
        (("{photos}", "--model", "no-such-model"), 1, "no model"),
        (("{photos}", "--embedder", "color_layout", "--projection", "gone.safetensors"), 1, "gone"),
        (("{photos}/red", "--embedder", "color_layout", "--instances", "0"), 1, "There are no classes"),
        (("{photos}/wrong.csv", "--embedder", "color_layout"), 1, "needs the columns path and label"),
        (("{empty}", "--embedder", "color_layout"), 1, "no photos under"),
    ],
)
def test_mistakes_are_one_line(
    vitmae_search: Any, colours: Path, tmp_path: Path, words: tuple[str, ...], code: int, said: str
) -> None:
    (colours / "wrong.csv").write_text("file,class\n")
    (tmp_path / "empty").mkdir()
    done = vitmae_search(
        "evaluate", *(word.format(photos=colours, empty=tmp_path / "empty") for word in words)
    )
    assert done.code == code
    assert said in done.err
    assert "Traceback" not in done.err
    assert done.out == ""


def test_ctrl_c_ends_it_and_says_that_nothing_is_kept(gate: Path, colours: Path) -> None:
    """The plugin waits for a gate that stays shut."""
    words = ("evaluate", str(colours), "--embedder", "gated", "--batch-size", "3", "--instances", "0")
    # Where the tests run in the background, a shell has SIGINT ignored, and children inherit that.
    heard = "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    code = f"{heard}; runpy.run_module('vitmae_search', run_name='__main__')"
    with subprocess.Popen([sys.executable, "-c", code, *words], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("evaluating"):
                break
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        assert process.wait(60) == 130
    assert "begins anew" in rest
    assert "Traceback" not in rest
