"""The result of an evaluation: as JSON, as tables, and as a plot."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitmae_search.evaluation import (
    INSTANCE_VIEWS,
    Evaluation,
    MethodScores,
    class_figures,
    duplicate_figures,
    instance_figures,
)
from vitmae_search.evaluation.plot import save_plot
from vitmae_search.records import Failure


def method(name: str, noise: float) -> MethodScores:
    """Forty photos of four classes, each a random vector near its class's."""
    draws = np.random.default_rng(0)
    labels = np.arange(40) % 4
    gallery = np.eye(4, 16, dtype=np.float32)[labels] + draws.standard_normal((40, 16)).astype(np.float32)
    views = gallery + noise * draws.standard_normal((len(INSTANCE_VIEWS), 40, 16))
    queries = views.astype(np.float32)
    return MethodScores(
        name,
        16,
        class_figures(gallery, labels),
        instance_figures(gallery, queries),
        duplicate_figures(gallery, queries),
    )


@pytest.fixture(scope="module")
def found() -> Evaluation:
    return Evaluation(
        folder="/photos\n\udcff",
        photos=40,
        classes=4,
        queries=40,
        unlabelled=0,
        instances=40,
        copies=2,
        failures=(Failure("/photos/a|b.jpg", "truncated JPEG file", 3, 4),),
        notes=("A note.",),
        methods=(method("mine", 0.3), method("pixels | grey", 1.5)),
        decode="scaled",
        variants=True,
        seed=7,
        seconds=1.23456,
    )


def test_json_has_every_figure_with_its_interval(found: Evaluation) -> None:
    value = json.loads(json.dumps(found.as_json()))
    assert {"folder", "photos", "classes", "copies", "failures", "notes", "seed", "methods"} <= set(value)
    assert (value["failed"], value["seconds"], value["interval"]) == (1, 1.235, 0.95)
    mine = value["methods"][0]
    assert set(mine["neighbours"]) == {"P@1", "P@10", "mAP@100", "20-NN"}
    assert set(mine["instances"]) == {*(name for name, _ in INSTANCE_VIEWS), "all"}
    assert set(mine["instances"]["grey"]) == {"recall@1", "recall@10"}
    assert set(mine["instances"]["grey"]["recall@1"]) == {"value", "low", "high"}
    curve = mine["duplicates"]["curve"]
    assert 50 < len(curve) <= 101
    assert curve[-1]["recall"] == 1
    assert [point["recall"] for point in curve] == sorted(point["recall"] for point in curve)
    assert 0 < mine["duplicates"]["recall_at_99_precision"]["value"] <= 1


def test_tables_name_rows_and_columns(found: Evaluation) -> None:
    classes, first, tenth, duplicates = found.tables()
    assert [row[0] for row in classes.rows] == ["mine", "pixels | grey"]
    assert classes.header == ("features", "D", "P@1, %", "P@10, %", "mAP@100, %", "20-NN, %")
    assert first.header == tenth.header == ("change", "mine", "pixels | grey")
    assert [row[0] for row in first.rows] == [*(name for name, _ in INSTANCE_VIEWS), "all"]
    assert "recall@10" in tenth.title
    for table in found.tables():
        assert all(len(row) == len(table.header) for row in table.rows)
    figure = found.methods[0].neighbours["P@1"]
    cell = f"{100 * figure.value:.2f} ({100 * figure.low:.2f}–{100 * figure.high:.2f})"
    assert classes.rows[0][2] == cell
    assert duplicates.rows[0][3] == f"{found.methods[0].duplicates.best_score:.4f}"  # type: ignore[union-attr]


def test_markdown_is_whole(found: Evaluation) -> None:
    text = found.markdown()
    text.encode()  # undecodable bytes of a path are shown as U+FFFD
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in tables if "pixels" in line} == {4, 7, 8}
    assert "pixels \\| grey" in text
    assert "- A note." in text
    assert "a|b.jpg: truncated JPEG file" in text
    assert "2 copies left out" in found.summary


def test_only_what_was_measured_is_shown(found: Evaluation) -> None:
    bare = replace(found.methods[0], instances={}, duplicates=None)
    assert [table.header[0] for table in replace(found, methods=(bare,)).tables()] == ["features"]
    unlabelled = replace(found, methods=(replace(found.methods[0], neighbours={}),))
    assert [table.header[0] for table in unlabelled.tables()] == ["change", "change", "features"]
    never = replace(found.methods[0].duplicates, precise_score=None)  # type: ignore[type-var]
    shown = replace(found, methods=(replace(found.methods[0], duplicates=never),)).tables()[-1]
    assert shown.rows[0][-2] == "–"


@pytest.mark.parametrize(
    ("without", "panels"), [((), 3), (("neighbours",), 2), (("instances", "duplicates"), 1)]
)
def test_the_plot_opens_and_shows_what_was_measured(
    found: Evaluation, tmp_path: Path, without: tuple[str, ...], panels: int
) -> None:
    empty = {"neighbours": {}, "instances": {}, "duplicates": None}
    methods = tuple(replace(one, **{name: empty[name] for name in without}) for one in found.methods)
    save_plot(replace(found, methods=methods), tmp_path / "plot.png")
    with Image.open(tmp_path / "plot.png") as opened:
        assert opened.format == "PNG"
        picture = np.asarray(opened.convert("RGB")).astype(int)
    assert picture.shape[1] == 220 + 550 * panels
    blue, orange = np.array([31, 98, 173]), np.array([200, 82, 0])
    for colour in (blue, orange):  # the points and curves of both methods
        assert (np.abs(picture - colour).max(axis=2) < 10).sum() > 200


def test_a_plot_that_cannot_be_written_says_so(found: Evaluation, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="directory"):
        save_plot(found, tmp_path)
