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

from vitmae_search.bundled import DEFAULT_MODEL
from vitmae_search.errors import TrainingError, display_path
from vitmae_search.training.data.packed_photos import OnPacked
from vitmae_search.training.devices import resolve_auto
from vitmae_search.training.finetuning.data import (
    DatasetPaths,
    LabelledPhotos,
    absolute_path,
    load_labelled_photos,
)
from vitmae_search.training.finetuning.full import FullFinetuning
from vitmae_search.training.finetuning.loop import FinetuneLoop
from vitmae_search.training.finetuning.model import build_classifier
from vitmae_search.training.finetuning.options import FULL, PROBE, FinetuneOptions
from vitmae_search.training.finetuning.probe import LinearProbe, encode_views
from vitmae_search.training.finetuning.report import FinetuneProgress, FinetuneReport
from vitmae_search.training.finetuning.task import PixelLoader, Task
from vitmae_search.training.init_weights import init_name, read_init_checkpoint
from vitmae_search.training.run_folder import (
    damaged_run_error,
    locked_folder,
    read_run,
    write_report,
    write_run,
)
from vitmae_search.training.shared_options import resume_options
from vitmae_search.vitmae import Checkpoint, ViTImageProcessor, choose_device

KIND = "finetune"
_HEAD_STD = {PROBE: 0.01, FULL: 2e-5}
"""Standard deviation of a new head's weights, as in facebookresearch/mae."""


@dataclass(frozen=True, slots=True)
class FinetuneHooks:
    """Callbacks of a run.

    Attributes:
        on_packed: Called with the photos packed and all photos.
        on_encoded: Called with the views encoded and all views, by linear probing.
        on_progress: Called after every step.
        stop: Asked before every step; true ends the run, which can be resumed.
    """

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
    """Train a classifier on the photos under `folder`.

    If `output` holds a run, it is resumed with its own options; what is given must then agree.

    Args:
        folder: The photos. Without `labels` the first folder below it is a photo's class.
        output: The run's folder, which becomes a model for `load_classifier`, and, unless `pooling` is
            "mean" (see `MeanPooledClassifier`), for `ViTForImageClassification.from_pretrained` here and in
            `transformers`.
        labels: A CSV file of labels (see `labels_of_csv`).
        val: A folder of classes to validate on; without it a share of each class is.
        model: The checkpoint to start from: a bundled name, a path or a hub id, of a ViTMAE or a classifier
            (default: the bundled model).
        mode: "probe" (default) or "full".
        options: Fields of `FinetuneOptions`.
        hooks: Callbacks.

    Raises:
        TrainingError: There are no photos or fewer than two classes, `output` holds another run or is in use,
            a loss is not finite, or the disk is full.
        LabelsError: The CSV file is damaged or names photos that are not there.
        ConfigError: An option is out of range.
        ModelError: The model cannot be read.
        DeviceError: The device is not available.
    """
    given = {**(options or {}), **({} if mode is None else {"mode": mode})}
    paths = DatasetPaths(str(absolute_path(folder)), absolute_path(labels), absolute_path(val))
    choose_device(str(given.get("device", "auto")))  # raises before a folder is made
    with locked_folder(output) as run_folder:
        report = _run(run_folder, _Request(paths, model, given), hooks or FinetuneHooks())
        write_report(run_folder, asdict(report))
        return report


@dataclass(frozen=True, slots=True)
class _Request:
    """What a caller asked for."""

    paths: DatasetPaths
    model: str | None
    options: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Recipe:
    """What a run is: a new one, or the one in its folder."""

    paths: DatasetPaths
    model: str
    options: FinetuneOptions


