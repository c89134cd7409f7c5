"""The Training page: runs in every state, read from their folders; always as text."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import time
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from PIL import Image
from streamlit.testing.v1 import AppTest

from vitmae_search.catalog import CatalogWriter
from vitmae_search.library import Library
from vitmae_search.training_runs import LOCK_FILE, LOG_FILE, REPORT_FILE, RUN_FILE, remember_run
from vitmae_search.web.components.job_status import duration
from vitmae_search.web.components.loss_chart import MAX_POINTS, charts, downsample
from vitmae_search.web.server.app import MAIN_SCRIPT

# As Markdown a remote picture, as HTML a script; on disk it is folders, since / cannot be in a name.
HOSTILE = "![x](http:/127.0.0.1:9/p.png)<img src=x onerror=alert(1)>"
READS_MARKDOWN = ("markdown", "caption", "error", "warning", "info", "success", "table", "toast")

MakeRun = Callable[..., Path]


def lines_of(steps: int, **measures: float) -> list[dict[str, float]]:
    """A line an epoch, half a minute each."""
    common = {"rate": 1e-3, "gradient_norm": 1.0, "images_per_second": 120.0}
    return [
        {"step": n, "epoch": float(n), "loss": 1 / n, "seconds": 30.0 * n, **common, **measures}
        for n in range(1, steps + 1)
    ]


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Write and register a run's folder, as the training commands do."""

    def make(
        name: str = "run",
        *,
        kind: str = "pretrain",
        lines: list[dict[str, float]] | None = None,
        finished: bool = False,
        photos: str = "/photos",
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        options = {"epochs": 10.0, "max_minutes": None, "crop_scale": [0.2, 1.0], "flip": True}
        said = {"kind": kind, "folder": photos, "model": {"hidden_size": 192}, "options": options}
        (folder / RUN_FILE).write_text(json.dumps(said))
        written = lines_of(4) if lines is None else lines
        (folder / LOG_FILE).write_text("".join(json.dumps(line) + "\n" for line in written))
        if finished:
            (folder / REPORT_FILE).write_text(json.dumps({"interrupted": False, "steps": 99}))
        remember_run(folder)
        return folder

    return make


def visit() -> AppTest:
    at = AppTest.from_file(str(MAIN_SCRIPT), default_timeout=60).run()
    at.switch_page("../pages/training.py").run()
    assert not at.exception, at.exception
    return at


def words(at: AppTest) -> str:
    return unescape(html(at))


def numbers(at: AppTest) -> dict[str, str]:
    return {metric.label: metric.value for metric in at.metric}


def drawn(at: AppTest) -> list[str]:
    """What each chart is said to show."""
    return [chart.proto.alt for chart in at.get("vega_lite_chart")]


def labels(at: AppTest) -> set[str]:
    return {button.label for button in at.button}


def test_without_a_run_there_is_the_form_and_nothing_is_made(empty: Path, tmp_path: Path) -> None:
    at = visit()
    assert [title.value for title in at.title] == ["Training"]
    assert at.text_input(key="vs_train_folder").value == ""
    assert "vitmae-tiny-patch8-64" in at.selectbox(key="vs_train_init").options
    assert at.selectbox(key="vs_run").value is None
    assert not empty.exists()
    assert not (tmp_path / "data").exists()


def test_a_finished_run_shows_its_figures_curves_options_and_commands(
    opened_copy: Library, make_run: MakeRun
) -> None:
    run = make_run("my model", finished=True)
    shutil.copy(opened_copy.photos()[0].path, run / "reconstructions.png")
    for name in ("config.json", "model.safetensors"):
        (run / name).touch()
    at = visit()
    text = words(at)
    assert "Pretraining on /photos" in text
    assert ">finished<" in text
    assert numbers(at) == {
        "Epochs": "4.0",
        "Loss": "0.2500",
        "Images a second": "120",
        "Time trained": "2 min",
    }
    assert drawn(at) == ["Loss by epoch", "Learning rate by epoch"]
    assert len(at.get("image")) == 1
    assert all(
        said in text for said in ("options: crop_scale", "0.2, 1.0", "model: hidden_size", "192", "yes")
    )
    root = opened_copy.status().roots[0].path
    assert commands(at) == [f"vitmae-search index {root} --library {opened_copy.folder} --model '{run}'"]
    assert not {"Stop", "Go on"} & labels(at)


def commands(at: Any) -> list[str]:
    """The lines to copy."""
    found = re.findall(r'<pre class="vs-command"[^>]*>(.*?)</pre>', html(at))
    return [unescape(line) for line in found]


def html(at: Any) -> str:
    return " ".join(str(block.proto.body) for block in at.get("html"))


def write_film(run: Path) -> None:
    """A strip of two grey photos of 8 × 8 pixels at two moments."""
    film = run / "film"
    film.mkdir()
    masks = [[[0, 1], [1, 1]], [[1, 1], [1, 0]]]
    (film / "photos.json").write_text(json.dumps({"names": [HOSTILE, ""], "masks": masks}))
    for name in ("photos", "000000000", "000000004"):
        Image.new("RGB", (8, 16), "grey").save(film / f"{name}.png")
    lines = [{"step": 0, "epoch": 0.0, "losses": [1.5, 1.7]}, {"step": 4, "epoch": 4.0, "losses": [0.5, 0.7]}]
    (film / "moments.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_a_film_strip_has_a_column_for_each_moment(opened_copy: Library, make_run: MakeRun) -> None:
    run = make_run()
    write_film(run)
    at = visit()
    said = html(at)
    assert HOSTILE not in said
    assert 'alt="The photos completed after 4 epochs: the loss is 0.600, of each photo 0.500, 0.700"' in said
    assert said.count("<figure>") == 4
    (run / "film" / "000000004.png").write_bytes(b"half")
    (run / "film" / "moments.jsonl").open("a").close()
    os.utime(run / "film" / "moments.jsonl")
    assert "completed after 4 epochs" not in words(visit())


def test_a_running_training_shows_its_progress_and_remaining_time(
    opened_copy: Library, make_run: MakeRun
) -> None:
    run = make_run()
    with FileLock(run / LOCK_FILE):
        at = visit()
        assert ">running<" in words(at)
        assert numbers(at)["Left"] == "3 min"
        assert [bar.proto.value for bar in at.get("progress")] == [40]
        assert "started elsewhere" in words(at)
        assert "Stop" not in labels(at)
    at.run()
    assert ">stopped<" in words(at)
    assert "Left" not in numbers(at)
    assert at.button(key="vs_train_go_on")


def test_a_training_that_reads_photos_says_so(opened_copy: Library, tmp_path: Path) -> None:
    run = tmp_path / "begun"
    run.mkdir()
    remember_run(run)
    with FileLock(run / LOCK_FILE):
        at = visit()
        assert [bar.proto.text for bar in at.get("progress")] == ["Reading photos"]
        assert numbers(at) == {}
        assert drawn(at) == []


def test_a_contrastive_loss_has_a_curve_of_its_own(opened_copy: Library, make_run: MakeRun) -> None:
    make_run(lines=lines_of(3, contrastive=4.2, reconstruction=0.7))
    wanted = ["Loss", "Contrastive loss", "Reconstruction loss", "Learning rate"]
    assert drawn(visit()) == [f"{name} by epoch" for name in wanted]


def test_a_fine_tuning_shows_its_accuracy_and_the_classify_command(
    opened_copy: Library, make_run: MakeRun, real_photos: dict[str, Path]
) -> None:
    run = make_run(kind="finetune", lines=lines_of(3, val_loss=0.4, accuracy=0.875), finished=True)
    shutil.copy(real_photos["coins"], run / "confusion.png")
    for name in ("config.json", "model.safetensors"):
        (run / name).touch()
    at = visit()
    assert "Fine-tuning on /photos" in words(at)
    assert numbers(at)["Accuracy"] == "87.5%"
    assert "Accuracy on photos held out by epoch" in drawn(at)
    assert len(at.get("image")) == 1
    assert [line.split()[1] for line in commands(at)] == ["index", "classify"]


def test_the_latest_run_comes_first_and_another_can_be_chosen(
    opened_copy: Library, make_run: MakeRun
) -> None:
    first, second = make_run("first", photos="/one"), make_run("second", photos="/two")
    at = visit()
    assert at.selectbox(key="vs_run").value == str(second)
    assert "Pretraining on /two" in words(at)
    at.selectbox(key="vs_run").set_value(str(first)).run()
    assert "Pretraining on /one" in words(at)


def test_the_address_names_the_run(opened_copy: Library, make_run: MakeRun) -> None:
    first, second = make_run("first", photos="/one"), make_run("second", photos="/two")
    at = visit()
    assert at.query_params["run"] in (str(second), [str(second)])  # though nobody chose it
    at.selectbox(key="vs_run").set_value(str(first)).run()
    assert at.query_params["run"] in (str(first), [str(first)])
    again = visit()
    again.query_params["run"] = str(first)
    again.run()
    assert "Pretraining on /one" in words(again)
    again.selectbox(key="vs_run").set_value(str(second)).run()
    assert "Pretraining on /two" in words(again)
    assert again.query_params["run"] in (str(second), [str(second)])
    again.query_params["run"] = "no/such run"
    again.run()
    assert "is not a full path" in words(again)


def test_a_missing_or_invalid_run_is_one_sentence(opened_copy: Library, make_run: MakeRun) -> None:
    run, other = make_run(), make_run("other")
    at = visit()
    at.selectbox(key="vs_run").set_value(str(run)).run()
    shutil.rmtree(run)
    at.run()
    assert not at.exception
    assert f"{run} is not a folder on this machine, or not any more." in words(at)
    (other / RUN_FILE).write_bytes(b'{"kind": ')
    at = visit()
    assert f"{other} holds no training run" in words(at)
    assert 'role="alert"' in html(at)
    assert at.button  # the form is still there


@pytest.mark.parametrize("torn", [b'{"step": 5, "ep', b"\xff\xfe", b'{"step": "x"}\n', b"NaN\n[]\n"])
def test_a_half_written_log_is_drawn_as_far_as_it_goes(
    opened_copy: Library, make_run: MakeRun, torn: bytes
) -> None:
    run = make_run()
    (run / LOG_FILE).write_bytes((run / LOG_FILE).read_bytes() + torn)
    at = visit()
    assert numbers(at)["Loss"] == "0.2500"
    assert drawn(at) == ["Loss by epoch", "Learning rate by epoch"]


def test_a_damaged_picture_does_not_affect_the_rest_of_the_page(
    opened_copy: Library, make_run: MakeRun
) -> None:
    run = make_run()
    (run / "reconstructions.png").write_bytes(b"\x89PNG half of one")
    at = visit()
    assert 'role="alert"' in html(at)
    assert drawn(at) == ["Loss by epoch", "Learning rate by epoch"]


def test_a_training_without_output_yet_is_starting(opened_copy: Library, make_run: MakeRun) -> None:
    output = make_run()
    (output / RUN_FILE).unlink()
    with CatalogWriter.open_writer(opened_copy.folder) as writer:
        writer.start_run("starting", "pretrain", {"folder": "/photos", "output": str(output)})
        at = visit()
        writer.finish_run("starting", "failed", error="no photos there")
    assert [bar.proto.text for bar in at.get("progress")] == ["Starting"]
    at.run()
    assert "No photos there." in words(at)


def test_a_run_that_failed_says_why(opened_copy: Library, make_run: MakeRun) -> None:
    run = make_run()
    with CatalogWriter.open_writer(opened_copy.folder) as writer:
        writer.start_run("failed", "pretrain", {"folder": "/photos", "output": str(run)})
        writer.finish_run("failed", "failed", error="the loss is nan at step 7")
    assert "The loss is nan at step 7." in words(visit())


def test_no_name_reaches_markdown_or_html(opened_copy: Library, make_run: MakeRun) -> None:
    measured = lines_of(3, **{HOSTILE: 0.5})
    run = make_run(f"runs/{HOSTILE}", photos=f"/{HOSTILE}", lines=measured, finished=True)
    said = json.loads((run / RUN_FILE).read_text())
    said["options"][HOSTILE] = {HOSTILE: [HOSTILE]}
    (run / RUN_FILE).write_text(json.dumps(said))
    with CatalogWriter.open_writer(opened_copy.folder) as writer:
        writer.start_run("hostile", "pretrain", {"folder": f"/{HOSTILE}", "output": str(run)})
        at = visit()
        writer.finish_run("hostile", "done")
    assert "onerror" in words(at)
    for kind in READS_MARKDOWN:
        assert not any("onerror" in str(block.proto) for block in at.get(kind))
    assert "<img src=x" not in html(at)
    for widget in (*at.button, *at.text_input, *at.selectbox, *at.metric, *at.number_input):
        assert "onerror" not in widget.label
        assert "onerror" not in (getattr(widget, "help", None) or "")


def test_a_training_is_started_as_a_child_and_chosen(opened_copy: Library, small: Any) -> None:
    at = visit()
    at.text_input(key="vs_train_folder").set_value(str(small.photos))
    at.selectbox(key="vs_train_init").set_value("vitmae-tiny-patch8-64")
    at.number_input(key="vs_train_minutes").set_value(3)
    start = next(button for button in at.button if button.label == "Start training")
    start.click().run()
    assert not at.exception
    begun = opened_copy.jobs(1)[0]
    assert (begun.kind, begun.state) == ("pretrain", "running"), words(at)
    assert begun.pid != os.getpid()
    try:
        output = Path(str(begun.arguments["output"]))
        assert output.parent == opened_copy.folder / "trained"
        assert at.selectbox(key="vs_run").value == str(output)
        assert next(button for button in at.button if button.label == "Start training").disabled
        # The library itself is free.
        library_page = AppTest.from_file(str(MAIN_SCRIPT), default_timeout=60).run()
        library_page.switch_page("../pages/library.py").run()
        assert not next(b for b in library_page.button if b.label == "Index this folder").disabled
        deadline = time.monotonic() + 120
        while not (output / RUN_FILE).exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        options = json.loads((output / RUN_FILE).read_text())["options"]
        assert (options["max_minutes"], options["epochs"]) == (3.0, 100.0)
        assert options["init"] == "vitmae-tiny-patch8-64"
    finally:
        os.kill(begun.pid, signal.SIGKILL)


def test_a_folder_that_is_not_there_is_refused_in_words(opened_copy: Library) -> None:
    at = visit()
    for typed, said in (
        ("/no/such <b>folder</b>", "is not a folder"),
        ("  ", "Type the folder's path first"),
    ):
        at.text_input(key="vs_train_folder").set_value(typed)
        next(button for button in at.button if button.label == "Start training").click().run()
        assert not at.exception
        assert said in words(at)
    assert not [run for run in opened_copy.jobs() if run.kind == "pretrain" and run.state == "running"]


def test_curves_keep_their_last_point_and_fields_that_are_no_measure_are_left_out() -> None:
    points = [(float(n), float(n)) for n in range(1001)]
    kept = downsample(points)
    assert len(kept) <= MAX_POINTS
    assert kept[-1] == points[-1]
    assert downsample(points[:3]) == points[:3]
    assert downsample([]) == []
    lines = [*lines_of(2, accuracy=0.5, val_loss=0.3), {"step": 3.0}, {"step": 4.0, "epoch": 4.0, "odd": 1.0}]
    found = dict(charts(lines))
    assert list(found) == ["loss", "accuracy", "rate"]
    assert found["loss"] == {"training": [(1.0, 1.0), (2.0, 0.5)], "held out": [(1.0, 0.3), (2.0, 0.3)]}


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 s"), (99, "99 s"), (100, "2 min"), (3599, "1 h 00 min"), (7500, "2 h 05 min")],
)
def test_durations_are_for_people(seconds: float, said: str) -> None:
    assert duration(seconds) == said
