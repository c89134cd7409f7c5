"""`finetune`: from labelled photos and a pretrained encoder to a classifier."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from vitmae_search.errors import TrainingError, display_path
from vitmae_search.training.data.packed_photos import OnPacked
from vitmae_search.training.devices import settled
from vitmae_search.training.finetuning.data import LabelledPhotos, Sources, absolute, gather
from vitmae_search.training.finetuning.full import FullFinetuning
from vitmae_search.training.finetuning.loop import Finetuning
from vitmae_search.training.finetuning.model import DEFAULT_MODEL, new_classifier
from vitmae_search.training.finetuning.options import FULL, PROBE, FinetuneOptions
from vitmae_search.training.finetuning.probe import Probe, encode_views
from vitmae_search.training.finetuning.report import FinetuneProgress, FinetuneReport
from vitmae_search.training.finetuning.task import Pixels, Task
from vitmae_search.training.init_weights import read_start, start_name
from vitmae_search.training.run_folder import (
    damaged_run,
    locked_folder,
    read_run,
    write_report,
    write_run,
)
from vitmae_search.training.shared_options import resumed
from vitmae_search.vitmae import Checkpoint, ViTImageProcessor, choose_device

KIND = "finetune"
_HEAD_STD = {PROBE: 0.01, FULL: 2e-5}  # facebookresearch/mae


@dataclass(frozen=True, slots=True)
class FinetuneHooks:
    """What is called on the way: photos packed of all, views encoded of all, moments of the training."""

    on_packed: OnPacked | None = None
    on_encoded: Callable[[int, int], None] | None = None
    on_progress: Callable[[FinetuneProgress], None] | None = None
    stop: Callable[[], bool] = lambda: False


def finetune(
    folder: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    labels: str | os.PathLike[str] | None = None,
    val: str | os.PathLike[str] | None = None,
    model: str | None = None,
    mode: str | None = None,
    options: Mapping[str, Any] | None = None,
    hooks: FinetuneHooks | None = None,
) -> FinetuneReport:
    """Train a classifier on the photos under `folder`, into the folder `output`.

    The first folder under `folder` is a photo's class, or the CSV file `labels` says it (`labels_of_csv`).
    Held out is a share of each class, or what lies under `val`, a folder of classes. `model` is a bundled
    name, a path or a hub id: a ViTMAE, or a classifier to go on from (default: the bundled one). `mode` is
    "probe" (default) or "full", `options` are `FinetuneOptions`. If `output` holds a run, it goes on where
    it stopped, with its own recipe; what is given must then agree.

    `output` becomes a model for `load_classifier`, and for `ViTForImageClassification.from_pretrained` here
    and in `transformers` unless `pooling` is "mean" (see `MeanPooledClassifier`).

    Raises `TrainingError` for bad labels, no photos, another recipe, a loss that is not finite, a disk that
    is full, or a second process in `output`; `ConfigError` for values out of range; `ModelError` for a model
    that cannot be read.
    """
    given = {**(options or {}), **({} if mode is None else {"mode": mode})}
    asked = _Asked(Sources(str(absolute(folder)), absolute(labels), absolute(val)), model, given)
    choose_device(str(given.get("device", "auto")))  # one that is not here, before anything is made
    with locked_folder(output) as place:
        report = _run(place, asked, hooks or FinetuneHooks())
        write_report(place, asdict(report))
        return report


@dataclass(frozen=True, slots=True)
class _Asked:
    sources: Sources
    model: str | None
    options: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Recipe:
    sources: Sources
    model: str
    options: FinetuneOptions


def _run(place: Path, asked: _Asked, hooks: FinetuneHooks) -> FinetuneReport:
    recipe = _recipe(place, asked)
    options, device = recipe.options, choose_device(recipe.options.device)
    if options.threads:
        torch.set_num_threads(options.threads)
    checkpoint = read_start(recipe.model)
    side = checkpoint.config.image_shape[0]
    processor = replace(
        ViTImageProcessor.for_checkpoint(checkpoint.files, checkpoint.config),
        do_resize=True,
        size={"height": side, "width": side},
    )
    photos = gather(
        recipe.sources,
        place / "photos",
        side=options.stored_side or side,
        resample=Image.Resampling(processor.resample),
        val_share=options.val_share,
        seed=options.seed,
        on_packed=hooks.on_packed,
    )
    told = f"{photos.signature} {checkpoint.files.digest()} {options.mode} {options.pooling}"
    signature = hashlib.sha256(told.encode()).hexdigest()
    _write(place, recipe, photos)
    task = _task(place, recipe, checkpoint, processor, photos, signature, device, hooks)
    if task is None:
        return _report(place, recipe, photos, None, over=False)
    run = Finetuning(task, processor, photos, place, options, signature=signature, device=device)
    over = run.run(on_progress=hooks.on_progress, stop=hooks.stop)
    return _report(place, recipe, photos, run, over=over)


def _task(
    place: Path,
    recipe: _Recipe,
    checkpoint: Checkpoint,
    processor: ViTImageProcessor,
    photos: LabelledPhotos,
    signature: str,
    device: torch.device,
    hooks: FinetuneHooks,
) -> Task | None:
    """What is trained, or None if the person stopped while a probe's features were computed."""
    options = recipe.options
    model = new_classifier(
        checkpoint,
        photos.names,
        pooling=options.pooling,
        head_std=_HEAD_STD[options.mode],
        seed=options.seed,
    )
    pixels = Pixels(photos.images, processor, checkpoint.config.image_shape[0], device)
    if options.mode == FULL:
        return FullFinetuning(model, pixels, photos, options, device)
    features = encode_views(
        model.vit.to(device),
        pixels,
        photos,
        place / "features",
        options,
        device=device,
        signature=signature,
        on_progress=hooks.on_encoded,
        stop=hooks.stop,
    )
    return None if features is None else Probe(model, features, photos, options, device)