def _run(output: Path, request: _Request, hooks: FinetuneHooks) -> FinetuneReport:
    recipe = _recipe(output, request)
    options, device = recipe.options, choose_device(recipe.options.device)
    if options.threads:
        torch.set_num_threads(options.threads)
    checkpoint = read_init_checkpoint(recipe.model)
    side = checkpoint.config.image_shape[0]
    processor = replace(
        ViTImageProcessor.for_checkpoint(checkpoint.files, checkpoint.config),
        do_resize=True,
        size={"height": side, "width": side},
    )
    photos = load_labelled_photos(
        recipe.paths,
        output / "photos",
        side=options.stored_side or side,
        resample=Image.Resampling(processor.resample),
        val_share=options.val_share,
        seed=options.seed,
        on_packed=hooks.on_packed,
    )
    identity = f"{photos.signature} {checkpoint.files.digest()} {options.mode} {options.pooling}"
    signature = hashlib.sha256(identity.encode()).hexdigest()
    _write_run_file(output, recipe, photos)
    task = _make_task(output, recipe, checkpoint, processor, photos, signature, device, hooks)
    if task is None:
        return _report(output, recipe, photos, None, finished=False)
    loop = FinetuneLoop(task, processor, photos, output, options, signature=signature, device=device)
    finished = loop.run(on_progress=hooks.on_progress, stop=hooks.stop)
    return _report(output, recipe, photos, loop, finished=finished)


def _make_task(
    output: Path,
    recipe: _Recipe,
    checkpoint: Checkpoint,
    processor: ViTImageProcessor,
    photos: LabelledPhotos,
    signature: str,
    device: torch.device,
    hooks: FinetuneHooks,
) -> Task | None:
    """The task of the recipe's mode, or None if the run was stopped while features were computed."""
    options = recipe.options
    model = build_classifier(
        checkpoint,
        photos.names,
        pooling=options.pooling,
        head_std=_HEAD_STD[options.mode],
        seed=options.seed,
    )
    pixels = PixelLoader(photos.images, processor, checkpoint.config.image_shape[0], device)
    if options.mode == FULL:
        return FullFinetuning(model, pixels, photos, options, device)
    features = encode_views(
        model.vit.to(device),
        pixels,
        photos,
        output / "features",
        options,
        device=device,
        signature=signature,
        on_progress=hooks.on_encoded,
        stop=hooks.stop,
    )
    return None if features is None else LinearProbe(model, features, photos, options, device)


def _recipe(output: Path, request: _Request) -> _Recipe:
    """The recipe of the run in `output`, or a new one from what was asked for."""
    saved = read_run(output, KIND)
    if saved is None:
        options = resolve_auto(FinetuneOptions.for_mode(**{"mode": PROBE, **request.options}))
        return _Recipe(request.paths, init_name(request.model or DEFAULT_MODEL), options)
    try:
        options = FinetuneOptions.from_json(saved["options"])
        saved_names = {name: saved[name] for name in ("folder", "labels", "val", "start")}
    except (KeyError, TypeError, ValueError) as error:
        raise damaged_run_error(output, error) from error
    given_names = {**asdict(request.paths), "start": request.model and init_name(request.model)}
    for name, value in given_names.items():
        if value is not None and value != saved_names[name]:
            before, now = display_path(saved_names[name] or "none"), display_path(value)
            raise TrainingError(
                f"{display_path(output)} holds a run with {name}={before}, and {now} would be another "
                "training: choose another output folder"
            )
    start = saved_names.pop("start")
    return _Recipe(
        DatasetPaths(**saved_names), start, resume_options(options, request.options, display_path(output))
    )


def _write_run_file(output: Path, recipe: _Recipe, photos: LabelledPhotos) -> None:
    description = {
        **asdict(recipe.paths),
        "start": recipe.model,
        "classes": list(photos.names),
        "photos": len(photos.training),
        "validation_photos": len(photos.validation),
        "options": recipe.options.to_json(),
    }
    write_run(output, KIND, description)


def _report(
    output: Path, recipe: _Recipe, photos: LabelledPhotos, loop: FinetuneLoop | None, *, finished: bool
) -> FinetuneReport:
    best = loop.best if loop else None
    return FinetuneReport(
        output=str(output),
        mode=recipe.options.mode,
        pooling=recipe.options.pooling,
        model=recipe.model,
        classes=len(photos.names),
        photos=len(photos.training),
        validation_photos=len(photos.validation),
        failed=len(photos.failures),
        unlabelled=photos.unlabelled,
        not_validated=photos.not_validated(),
        steps=loop.step if loop else 0,
        epochs=loop.epoch if loop else 0.0,
        accuracy=best[1] if best else None,
        best_epoch=best[0] if best else None,
        last_accuracy=loop.accuracy if loop else None,
        seconds=loop.seconds if loop else 0.0,
        interrupted=not finished,
    )
