"""Whole fine-tuning runs: they learn, resume exactly, stop on bad numbers, and save what they report."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from vitmae_search.errors import ConfigError, TrainingError
from vitmae_search.training import (
    FinetuneHooks,
    FinetuneReport,
    MeanPooledClassifier,
    finetune,
    load_classifier,
    pretrain,
)
from vitmae_search.training.finetuning.loop import FinetuneState
from vitmae_search.training.finetuning.model import classifier_head
from vitmae_search.training.finetuning.report import EpochLog
from vitmae_search.training.run_folder import STATE_FILE, load_state
from vitmae_search.vitmae import (
    NewParametersWarning,
    ViTForImageClassification,
    ViTImageProcessor,
    ViTMAEForPreTraining,
)

PROBE = {"epochs": 15.0, "batch_size": 16, "learning_rate": 2.0}
FULL = {"epochs": 3.0, "batch_size": 20, "learning_rate": 0.02, "drop_path": 0.3, "precision": "fp32"}
Finetune = Callable[..., FinetuneReport]


class StopAfter:
    """A `stop` that says yes after `steps` steps; it is asked before each."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0


@pytest.fixture
def run(coloured_folder: Path, start_model: Path) -> Finetune:
    def started(
        output: Path,
        mode: str = "probe",
        stop: Callable[[], bool] = lambda: False,
        folder: Path = coloured_folder,
        sources: dict[str, Any] | None = None,
        **options: Any,
    ) -> FinetuneReport:
        recipe = {**(PROBE if mode == "probe" else FULL), **options}
        return finetune(
            folder,
            output,
            model=str(start_model),
            mode=mode,
            options=recipe,
            hooks=FinetuneHooks(stop=stop),
            **(sources or {}),
        )

    return started


def curve(output: Path) -> list[tuple[float, ...]]:
    return [(x.step, x.loss, x.val_loss, x.accuracy, x.rate) for x in EpochLog(output / "log.jsonl").read()]


def state_of(output: Path) -> FinetuneState:
    state = load_state(FinetuneState, output)
    assert state is not None
    return state


def held_out(folder: Path, output: Path) -> list[tuple[Path, str]]:
    """Files and labels of the photos that the run held out, from run.json and the same split."""
    from vitmae_search.training.finetuning.data import DatasetPaths, load_labelled_photos

    photos = load_labelled_photos(
        DatasetPaths(str(folder)),
        output / "photos",
        side=16,
        resample=Image.Resampling(3),
        val_share=0.2,
        seed=0,
    )
    files = sorted(folder.rglob("*.png"))
    return [(files[row], photos.names[photos.labels[row]]) for row in photos.validation]


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_a_probe_classifies_separable_photos(
    run: Finetune, start_model: Path, tmp_path: Path, pooling: str
) -> None:
    report = run(tmp_path / "run", epochs=40.0, pooling=pooling)
    assert (report.classes, report.photos, report.validation_photos) == (3, 48, 12)
    assert report.accuracy is not None
    assert report.accuracy > 0.95
    before = ViTMAEForPreTraining.from_pretrained(start_model).vit.state_dict()
    after = load_classifier(tmp_path / "run").vit.state_dict()
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert torch.equal(value, after[name]), name  # frozen


def test_full_fine_tuning_learns_and_moves_every_weight(
    run: Finetune, start_model: Path, tmp_path: Path
) -> None:
    report = run(tmp_path / "run", "full", epochs=25.0, mixup=0.0, cutmix=0.0, drop_path=0.0)
    assert report.accuracy is not None
    assert report.accuracy > 0.9
    before = ViTMAEForPreTraining.from_pretrained(start_model).vit.state_dict()
    for name, value in load_classifier(tmp_path / "run").vit.state_dict().items():
        assert not torch.equal(value, before[name]), name


