"""The other commands: JSON keys, exit codes, and error messages."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from vitmae_search.cli.main import COMMANDS, cli, run
from vitmae_search.embedding import Projection
from vitmae_search.photos.views import margin
from vitmae_search.records import ScoreCalibration


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_there(name: str) -> None:
    done = CliRunner().invoke(cli, [name, "--help"])
    assert done.exit_code == 0
    assert "--library" in done.output or name in ("pretrain", "finetune", "film")
    assert len(done.output.splitlines()) > 8


@pytest.mark.parametrize(
    "words",
    [
        ["evaluate", "{}"],
        ["adapt", "{}"],
        ["pretrain", "{}", "run"],
        ["finetune", "{}", "run"],
        ["export", "{}"],
        ["reconstruct", "photo.jpg", "-o", "{}"],
        ["inspect", "photo.jpg", "-o", "{}"],
        ["film", "{}"],
        ["film", "run", "-o", "{}"],
        ["map", "--csv", "{}"],
        ["duplicates", "--csv", "{}"],
        ["spaces", "derive", "{}"],
        ["evaluate", ".", "--output", "{}"],
        ["evaluate", ".", "--plot", "{}"],
        ["adapt", ".", "--output", "{}"],
        ["pretrain", ".", "-o", "{}"],
        ["pretrain", ".", "--film-photo", "{}"],
        ["finetune", ".", "-o", "{}"],
        ["finetune", ".", "--labels", "{}"],
        ["app", "--password-file", "{}"],
    ],
)
def test_what_has_to_be_on_a_disk_says_so_of_a_storage(words: list[str]) -> None:
    done = CliRunner().invoke(cli, [word.format("s3://key:not-a-secret@bucket/x") for word in words])
    assert done.exit_code == 2
    assert "this has to be on a disk, and not on a storage of objects" in done.output
    assert "not-a-secret" not in done.output


def test_the_version_of_a_checkout_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    done = CliRunner().invoke(cli, ["--version"])
    assert done.exit_code == 0
    assert done.output == "vitmae-search, version 0\n"


def test_the_commands_are_listed_with_what_they_do() -> None:
    done = CliRunner().invoke(cli, ["--help"])
    assert done.exit_code == 0
    for name, (_, text) in COMMANDS.items():
        assert name in done.output
        assert text in done.output


def test_search_finds_the_photo_itself(vitmae_search: Callable[..., Any], indexed: Path) -> None:
    done = vitmae_search("search", indexed / "3.jpg", "-k", "3", "--json")
    assert done.code == 0
    assert {"hits", "model", "space"} <= set(done.json)
    first = done.json["hits"][0]
    assert {"rank", "score", "photo_id", "path", "copies", "stacked", "video", "seconds"} == set(first)
    assert (first["rank"], first["path"], first["copies"]) == (1, str(indexed / "3.jpg"), [])
    assert first["score"] == pytest.approx(1, abs=1e-5)
    assert [hit["rank"] for hit in done.json["hits"]] == [1, 2, 3]


def test_search_with_a_picture_the_library_does_not_know(
    vitmae_search: Callable[..., Any], indexed: Path, tmp_path: Path
) -> None:
    query = tmp_path / "query.png"
    with Image.open(indexed / "5.jpg") as image:
        image.crop((4, 4, 92, 68)).save(query)
    done = vitmae_search("search", query, "--json")
    assert done.json["known"] is False
    assert done.json["hits"][0]["path"] == str(indexed / "5.jpg")
    assert "5.jpg" in vitmae_search("search", query).out.splitlines()[0]


def test_search_says_which_variant_of_a_picture_was_found(
    vitmae_search: Callable[..., Any], indexed: Path, tmp_path: Path
) -> None:
    with Image.open(indexed / "5.jpg") as image:
        margin(image, width=0.4).save(tmp_path / "framed.png")
    done = vitmae_search("search", tmp_path / "framed.png", "--json")
    assert done.json["hits"][0]["path"] == str(indexed / "5.jpg")
    assert done.json["variant"] == {"trimmed": True, "turned": 0}
    lines = vitmae_search("search", tmp_path / "framed.png").out.splitlines()
    assert lines[0] == "found with the picture without its borders"
    assert "5.jpg" in lines[1]
    plain = vitmae_search("search", tmp_path / "framed.png", "--no-variants", "--json").json
    assert plain["variant"] == {"trimmed": False, "turned": 0}
    assert plain["hits"][0]["score"] < done.json["hits"][0]["score"]


def test_search_says_what_a_picture_is_a_part_of(
    vitmae_search: Callable[..., Any], real_photos: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "real").mkdir()
    for name in ("astronaut", "coffee"):
        Image.open(real_photos[name]).convert("RGB").save(tmp_path / "real" / f"{name}.jpg")
    vitmae_search("index", tmp_path / "real", "--embedder", "color_layout")
    detail = tmp_path / "detail.png"
    Image.open(real_photos["astronaut"]).crop((100, 50, 300, 200)).save(detail)
    path = str(tmp_path / "real" / "astronaut.jpg")
    assert vitmae_search("search", detail, "--json").json["part_of"]["path"] == path
    assert f"part of {path}" in vitmae_search("search", detail).out.splitlines()
    assert vitmae_search("search", detail, "--no-variants", "--json").json["part_of"] is None


def test_search_draws_a_line_where_hits_are_no_longer_alike(
    vitmae_search: Callable[..., Any], indexed: Path, tmp_path: Path
) -> None:
    query = indexed / "5.jpg"
    every = vitmae_search("search", query, "--json").json
    assert every["calibration"] is None
    scores = [hit["score"] for hit in every["hits"]]
    assert len(vitmae_search("search", query, "--min-score", scores[2], "--json").json["hits"]) == 3
    assert vitmae_search("search", query, "--min-score", "2").out.startswith("no photo matches")
    refused = vitmae_search("search", query, "--min-score", "alike")
    assert (refused.code, "which score means 'alike'" in refused.err) == (1, True)
    assert vitmae_search("search", query, "--min-score", "alik").code == 2
    width = vitmae_search("spaces", "--json").json["spaces"][0]["dimension"]
    calibration = ScoreCalibration(0.99, (scores[2] + scores[3]) / 2, 200)
    identity = Projection([np.eye(width)], [np.zeros(width)], "head", calibration=calibration)
    identity.save(tmp_path / "head.safetensors")
    assert vitmae_search("spaces", "derive", tmp_path / "head.safetensors").code == 0
    lines = vitmae_search("search", query).out.splitlines()
    assert lines[3] == "      ------  from here on no longer alike"
    assert len(lines) == 9
    found = vitmae_search("search", query, "--min-score", "alike", "--json").json
    assert (len(found["hits"]), found["calibration"]) == (3, asdict(calibration))
    assert len(vitmae_search("search", query, "--min-score", "same", "--json").json["hits"]) == 1


def test_copies_are_listed(vitmae_search: Callable[..., Any], indexed: Path) -> None:
    (indexed / "sub").mkdir()
    (indexed / "sub" / "copy.jpg").write_bytes((indexed / "2.jpg").read_bytes())
    assert vitmae_search("index", indexed, "--json").json["added"] == 1
    hits = vitmae_search("search", indexed / "2.jpg", "-k", 8, "--json").json["hits"]
    assert len(hits) == 8
    assert {hits[0]["path"], *hits[0]["copies"]} == {
        str(indexed / "2.jpg"),
        str(indexed / "sub" / "copy.jpg"),
    }
    assert "(and 1 copy)" in vitmae_search("search", indexed / "2.jpg").out.splitlines()[0]
    (only,) = vitmae_search("search", indexed / "2.jpg", "--under", indexed / "sub", "--json").json["hits"]
    assert only["path"] == str(indexed / "sub" / "copy.jpg")


def test_search_in_an_empty_library_says_what_to_do(vitmae_search: Callable[..., Any], photos: Path) -> None:
    done = vitmae_search("search", photos / "0.jpg")
    assert done.code == 1
    assert "vitmae-search index" in done.err


def test_nothing_found_says_why(vitmae_search: Callable[..., Any], indexed: Path, tmp_path: Path) -> None:
    assert "without the filters" in vitmae_search("search", indexed / "2.jpg", "--after", "2100-01-01").out
    query = tmp_path / "query.jpg"
    query.write_bytes((indexed / "2.jpg").read_bytes())
    for path in indexed.iterdir():
        if path.name != "0.jpg":
            path.unlink()
    (indexed / "0.jpg").write_text("a photo no more", "utf-8")
    vitmae_search("index", indexed)
    done = vitmae_search("search", query)
    assert done.code == 0
    assert "filter" not in done.out
    assert "vitmae-search index" in done.out


def test_search_with_what_is_not_a_picture(
    vitmae_search: Callable[..., Any], indexed: Path, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("hello", "utf-8")
    for query in (tmp_path / "notes.txt", tmp_path / "nothing.jpg", indexed):
        done = vitmae_search("search", query)
        assert done.code == 1
        assert len(done.err.strip().splitlines()) == 1


def test_status(vitmae_search: Callable[..., Any], indexed: Path, tmp_path: Path) -> None:
    status = vitmae_search("status", "--json").json
    assert {"photos", "missing", "failed", "spaces", "library"} <= set(status)
    assert (status["photos"], status["missing"], status["failed"]) == (8, 0, 0)
    assert status["library"] == str(tmp_path / "library")
    (space,) = status["spaces"]
    assert (space["plugin"], space["vectors"], space["current"]) == ("color_layout", 8, True)
    assert space["index"]["kind"] == "exact"
    assert space["index"]["vectors"] == 8
    assert "8" in vitmae_search("status").out
    assert "exact: 8 vectors take about 1 ms" in vitmae_search("status").out


def test_status_of_an_empty_library(vitmae_search: Callable[..., Any], tmp_path: Path) -> None:
    assert vitmae_search("status", "--json").json["photos"] == 0
    assert "vitmae-search index" in vitmae_search("status").out
    assert not (tmp_path / "library").exists(), "looking makes nothing"


def test_a_mistyped_name_gets_a_suggestion(vitmae_search: Callable[..., Any], indexed: Path) -> None:
    done = vitmae_search("serach", "x.jpg")
    assert done.code == 2
    assert "No such command 'serach'. Did you mean 'search'?" in done.err
    assert "Did you mean" not in vitmae_search("photographs").err
    done = vitmae_search("index", indexed, "--model", "vitmae-tiny-patch8-46")
    assert done.code == 1
    assert "Did you mean 'vitmae-tiny-patch8-64'?" in done.err


def test_status_of_an_address(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["status", "--library", "s3://bucket/folder"]) == 1
    said = "error: s3://bucket/folder is an address; a library is a folder of this machine\n"
    assert capfd.readouterr().err == said


def test_status_of_a_library_that_is_not_there(vitmae_search: Callable[..., Any], tmp_path: Path) -> None:
    done = vitmae_search("status")
    assert done.err == f"there is no folder {tmp_path}/library, so no library is in it\n"
    assert not (tmp_path / "library").exists()
    (tmp_path / "library").mkdir()
    assert vitmae_search("status").err == ""


def test_a_folder_without_photos_of_the_library(
    vitmae_search: Callable[..., Any], indexed: Path, tmp_path: Path
) -> None:
    done = vitmae_search("search", indexed / "2.jpg", "--under", tmp_path / "nowhere", "--json")
    assert done.json["hits"] == []
    assert f"the library has no photo in {tmp_path}/nowhere; indexed were {indexed}" in done.err
    assert "no photo in" not in vitmae_search("search", indexed / "2.jpg", "--under", indexed).err


def test_an_empty_folder_names_what_is_looked_for(vitmae_search: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = vitmae_search("index", tmp_path / "empty", "--embedder", "color_layout")
    assert "0 photos found" in done.out
    assert "photos are files that end in " in done.out
    assert "jpg" in done.out


def test_spaces_use_and_drop(vitmae_search: Callable[..., Any], indexed: Path) -> None:
    other = vitmae_search("index", indexed, "--embedder", "color_layout", "--decode", "exact", "--json").json
    spaces = vitmae_search("spaces", "--json").json["spaces"]
    assert [space["current"] for space in spaces] == [True, False]
    assert [space["vectors"] for space in spaces] == [8, 8]
    used = vitmae_search("spaces", "use", other["space"], "--json").json["spaces"]
    assert [space["current"] for space in used] == [False, True]
    (left,) = vitmae_search("spaces", "drop", spaces[0]["id"], "--json").json["spaces"]
    assert left["id"] == other["space"]
    assert vitmae_search("search", indexed / "1.jpg", "--json").json["space"] == other["space"]
    assert vitmae_search("spaces", "use", 99).code == 1


def test_check_and_repair(vitmae_search: Callable[..., Any], indexed: Path, tmp_path: Path) -> None:
    assert vitmae_search("check", "--json").json["ok"] is True
    (file,) = (tmp_path / "library" / "vectors").glob("*.vectors")
    damaged = bytearray(file.read_bytes())
    damaged[len(damaged.rstrip(b"\0")) - 1] ^= 0x40  # of the last vector
    file.write_bytes(damaged)
    done = vitmae_search("check", "--json")
    assert done.code == 1
    assert done.json["problems"]
    assert vitmae_search("check", "--repair").code == 0
    assert vitmae_search("check").code == 0
    assert vitmae_search("search", indexed / "6.jpg", "--json").json["hits"][0]["path"] == str(
        indexed / "6.jpg"
    )


def test_a_failed_repair_is_not_reported_as_repaired(
    vitmae_search: Callable[..., Any], indexed: Path, tmp_path: Path
) -> None:
    (file,) = (tmp_path / "library" / "vectors").glob("*.vectors")
    file.unlink()
    file.mkdir()  # like a full or read-only disk, it keeps the new file from its place
    done = vitmae_search("check", "--repair", "--json")
    assert done.code == 1
    assert done.json["repaired"] == []


def test_plugins_and_models(vitmae_search: Callable[..., Any]) -> None:
    plugins = {plugin["name"]: plugin for plugin in vitmae_search("plugins", "--json").json["plugins"]}
    assert plugins["vitmae"]["error"] is None
    assert plugins["color_layout"]["error"] is None
    assert "pooling" in plugins["vitmae"]["options"]
    assert "vitmae" in vitmae_search("plugins").out
    models = vitmae_search("models", "--json").json["models"]
    base = next(model for model in models if model["name"] == "facebook/vit-mae-base")
    assert (base["source"], base["plugin"], base["decoder"]) == ("hub", "vitmae", True)
    (line,) = [line for line in vitmae_search("models").out.splitlines() if "vit-mae-base" in line]
    assert "768 dimensions, 224 px, 111.9 M parameters, 447.6 MB, decoder, the authors' own" in line


def test_models_speed_measures_and_lists(
    vitmae_search: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vitmae_search.library.model_speeds._BATCH_SECONDS", 0.01)
    done = vitmae_search("models", "--speed", "--device", "cpu", "--json")
    measured = {model["name"]: model for model in done.json["models"] if model["images_per_second"]}
    assert measured
    assert all(f"measuring {name}" in done.err for name in measured)
    assert all(model["measured_on"] in ("cpu, fp32", "cpu, bf16") for model in measured.values())
    assert vitmae_search("models").out.count("images/s (cpu, ") == len(measured)


def test_reconstruct(vitmae_search: Callable[..., Any], real_photos: dict[str, Path], tmp_path: Path) -> None:
    output = tmp_path / "out.png"
    words = ("--mask-ratio", "0.5", "--seed", "3", "--json")
    done = vitmae_search("reconstruct", real_photos["chelsea"], "-o", output, *words)
    assert done.code == 0, done.err
    numbers = {"loss", "level_error", "mask_ratio", "masked_patches", "patches", "seams_softened"}
    assert set(done.json) == numbers | {"mask", "statistics", "output"}
    assert done.json["masked_patches"] * 2 == done.json["patches"]
    assert done.json["loss"] > 0
    assert done.json["output"] == str(output)
    with Image.open(output) as picture:
        assert picture.width > 1.5 * picture.height, "the completed photo, and panels beside it"
    again = tmp_path / "again.png"
    vitmae_search("reconstruct", real_photos["chelsea"], "-o", again, *words)
    assert again.read_bytes() == output.read_bytes(), "the same seed gives the same picture"
    hard = vitmae_search("reconstruct", real_photos["chelsea"], "-o", again, "--no-soften", *words)
    assert (done.json["seams_softened"], hard.json["seams_softened"]) == (True, False)
    assert again.read_bytes() != output.read_bytes()
    assert vitmae_search("reconstruct", real_photos["chelsea"], "--mask-ratio", "1").code == 2
    assert vitmae_search("reconstruct", real_photos["chelsea"], "--seed", 2**63).code == 2
    assert vitmae_search("reconstruct", real_photos["chelsea"], "-o", tmp_path / "no" / "x.png").code == 1


def test_reconstruct_a_name_that_is_not_utf8(
    vitmae_search: Callable[..., Any], real_photos: dict[str, Path], tmp_path: Path, monkeypatch: Any
) -> None:
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png")
    Path(odd).write_bytes(real_photos["chelsea"].read_bytes())
    monkeypatch.chdir(tmp_path)
    done = vitmae_search("reconstruct", odd)
    assert done.code == 0, done.err
    assert "caf\ufffd-reconstruction.png" in done.out
    assert os.path.isfile(odd.replace(".png", "-reconstruction.png"))


def test_a_closed_pipe_is_no_error(indexed: Path, tmp_path: Path) -> None:
    code = (
        f"{sys.executable} -m vitmae_search status --library {tmp_path / 'library'} | head -c 1 > /dev/null"
    )
    done = subprocess.run(["bash", "-o", "pipefail", "-c", code], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr


def test_json_of_a_name_that_is_not_utf8(
    vitmae_search: Callable[..., Any], photos: Path, write_photo: Callable[[Path, int], Path]
) -> None:
    odd = os.fsencode(photos) + b"/caf\xe9 \xf0\x9f\x90\x88\n.jpg"
    write_photo(photos / "x.jpg", 77).rename(os.fsdecode(odd))
    assert vitmae_search("index", photos, "--embedder", "color_layout", "--json").json["added"] == 9
    hits = json.loads(vitmae_search("search", os.fsdecode(odd), "--json").out)["hits"]
    assert os.fsencode(hits[0]["path"]) == odd


def test_help_loads_nothing_that_takes_time() -> None:
    heavy = {"numpy", "PIL", "sqlalchemy", "faiss", "torch", "streamlit", "importlib.metadata"}
    code = (
        f"import sys; from vitmae_search.cli.main import run; run(['--help']); "
        f"sys.exit(' '.join({heavy!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "Commands:" in done.stdout
    assert done.stderr.split() == []


def test_a_known_photo_is_found_without_what_takes_time(indexed: Path, photos: Path, tmp_path: Path) -> None:
    heavy = {"torch", "faiss", "streamlit", "matplotlib", "huggingface_hub", "numpy.ma", "filelock", "psutil"}
    words = ["search", os.fspath(next(photos.rglob("*.jpg"))), "--library", os.fspath(tmp_path / "library")]
    code = (
        f"import sys; from vitmae_search.cli.main import run; run({words!r}); "
        f"sys.exit(' '.join({heavy!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.split() == []
    assert done.stdout.split()[:2] == ["1", "1.0000"]


def test_a_mistyped_plugin_gets_a_suggestion(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "photos").mkdir()
    options = ["--embedder", "color_layuot", "--library", str(tmp_path / "library")]
    assert run(["index", str(tmp_path / "photos"), *options]) == 1
    assert "Did you mean 'color_layout'?" in capsys.readouterr().err
