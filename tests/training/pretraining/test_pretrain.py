"""Whole pretraining runs: they learn, resume exactly, stop on bad numbers, and save a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from PIL import Image

from vitmae_search.errors import ConfigError, DeviceError, TrainingError
from vitmae_search.training import PretrainReport, devices, pretrain
from vitmae_search.training.log import PretrainLog
from vitmae_search.training.pretraining import trainer
from vitmae_search.training.pretraining.losses import Objective
from vitmae_search.training.pretraining.trainer import PretrainState
from vitmae_search.training.run_folder import STATE_FILE, load_state
from vitmae_search.vitmae import ViTImageProcessor, ViTMAEForPreTraining
from vitmae_search.vitmae.layers import compile_layers

OPTIONS = {"epochs": 6.0, "batch_size": 5, "learning_rate": 0.05, "precision": "fp32", "log_every": 2}
STEPS = 15  # ⌈6 epochs · 12 photos / 5⌉


class StopAfter:
    """A `stop` that says yes after `steps` steps."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def __call__(self) -> bool:
        self.left -= 1
        return self.left <= 0


@pytest.fixture
def run(photo_folder: Path, tiny_model: dict[str, Any]) -> Callable[..., PretrainReport]:
    def started(output: Path, stop: Callable[[], bool] = lambda: False, **options: Any) -> PretrainReport:
        return pretrain(photo_folder, output, model=tiny_model, options={**OPTIONS, **options}, stop=stop)

    return started


def curve(output: Path) -> list[tuple[int, float, float, float]]:
    return [(x.step, x.loss, x.rate, x.gradient_norm) for x in PretrainLog(output / "log.jsonl").read()]


def weights(output: Path) -> dict[str, torch.Tensor]:
    state = load_state(PretrainState, output)
    assert state is not None
    return state.model


@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_interrupted_run_resumes_exactly(
    run: Callable[..., PretrainReport],
    tiny_model: dict[str, Any],
    tmp_path: Path,
    dropout: float,
    precision: str,
) -> None:
    tiny_model["hidden_dropout_prob"] = dropout
    whole = run(tmp_path / "whole", precision=precision)
    parts = [run(tmp_path / "parts", StopAfter(n), precision=precision) for n in (4, 3, 99)]

    assert [part.interrupted for part in parts] == [True, True, False]
    assert [part.steps for part in parts] == [4, 7, STEPS]
    assert whole.steps == STEPS
    assert len(curve(tmp_path / "whole")) == STEPS // 2
    assert curve(tmp_path / "parts") == curve(tmp_path / "whole")
    expected = weights(tmp_path / "whole")
    for name, value in weights(tmp_path / "parts").items():
        assert torch.equal(value, expected[name]), name
    assert parts[-1].loss == whole.loss


def test_threads_that_share_a_batch_train_as_one(run: Callable[..., PretrainReport], tmp_path: Path) -> None:
    run(tmp_path / "one")
    run(tmp_path / "two", replicas=2)
    run(tmp_path / "again", StopAfter(7), replicas=2)
    run(tmp_path / "again")
    assert curve(tmp_path / "again") == curve(tmp_path / "two")
    for ours, theirs in zip(curve(tmp_path / "one"), curve(tmp_path / "two"), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)


def test_threads_that_would_share_dropouts_random_numbers_are_refused(
    run: Callable[..., PretrainReport], tiny_model: dict[str, Any], tmp_path: Path
) -> None:
    tiny_model["hidden_dropout_prob"] = 0.1
    with pytest.raises(ConfigError, match="replicas"):
        run(tmp_path, replicas=2)


def test_a_kill_after_a_checkpoint_loses_only_what_came_after_it(
    run: Callable[..., PretrainReport], tmp_path: Path
) -> None:
    run(tmp_path / "whole")
    killed = tmp_path / "killed"
    run(killed, StopAfter(5))
    at_checkpoint = (killed / STATE_FILE).read_bytes()
    run(killed, StopAfter(6))
    (killed / STATE_FILE).write_bytes(at_checkpoint)  # as if the kill came before the second checkpoint
    with (killed / "log.jsonl").open("a") as log:
        log.write('{"step": 12, "los')  # a line cut short
    run(killed)
    assert curve(killed) == curve(tmp_path / "whole")
    assert torch.equal(
        weights(killed)["vit.layernorm.weight"], weights(tmp_path / "whole")["vit.layernorm.weight"]
    )