@pytest.mark.parametrize("mode", ["probe", "full"])
def test_the_saved_model_predicts_what_was_reported(
    run: Finetune, coloured_folder: Path, tmp_path: Path, mode: str
) -> None:
    report = run(tmp_path, mode)
    model, processor = load_classifier(tmp_path), ViTImageProcessor.from_pretrained(tmp_path)
    assert isinstance(model, ViTForImageClassification)
    assert model.config.id2label == {0: "blue", 1: "green", 2: "red"}
    right, losses = 0, []
    rows = held_out(coloured_folder, tmp_path)
    for path, label in rows:
        with Image.open(path) as image, torch.inference_mode():
            logits = model(**processor(image, return_tensors="pt")).logits
        right += model.config.id2label[int(logits.argmax())] == label
        losses.append(-logits.log_softmax(dim=1)[0, model.config.label2id[label]].item())
    assert right / len(rows) == pytest.approx(report.accuracy)
    logged = {line.epoch: line.val_loss for line in EpochLog(tmp_path / "log.jsonl").read()}
    assert sum(losses) / len(losses) == pytest.approx(logged[report.best_epoch], rel=1e-4)


@pytest.mark.parametrize("mode", ["probe", "full"])
def test_transformers_reads_it_and_predicts_the_same(run: Finetune, tmp_path: Path, mode: str) -> None:
    import transformers

    run(tmp_path, mode)
    theirs, info = transformers.ViTForImageClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert theirs.config.id2label == {0: "blue", 1: "green", 2: "red"}
    assert theirs.config.label2id == {"blue": 0, "green": 1, "red": 2}
    pixels = torch.randn(5, 3, 16, 16)
    with torch.inference_mode():
        ours = load_classifier(tmp_path)(pixels).logits
        torch.testing.assert_close(theirs.eval()(pixels).logits, ours, atol=1e-5, rtol=1e-5)
    assert ours.std() > 1e-4


def test_a_mean_pooled_head_is_never_read_from_the_cls_token(run: Finetune, tmp_path: Path) -> None:
    run(tmp_path, pooling="mean")
    assert json.loads((tmp_path / "config.json").read_text())["pooling"] == "mean"
    model = load_classifier(tmp_path)
    assert isinstance(model, MeanPooledClassifier)
    pixels = torch.randn(2, 3, 16, 16)
    with torch.inference_mode():
        tokens = model.vit(pixels).last_hidden_state
        torch.testing.assert_close(model(pixels).logits, classifier_head(model)(tokens[:, 1:].mean(dim=1)))
    with pytest.warns(NewParametersWarning, match=r"classifier\.weight"):
        ViTForImageClassification.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("probe", {"epochs": 4.0, "views": 3, "label_smoothing": 0.1}),
        ("full", {}),
        ("full", {"precision": "bf16", "pooling": "mean"}),
    ],
)
def test_an_interrupted_run_resumes_exactly(
    run: Finetune, start_model: Path, tmp_path: Path, mode: str, options: dict[str, Any]
) -> None:
    described = json.loads((start_model / "config.json").read_text())
    (start_model / "config.json").write_text(json.dumps({**described, "hidden_dropout_prob": 0.1}))
    whole = run(tmp_path / "whole", mode, **options)
    # Packing and encoding come first; a probe is asked three times while its features are computed.
    first = 7 if mode == "probe" else 4
    parts = [run(tmp_path / "parts", mode, StopAfter(n), **options) for n in (first, 3, 99)]

    assert [part.interrupted for part in parts] == [True, True, False]
    assert [part.steps for part in parts] == [4, 7, whole.steps]
    assert curve(tmp_path / "parts") == curve(tmp_path / "whole")
    expected = state_of(tmp_path / "whole")
    found = state_of(tmp_path / "parts")
    for name, value in found.model.items():
        assert torch.equal(value, expected.model[name]), name
    assert found.best == expected.best
    saved = load_file(tmp_path / "whole/model.safetensors")
    for name, value in load_file(tmp_path / "parts/model.safetensors").items():
        assert torch.equal(value, saved[name]), name
    same = ("accuracy", "best_epoch", "last_accuracy", "epochs")
    assert [getattr(parts[-1], name) for name in same] == [getattr(whole, name) for name in same]


