"""`inspect`, `explain` and the views of `reconstruct`: the files they write, and their numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from vitmae_search.cli.main import cli


@pytest.fixture(scope="module")
def photos(real_photos: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for name in ("coffee", "chelsea"):
        with Image.open(real_photos[name]) as photo:
            photo.convert("RGB").resize((200, 150)).save(folder / f"{name}.jpg")
    return folder


def run(*words: object) -> dict[str, object]:
    found = CliRunner().invoke(cli, [*map(str, words), "--json"], catch_exceptions=False)
    assert found.exit_code == 0, found.output
    answer: dict[str, object] = json.loads(found.stdout)
    return answer


def test_inspect_writes_a_figure_and_the_numbers(photos: Path, tmp_path: Path) -> None:
    one, two, library = photos / "coffee.jpg", photos / "chelsea.jpg", tmp_path / "library"
    attention = run(
        "inspect", one, "--layer", 3, "--patch", "2,5", "-o", tmp_path / "a.svg", "--library", library
    )
    assert len(attention["attention"]) == 8  # type: ignore[arg-type]
    assert (tmp_path / "a.svg").read_text().lstrip().startswith("<?xml")
    colors = run("inspect", one, two, "--show", "colors", "-o", tmp_path / "c.png", "--library", library)
    assert colors["layers"] == [3, 6, 9, 12]
    layers = run("inspect", one, "--show", "layers", "-o", tmp_path / "l.pdf", "--library", library)
    assert len(layers["changes"]) == 12  # type: ignore[arg-type]
    assert (tmp_path / "l.pdf").read_bytes().startswith(b"%PDF")
    wrong = CliRunner().invoke(cli, ["inspect", str(one), "--patch", "5"])
    assert wrong.exit_code == 2
    assert "not a row and a column" in wrong.output


def test_explain_adds_up(photos: Path, tmp_path: Path) -> None:
    library, output = tmp_path / "library", tmp_path / "e.png"
    run("index", photos, "--library", library)
    found = run("explain", photos / "coffee.jpg", photos / "chelsea.jpg", "-o", output, "--library", library)
    shares = sum(sum(row) for row in found["query_shares"])  # type: ignore[attr-defined]
    assert shares + found["query_rest"] == pytest.approx(found["score"], abs=1e-5)
    hits = run("search", photos / "coffee.jpg", "--library", library)["hits"]
    assert found["score"] == pytest.approx(hits[1]["score"], abs=1e-3)  # type: ignore[index]
    assert Image.open(output).width > 500


@pytest.mark.parametrize(("show", "suffix"), [("sweep", "gif"), ("sweep", "png"), ("seeds", "png")])
def test_views_of_many_reconstructions(photos: Path, tmp_path: Path, show: str, suffix: str) -> None:
    output = tmp_path / f"out.{suffix}"
    found = run(
        *(
            "reconstruct",
            photos / "coffee.jpg",
            "--show",
            show,
            "-o",
            output,
            "--library",
            tmp_path / "library",
        )
    )
    assert Image.open(output).format == suffix.upper()
    assert len(found["losses"]) == 19 if show == "sweep" else found["deviation"] > 0  # type: ignore[arg-type,operator]