def test_a_run_records_which_precision_auto_was(
    run: Callable[..., PretrainReport], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "multiplies_in_bf16", lambda device: True)
    run(tmp_path, StopAfter(2), precision="auto", device="cpu")
    assert json.loads((tmp_path / "run.json").read_text())["options"]["precision"] == "bf16"
    monkeypatch.setattr(devices, "multiplies_in_bf16", lambda device: False)
    run(tmp_path, precision="auto", device="cpu")  # on another machine: it stays as it was
    assert json.loads((tmp_path / "run.json").read_text())["options"]["precision"] == "bf16"


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch looks at its own stand-ins
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_compiled_run_is_the_run(
    photo_folder: Path,
    run: Callable[..., PretrainReport],
    tiny_model: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
) -> None:
    compiled: list[tuple[str, tuple[int, ...]]] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable[..., Any]:
        compiled.append((graph.__class__.__name__, tuple(inputs[0].shape)))
        return graph.forward

    monkeypatch.setattr(trainer, "compile_layers", partial(compile_layers, backend=backend))
    seconds: list[float] = []
    options = {**OPTIONS, "precision": precision, "compiled": True}
    pretrain(photo_folder, tmp_path / "one", model=tiny_model, options=options, on_compiled=seconds.append)
    run(tmp_path / "two", precision=precision)
    assert curve(tmp_path / "one") == curve(tmp_path / "two")
    assert len(compiled) == 2  # the encoder's layer and the decoder's: nothing for the pictures
    assert len(seconds) == 1