def test_a_kill_after_a_checkpoint_loses_only_what_came_after_it(run: Finetune, tmp_path: Path) -> None:
    run(tmp_path / "whole", "full")
    killed = tmp_path / "killed"
    run(killed, "full", StopAfter(2))
    at_checkpoint = (killed / STATE_FILE).read_bytes()
    run(killed, "full", StopAfter(5))
    (killed / STATE_FILE).write_bytes(at_checkpoint)  # as if the kill came before the second checkpoint
    with (killed / "log.jsonl").open("a") as log:
        log.write('{"step": 12, "los')
    run(killed, "full")
    assert curve(killed) == curve(tmp_path / "whole")
    assert state_of(killed).best == state_of(tmp_path / "whole").best
    saved = load_file(tmp_path / "whole/model.safetensors")
    for name, value in load_file(killed / "model.safetensors").items():
        assert torch.equal(value, saved[name]), name


def test_features_are_computed_once_and_a_stop_among_them_keeps_what_is_there(
    run: Finetune, coloured_folder: Path, start_model: Path, tmp_path: Path
) -> None:
    encoded: list[int] = []

    def start(stop: Callable[[], bool]) -> FinetuneReport:
        hooks = FinetuneHooks(on_encoded=lambda done, total: encoded.append(done), stop=stop)
        return finetune(coloured_folder, tmp_path / "a", model=str(start_model), options=PROBE, hooks=hooks)

    stopped = start(StopAfter(1))
    assert (stopped.interrupted, stopped.steps, stopped.accuracy) == (True, 0, None)
    assert start(lambda: False).interrupted is False
    assert encoded == [64, 108]  # 60 photos and 48 mirrored ones, 64 at a time
    start(lambda: False)
    assert encoded == [64, 108]
    run(tmp_path / "b")
    assert curve(tmp_path / "a") == curve(tmp_path / "b")


def test_the_best_epochs_model_is_kept(run: Finetune, tmp_path: Path) -> None:
    report = run(tmp_path, epochs=30.0)
    lines = EpochLog(tmp_path / "log.jsonl").read()
    assert len(lines) == 30
    best = max(lines, key=lambda line: (line.accuracy, -line.step))
    assert (report.best_epoch, report.accuracy) == (best.epoch, best.accuracy)
    assert report.last_accuracy == lines[-1].accuracy


def test_a_loss_that_is_not_finite_stops_and_keeps_the_best_model(run: Finetune, tmp_path: Path) -> None:
    run(tmp_path, "full", StopAfter(4))
    state = state_of(tmp_path)
    state.model["classifier.bias"][0] = float("nan")
    torch.save({name: getattr(state, name) for name in state.__slots__}, tmp_path / STATE_FILE)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    with pytest.raises(TrainingError, match=r"the loss is nan .* at step 4: .* best model so far is kept"):
        run(tmp_path, "full")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before
    load_classifier(tmp_path)


def test_a_run_that_diverges_before_it_saved_keeps_the_best_model_all_the_same(
    run: Finetune, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match="training stops"):
        run(tmp_path, epochs=300.0, warmup=0.9, learning_rate=1e39)
    assert len(curve(tmp_path)) > 1
    assert not (tmp_path / STATE_FILE).exists()
    load_classifier(tmp_path)


