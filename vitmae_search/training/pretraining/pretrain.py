"""`pretrain`: from a folder of photos to a checkpoint."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from vitmae_search.errors import ConfigError, TrainingError
from vitmae_search.training.data.packed_photos import OnPacked, pack
from vitmae_search.training.data.photo_files import LoosePhotos
from vitmae_search.training.devices import settled
from vitmae_search.training.distributed import Processes, join_processes
from vitmae_search.training.init_weights import read_start, start_name
from vitmae_search.training.pretraining.loop import Pretraining, PretrainProgress, PretrainReport
from vitmae_search.training.pretraining.options import PRESETS, PretrainOptions
from vitmae_search.training.pretraining.photo_source import Photos
from vitmae_search.training.run_folder import (
    STATE_FILE,
    damaged_run,
    locked_folder,
    read_run,
    write_report,
    write_run,
)
from vitmae_search.training.shared_options import resumed
from vitmae_search.vitmae import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Checkpoint,
    ViTImageProcessor,
    ViTMAEConfig,
    ViTMAEForPreTraining,
    choose_device,
)

KIND = "pretrain"


def pretrain(
    folder: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    model: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    on_packed: OnPacked | None = None,
    on_compiled: Callable[[float], None] | None = None,
    on_progress: Callable[[PretrainProgress], None] | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> PretrainReport:
    """Train a masked autoencoder on every photo under `folder`, into the folder `output`.

    `model` holds fields of ViTMAEConfig (default: the preset "tiny" with norm_pix_loss), `options` those
    of `PretrainOptions`. With the option `init` the weights and the configuration are a checkpoint's, and
    `model` the fields that differ and change no weight: mask_ratio, norm_pix_loss.

    If `output` holds a run, it goes on where it stopped, with its own recipe; what is given must then
    agree. `on_compiled` is told how many seconds the option `compiled` took. `output` becomes a checkpoint
    for `from_pretrained`. Several processes that were launched together all call it, and share each batch
    (`processes`).

    Raises `TrainingError` for no photos, another recipe, a model that cannot be compiled, a loss that is
    not finite, a disk that is full, or a second process in `output`, `ConfigError` for values out of range,
    and `ModelError` for a checkpoint that cannot be read.
    """
    given = options or {}
    processes = join_processes(str(given.get("device", "auto")))
    with locked_folder(output) if processes.main else nullcontext(Path(output)) as place:
        with processes.main_first():
            run = _prepared(Path(folder), place, model, given, on_packed, processes)
        report = run.run(on_compiled=on_compiled, on_progress=on_progress, stop=stop)
        if processes.main:
            write_report(place, asdict(report))
        return report


def _prepared(
    folder: Path,
    place: Path,
    model: Mapping[str, Any] | None,
    given: Mapping[str, Any],
    on_packed: OnPacked | None,
    processes: Processes,
) -> Pretraining:
    recipe = _recipe(place, model, given)
    config, options = recipe.model.config, recipe.options
    if options.threads:
        torch.set_num_threads(options.threads)
    side = _square_side(config)
    photos = _photos(folder, place, options, options.stored_side or side, on_packed)
    processor = ViTImageProcessor(
        size={"height": side, "width": side}, image_mean=recipe.mean, image_std=recipe.std
    )
    if processes.count == 1:  # where a run goes on, the device is its own unless another was given
        processes = Processes(choose_device(options.device))
    run = Pretraining(recipe.model, processor, photos, place, options, processes)
    if processes.main:
        _write_run(place, folder, recipe, len(photos))
    return run


def _photos(
    folder: Path, place: Path, options: PretrainOptions, side: int, on_packed: OnPacked | None
) -> Photos:
    if options.cache == "none":
        return LoosePhotos.of_folder(folder, side)
    return pack(folder, place / "photos", side=side, on_progress=on_packed)


def model_config(preset: str, **fields: Any) -> ViTMAEConfig:
    """A configuration from a preset's name or the path of a config.json, with `fields` over it."""
    if preset in PRESETS:
        return ViTMAEConfig(**{**PRESETS[preset], "norm_pix_loss": True, **fields})
    if not Path(preset).is_file():
        raise ConfigError("model", preset, f"is one of {', '.join(PRESETS)}, or a config.json")
    return ViTMAEConfig.from_dict({**ViTMAEConfig.from_json_file(preset).to_dict(), **fields})


@dataclass(frozen=True, slots=True)
class _Recipe:
    """What is trained and how. `mean` and `std` are what the pixels are normalised by."""

    model: ViTMAEForPreTraining
    options: PretrainOptions
    mean: Sequence[float] = IMAGENET_MEAN
    std: Sequence[float] = IMAGENET_STD


def _recipe(place: Path, model: Mapping[str, Any] | None, given: Mapping[str, Any]) -> _Recipe:
    """What `place` began with if it holds a run, else what was asked for."""
    saved = read_run(place, KIND)
    if given.get("init") is not None:
        given = {**given, "init": start_name(given["init"])}
    if saved is None:
        return _new_recipe(model, settled(PretrainOptions(**given)))
    try:
        config = ViTMAEConfig.from_dict(saved["model"])
        options = PretrainOptions.from_json(saved["options"])
        statistics = saved.get("image_mean", IMAGENET_MEAN), saved.get("image_std", IMAGENET_STD)
    except (ValueError, KeyError, TypeError) as error:
        raise damaged_run(place, error) from error
    if model is not None and _asked(config if options.init else None, model) != config:
        raise TrainingError(f"{place} holds a run of another model: choose another output folder")
    options = resumed(options, given, str(place))
    if options.init is None or (place / STATE_FILE).exists():
        start = _drawn(config, options.seed)  # where there is a state, its weights take these ones' place
    else:
        start = _started(replace(read_start(options.init), config=config), options.seed)
    return _Recipe(start, options, *statistics)


def _new_recipe(model: Mapping[str, Any] | None, options: PretrainOptions) -> _Recipe:
    if options.init is None:
        config = model_config("tiny") if model is None else ViTMAEConfig.from_dict(model)
        return _Recipe(_drawn(config, options.seed), options)
    checkpoint = read_start(options.init)
    processor = ViTImageProcessor.for_checkpoint(checkpoint.files, checkpoint.config)
    start = _started(checkpoint, options.seed, **(model or {}))
    return _Recipe(start, options, processor.image_mean, processor.image_std)


def _drawn(config: ViTMAEConfig, seed: int) -> ViTMAEForPreTraining:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return ViTMAEForPreTraining(config)


def _started(checkpoint: Checkpoint, seed: int, **fields: Any) -> ViTMAEForPreTraining:
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # for a decoder that the checkpoint lacks
        return ViTMAEForPreTraining.from_checkpoint(checkpoint, **fields)


def _asked(start: ViTMAEConfig | None, model: Mapping[str, Any]) -> ViTMAEConfig:
    """The configuration of these fields, which are a few of `start`'s where there is one."""
    return ViTMAEConfig.from_dict(model) if start is None else start.with_overrides(model)


def _write_run(place: Path, folder: Path, recipe: _Recipe, photos: int) -> None:
    described = {
        "folder": str(folder.resolve()),
        "photos": photos,
        "model": recipe.model.config.to_dict(),
        "image_mean": list(recipe.mean),
        "image_std": list(recipe.std),
        "options": recipe.options.to_json(),
    }
    write_run(place, KIND, described)


def _square_side(config: ViTMAEConfig) -> int:
    height, width = config.image_shape
    if height != width:
        raise ConfigError("image_size", config.image_size, "must be a square to pretrain on")
    return height