@pytest.mark.filterwarnings("ignore:The .grad attribute")
def test_a_model_that_cannot_be_compiled_is_one_clear_error(
    run: Callable[..., PretrainReport], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def backend(*_: object) -> None:
        raise OSError("no compiler")

    monkeypatch.setattr(trainer, "compile_layers", partial(compile_layers, backend=backend))
    with pytest.raises(TrainingError, match=r"cannot be compiled here .*no compiler.*leave --compile out"):
        run(tmp_path, compiled=True)


@pytest.mark.filterwarnings("ignore:The .grad attribute")
def test_a_model_that_cannot_be_compiled_trains_uncompiled_by_default(
    run: Callable[..., PretrainReport],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def backend(*_: object) -> None:
        raise OSError("no compiler")

    run(tmp_path / "plain")
    assert not caplog.records
    monkeypatch.setattr(trainer, "should_compile", lambda device: True)  # as on a GPU
    monkeypatch.setattr(trainer, "compile_layers", lambda model, how=backend: compile_layers(model, how))
    run(tmp_path / "tried")
    assert "no compiler" in caplog.text
    assert curve(tmp_path / "tried") == curve(tmp_path / "plain")


def test_a_batch_too_large_for_the_device_is_one_clear_error(
    run: Callable[..., PretrainReport], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path, StopAfter(2))

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Objective, "forward", full)
    before = (tmp_path / STATE_FILE).read_bytes()
    with pytest.raises(DeviceError, match=r"batches of 5 photos .*--accumulate"):
        run(tmp_path)
    assert (tmp_path / STATE_FILE).read_bytes() == before


def test_it_learns_and_other_seeds_give_other_results(
    run: Callable[..., PretrainReport], tmp_path: Path
) -> None:
    run(tmp_path / "a", epochs=60.0, learning_rate=0.2)
    losses = [loss for _, loss, _, _ in curve(tmp_path / "a")]
    assert sum(losses[-5:]) / 5 < 0.95 * losses[0]
    run(tmp_path / "b", seed=1)
    run(tmp_path / "c", seed=2)
    assert curve(tmp_path / "b") != curve(tmp_path / "c")


def test_the_output_is_a_checkpoint_with_the_trained_weights(
    run: Callable[..., PretrainReport], tmp_path: Path
) -> None:
    run(tmp_path)
    model = ViTMAEForPreTraining.from_pretrained(tmp_path)
    trained = weights(tmp_path)
    for name, value in model.state_dict().items():
        assert torch.equal(value, trained[name]), name
    processor = ViTImageProcessor.from_pretrained(tmp_path)
    assert processor(Image.new("RGB", (50, 40)), return_tensors="pt")["pixel_values"].shape == (1, 3, 16, 16)
    for picture in ("loss.png", "reconstructions.png"):
        with Image.open(tmp_path / picture) as image:
            image.verify()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_the_position_tables_stay_as_they_were(run: Callable[..., PretrainReport], tmp_path: Path) -> None:
    run(tmp_path, StopAfter(1))
    before = weights(tmp_path)
    run(tmp_path)
    after = weights(tmp_path)
    for name in ("vit.embeddings.position_embeddings", "decoder.decoder_pos_embed"):
        assert torch.equal(before[name], after[name])
        assert float(before[name].abs().max()) > 0
    assert not torch.equal(before["vit.layernorm.weight"], after["vit.layernorm.weight"])


@pytest.mark.parametrize(("log_every", "steps"), [(1, 99), (2, 99), (1000, 99), (1000, 1), (1000, 3)])
def test_a_loss_that_is_not_finite_stops_and_keeps_the_checkpoint(
    run: Callable[..., PretrainReport], tmp_path: Path, log_every: int, steps: int
) -> None:
    run(tmp_path, StopAfter(4))
    state = load_state(PretrainState, tmp_path)
    assert state is not None
    state.model["vit.layernorm.weight"][0] = float("nan")
    torch.save({name: getattr(state, name) for name in state.__slots__}, tmp_path / STATE_FILE)
    files = [path for path in tmp_path.iterdir() if path.is_file() and path.name != "run.json"]
    before = {path.name: path.read_bytes() for path in files}
    with pytest.raises(TrainingError, match=r"the loss is nan .* at step 4"):
        run(tmp_path, StopAfter(steps), log_every=log_every)
    after = {path.name: path.read_bytes() for path in files}
    assert after == before


def test_another_recipe_model_or_photos_are_refused(
    run: Callable[..., PretrainReport],
    photo_folder: Path,
    tiny_model: dict[str, Any],
    tmp_path: Path,
) -> None:
    run(tmp_path, StopAfter(2))
    with pytest.raises(TrainingError, match=r"batch_size=5, and 6"):
        run(tmp_path, batch_size=6)
    with pytest.raises(TrainingError, match="another model"):
        pretrain(photo_folder, tmp_path, model={**tiny_model, "hidden_size": 32})
    with pytest.raises(TrainingError, match="other photos"):
        pretrain(photo_folder / "first", tmp_path)
    assert pretrain(photo_folder, tmp_path).steps == STEPS  # nothing given: the recipe it began with


def test_a_second_process_in_the_same_folder_is_refused(
    run: Callable[..., PretrainReport], tmp_path: Path
) -> None:
    with FileLock(tmp_path / "run.lock"), pytest.raises(TrainingError, match="another process"):
        run(tmp_path)
    assert run(tmp_path).steps == STEPS


def test_a_folder_that_cannot_be_written_is_one_clear_error(
    run: Callable[..., PretrainReport], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(TrainingError, match="cannot be written"):
        run(tmp_path / "file" / "run")


def test_a_finished_run_trains_no_further(run: Callable[..., PretrainReport], tmp_path: Path) -> None:
    run(tmp_path)
    before = curve(tmp_path)
    again = run(tmp_path)
    assert (again.steps, again.interrupted) == (STEPS, False)
    assert curve(tmp_path) == before


def test_a_limit_in_minutes_ends_the_schedule_early(
    run: Callable[..., PretrainReport], tmp_path: Path
) -> None:
    report = run(tmp_path, epochs=1e6, max_minutes=0.02, log_every=1)
    assert not report.interrupted
    assert 0 < report.steps < 1e6
    assert report.seconds >= 1.2
    assert curve(tmp_path)[-1][2] < 0.2 * max(rate for _, _, rate, _ in curve(tmp_path))


def test_the_log_is_one_json_object_a_line(run: Callable[..., PretrainReport], tmp_path: Path) -> None:
    run(tmp_path)
    lines = [json.loads(text) for text in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(2, STEPS, 2))
    assert lines[-1]["epoch"] == pytest.approx(14 * 5 / 12, abs=1e-3)
    described = json.loads((tmp_path / "run.json").read_text())
    assert described["options"]["batch_size"] == 5
    assert described["photos"] == 12


def test_a_damaged_state_is_named(run: Callable[..., PretrainReport], tmp_path: Path) -> None:
    run(tmp_path, StopAfter(1))
    (tmp_path / STATE_FILE).write_bytes(b"cut short")
    with pytest.raises(TrainingError, match=r"state\.pt"):
        run(tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [("batch_size", 0), ("warmup", 1.0), ("crop_scale", (0.0, 1.0)), ("precision", "fp8"), ("epochs", -1)],
)
def test_options_out_of_range_are_refused_by_name(
    photo_folder: Path, tmp_path: Path, name: str, value: object
) -> None:
    with pytest.raises(ConfigError, match=name):
        pretrain(photo_folder, tmp_path, options={name: value})
    assert not (tmp_path / "run.json").exists()


def test_an_image_that_is_not_square_is_refused(
    photo_folder: Path, tiny_model: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="square"):
        pretrain(photo_folder, tmp_path, model={**tiny_model, "image_size": (16, 32)})