def test_a_csv_and_a_folder_for_validation(run: Finetune, coloured_folder: Path, tmp_path: Path) -> None:
    rows = [f"{name}/{i:02d}.png,{name}" for name in ("red", "blue") for i in range(0, 20, 2)]
    table = tmp_path / "labels.csv"
    table.write_text("path,label\n" + "\n".join(rows))
    val = tmp_path / "val"
    for name in ("red", "blue"):
        shutil.copytree(coloured_folder / name / "deeper", val / name)
    sources = {"labels": table, "val": val}
    report = run(tmp_path / "run", sources=sources, epochs=40.0)
    assert (report.classes, report.photos, report.validation_photos) == (2, 20, 20)
    assert report.accuracy is not None
    assert report.accuracy > 0.95
    assert run(tmp_path / "run", epochs=40.0).steps == report.steps  # the sources that it began with

    shutil.copytree(val / "red", val / "pink")
    with pytest.raises(TrainingError, match="without a photo to train on: pink"):
        run(tmp_path / "other", sources=sources)
    with pytest.raises(TrainingError, match="trained on and held out"):
        run(tmp_path / "same", sources={"val": coloured_folder})


def test_a_class_with_one_photo_is_trained_on_and_named(
    run: Finetune, coloured_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "photos"
    shutil.copytree(coloured_folder, folder)
    (folder / "alone").mkdir()
    shutil.copy(coloured_folder / "red/00.png", folder / "alone/x.png")
    (folder / "red/00.png").write_bytes(b"cut short")
    shutil.copy(coloured_folder / "red/02.png", folder / "loose.png")
    report = run(tmp_path / "run", folder=folder)
    assert (report.classes, report.not_validated) == (4, ["alone"])
    assert (report.failed, report.unlabelled) == (1, 1)
    assert report.photos + report.validation_photos == 60
    assert load_classifier(tmp_path / "run").config.label2id == {"alone": 0, "blue": 1, "green": 2, "red": 3}


def test_it_starts_from_a_classifier(run: Finetune, coloured_folder: Path, tmp_path: Path) -> None:
    """With the same classes and pooling the head is kept; otherwise it is a new one."""
    first = run(tmp_path / "first", epochs=40.0)
    options = {"epochs": 1.0, "learning_rate": 1e-12, "batch_size": 64, "drop_path": 0.0}
    kept = finetune(
        coloured_folder, tmp_path / "a", model=str(tmp_path / "first"), mode="full", options=options
    )
    assert kept.accuracy == first.accuracy
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        new = finetune(
            coloured_folder,
            tmp_path / "b",
            model=str(tmp_path / "first"),
            mode="full",
            options={**options, "pooling": "mean"},
        )
    assert new.accuracy is not None
    assert new.accuracy < kept.accuracy


def test_another_recipe_start_or_photos_are_refused(
    run: Finetune, coloured_folder: Path, start_model: Path, tmp_path: Path
) -> None:
    place = tmp_path / "run"
    run(place)
    with pytest.raises(TrainingError, match=r"batch_size=16, and 8"):
        run(place, batch_size=8)
    with pytest.raises(TrainingError, match="mode='probe'"):
        finetune(coloured_folder, place, mode="full")
    with pytest.raises(TrainingError, match="start="):
        finetune(coloured_folder, place, model="vitmae-tiny-patch8-64")
    with pytest.raises(TrainingError, match="folder="):
        finetune(start_model, place)
    with pytest.raises(TrainingError, match="holds a finetune run"):
        pretrain(coloured_folder, place)
    ended = finetune(coloured_folder, place)
    assert (ended.interrupted, ended.epochs) == (False, 15.0)
    weights = ViTMAEForPreTraining.from_pretrained(start_model)
    weights.vit.embeddings.cls_token.data += 1
    weights.save_pretrained(start_model)
    with pytest.raises(TrainingError, match="starting weights"):
        run(place)


def test_a_model_that_is_not_square_is_refused(coloured_folder: Path, start_model: Path) -> None:
    described = json.loads((start_model / "config.json").read_text())
    (start_model / "config.json").write_text(json.dumps({**described, "image_size": [16, 32]}))
    with pytest.raises(ConfigError, match="square"):
        finetune(coloured_folder, start_model.parent / "run", model=str(start_model))


def test_loading_a_model_without_a_head_is_one_clear_error(start_model: Path) -> None:
    with pytest.raises(ConfigError, match="has no trained classifier"):
        load_classifier(start_model)
