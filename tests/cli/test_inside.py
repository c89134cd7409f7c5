"""`inspect`, `explain` and the views of `reconstruct`: the files they write, and their numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tests.cli.conftest import Command
from tests.library.test_named_models import make_model


@pytest.fixture(scope="module")
def pictures(real_photos: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for name in ("coffee", "chelsea"):
        with Image.open(real_photos[name]) as photo:
            photo.convert("RGB").resize((200, 150)).save(folder / f"{name}.jpg")
    return folder


def test_inspect_writes_a_figure_and_the_numbers(
    vitmae_search: Command, pictures: Path, tmp_path: Path
) -> None:
    one, two = pictures / "coffee.jpg", pictures / "chelsea.jpg"
    asked = ("--layer", 3, "--patch", "2,5", "-o", tmp_path / "a.svg")
    assert len(vitmae_search("inspect", one, *asked, "--json").json["attention"]) == 8
    assert (tmp_path / "a.svg").read_text().lstrip().startswith("<?xml")
    colors = vitmae_search("inspect", one, two, "--show", "colors", "-o", tmp_path / "c.png", "--json")
    assert colors.json["layers"] == [3, 6, 9, 12]
    layers = vitmae_search("inspect", one, "--show", "layers", "-o", tmp_path / "l.pdf", "--json")
    assert len(layers.json["changes"]) == 12
    assert (tmp_path / "l.pdf").read_bytes().startswith(b"%PDF")
    wrong = vitmae_search("inspect", one, "--patch", "5")
    assert (wrong.code, "not a row and a column" in wrong.err) == (2, True)


def test_explain_adds_up(vitmae_search: Command, pictures: Path, tmp_path: Path) -> None:
    one, two = pictures / "coffee.jpg", pictures / "chelsea.jpg"
    assert vitmae_search("index", pictures).code == 0
    found = vitmae_search("explain", one, two, "-o", tmp_path / "e.png", "--json").json
    shares = sum(sum(row) for row in found["query_shares"])
    assert shares + found["query_rest"] == pytest.approx(found["score"], abs=1e-5)
    hits = vitmae_search("search", one, "--json").json["hits"]
    assert found["score"] == pytest.approx(hits[1]["score"], abs=1e-3)
    with Image.open(tmp_path / "e.png") as figure:
        assert figure.width > 500


def test_a_mask_goes_from_one_photo_to_another_and_to_another_model(
    vitmae_search: Command, pictures: Path, tmp_path: Path
) -> None:
    one, two, output = pictures / "coffee.jpg", pictures / "chelsea.jpg", tmp_path / "out.png"
    first = vitmae_search("reconstruct", one, "--only", "2,3,4,6", "-o", output, "--json").json
    assert (first["mask"], first["masked_patches"]) == ("8x8-ffffe1e1e1ffffff", 52)
    again = vitmae_search("reconstruct", two, "--mask", first["mask"], "-o", output, "--json").json
    assert again["mask"] == first["mask"]
    assert again["loss"] != first["loss"]
    with Image.open(output) as sheet:
        alone = sheet.height
    model = make_model(tmp_path / "mine")
    asked = ("--mask", "2x2-8", "--beside", model, "-o", output, "--json")
    both = vitmae_search("reconstruct", one, *asked).json
    assert (both["mask"], both["statistics"]) == ("8x8-f0f0f0f000000000", "none")
    assert (both["beside"]["patches"], both["beside"]["masked_patches"]) == (9, 1)
    with Image.open(output) as sheet:
        assert sheet.height > 1.8 * alone
    text = vitmae_search("reconstruct", one, *asked[:-1]).out
    assert text.count("no brightness or contrast is borrowed") == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--mask", "8x8"), "is no mask"),
        (("--only", "3,3"), "first row and column"),
        (("--only", "3,3,2,4"), "ends before it begins"),
        (("--only", "1,1,2,2", "--mask", "2x2-8"), "give one of them"),
        (("--only", "20,20,30,30"), "not within this model's 8 × 8 patches"),
        (("--only", "1,1,2,2", "--pattern", "random"), "give one of them"),
        (("--pattern", "grid", "--mask", "2x2-8"), "give one of them"),
        (("--model", "x", "--beside", "x"), "the same model as --model"),
        (("--show", "seeds", "--beside", "x"), "goes with --show sheet"),
    ],
)
def test_masks_that_make_no_sense(
    vitmae_search: Command, pictures: Path, options: tuple[str, ...], said: str
) -> None:
    failed = vitmae_search("reconstruct", pictures / "coffee.jpg", *options)
    assert failed.code in (1, 2)
    assert said in failed.err


@pytest.mark.parametrize(
    ("show", "suffix"),
    [("sweep", "gif"), ("sweep", "png"), ("seeds", "png"), ("again", "gif"), ("again", "png")],
)
def test_views_of_many_reconstructions(
    vitmae_search: Command, pictures: Path, tmp_path: Path, show: str, suffix: str
) -> None:
    output = tmp_path / f"out.{suffix}"
    done = vitmae_search("reconstruct", pictures / "coffee.jpg", "--show", show, "-o", output, "--json")
    assert done.code == 0, done.err
    with Image.open(output) as written:
        assert written.format == suffix.upper()
    if show == "sweep":
        assert len(done.json["losses"]) == 19
    elif show == "again":
        assert len(done.json["losses"]) == 8
    else:
        assert done.json["deviation"] > 0


def test_neighbours_of_a_photo_and_of_all(vitmae_search: Command, pictures: Path, tmp_path: Path) -> None:
    one = pictures / "coffee.jpg"
    assert vitmae_search("index", pictures).code == 0
    whole = vitmae_search("neighbours", "-k", 1, "-o", tmp_path / "w.svg", "--json")
    assert (whole.json["photos"], len(whole.json["spectrum"])) == (2, whole.json["dimension"])
    found = vitmae_search("neighbours", one, "-o", tmp_path / "n.png", "--json").json
    assert [Path(each["path"]).stem for each in found["neighbours"]] == ["chelsea"]
    assert found["occurrences"] == 1
    said = vitmae_search("neighbours", one, "--before", "features", "-o", tmp_path / "c.pdf")
    assert "1 of 1 neighbours stay" in said.out
    assert "of 19 before" in said.out
    kept = one.read_bytes()
    one.unlink()
    said = vitmae_search("neighbours", one, "--before", "features", "-o", tmp_path / "c.pdf")
    one.write_bytes(kept)
    assert "1 of 1 neighbours stay" in said.out
    assert f"without changed copies: {one}: the file is not on disk any more" in said.out
    with Image.open(tmp_path / "n.png") as figure:
        assert figure.width > 500
    assert vitmae_search("neighbours", "--before", "features").code == 2
    assert "neither the id" in vitmae_search("neighbours", "--space", "x").err


def test_a_search_by_a_part_is_explained(vitmae_search: Command, pictures: Path, tmp_path: Path) -> None:
    one, two = pictures / "coffee.jpg", pictures / "chelsea.jpg"
    assert vitmae_search("index", pictures).code == 0
    part = ("--part", "0.1,0.2,0.5,0.5")
    found = vitmae_search("explain", one, two, *part, "-o", tmp_path / "e.png", "--json").json
    hit = vitmae_search("search", one, *part, "--json").json["hits"][0]
    assert found["score"] == pytest.approx(hit["score"], abs=1e-4)
    assert sum(map(sum, found["query_shares"])) + found["query_rest"] == pytest.approx(hit["score"], abs=1e-4)
    assert found["box"] == hit["box"]
    assert vitmae_search("explain", one, two, *part, "--layer", 3).code == 2