def _recipe(place: Path, asked: _Asked) -> _Recipe:
    """What `place` began with if it holds a run, else what was asked for."""
    saved = read_run(place, KIND)
    if saved is None:
        options = settled(FinetuneOptions.of(**{"mode": PROBE, **asked.options}))
        return _Recipe(asked.sources, start_name(asked.model or DEFAULT_MODEL), options)
    try:
        options = FinetuneOptions.from_json(saved["options"])
        kept = {name: saved[name] for name in ("folder", "labels", "val", "start")}
    except (KeyError, TypeError, ValueError) as error:
        raise damaged_run(place, error) from error
    wanted = {**asdict(asked.sources), "start": asked.model and start_name(asked.model)}
    for name, value in wanted.items():
        if value is not None and value != kept[name]:
            before, now = display_path(kept[name] or "none"), display_path(value)
            raise TrainingError(
                f"{display_path(place)} holds a run with {name}={before}, and {now} would be another "
                "training: choose another output folder"
            )
    start = kept.pop("start")
    return _Recipe(Sources(**kept), start, resumed(options, asked.options, display_path(place)))


def _write(place: Path, recipe: _Recipe, photos: LabelledPhotos) -> None:
    described = {
        **asdict(recipe.sources),
        "start": recipe.model,
        "classes": list(photos.names),
        "photos": len(photos.training),
        "validation_photos": len(photos.validation),
        "options": recipe.options.to_json(),
    }
    write_run(place, KIND, described)


def _report(
    place: Path, recipe: _Recipe, photos: LabelledPhotos, run: Finetuning | None, *, over: bool
) -> FinetuneReport:
    best = run.best if run else None
    return FinetuneReport(
        output=str(place),
        mode=recipe.options.mode,
        pooling=recipe.options.pooling,
        model=recipe.model,
        classes=len(photos.names),
        photos=len(photos.training),
        validation_photos=len(photos.validation),
        failed=len(photos.failures),
        unlabelled=photos.unlabelled,
        not_validated=photos.not_validated(),
        steps=run.step if run else 0,
        epochs=run.epoch if run else 0.0,
        accuracy=best[1] if best else None,
        best_epoch=best[0] if best else None,
        last_accuracy=run.accuracy if run else None,
        seconds=run.seconds if run else 0.0,
        interrupted=not over,
    )
