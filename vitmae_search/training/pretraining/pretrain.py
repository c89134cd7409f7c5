"""`pretrain`: from a folder of photos to a checkpoint."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from vitmae_search.errors import ConfigError, TrainingError
from vitmae_search.training.packed import OnPacked, pack
from vitmae_search.training.pretraining.loop import Pretraining, PretrainProgress, PretrainReport
from vitmae_search.training.pretraining.options import PRESETS, PretrainOptions
from vitmae_search.training.run_folder import (
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
    ViTImageProcessor,
    ViTMAEConfig,
    ViTMAEForPreTraining,
)

KIND = "pretrain"


def pretrain(
    folder: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    model: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    on_packed: OnPacked | None = None,
    on_progress: Callable[[PretrainProgress], None] | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> PretrainReport:
    """Train a masked autoencoder on every photo under `folder`, into the folder `output`.

    `model` holds fields of ViTMAEConfig (default: the preset "tiny" with norm_pix_loss), `options` those
    of `PretrainOptions`. If `output` holds a run, it goes on where it stopped, with its own recipe;
    what is given must then agree. `output` becomes a checkpoint for `from_pretrained`.

    Raises `TrainingError` for no photos, another recipe, a loss that is not finite, a disk that is full,
    or a second process in `output`, and `ConfigError` for values out of range.
    """
    with locked_folder(output) as place:
        run = _prepared(Path(folder), place, model, options or {}, on_packed)
        report = run.run(on_progress=on_progress, stop=stop)
        write_report(place, asdict(report))
        return report


def _prepared(
    folder: Path,
    place: Path,
    model: Mapping[str, Any] | None,
    given: Mapping[str, Any],
    on_packed: OnPacked | None,
) -> Pretraining:
    config, options = _recipe(place, model, given)
    if options.threads:
        torch.set_num_threads(options.threads)
    side = _square_side(config)
    photos = pack(folder, place / "photos", side=options.stored_side or side, on_progress=on_packed)
    with torch.random.fork_rng():
        torch.manual_seed(options.seed)
        fresh = ViTMAEForPreTraining(config)
    processor = ViTImageProcessor(
        size={"height": side, "width": side}, image_mean=IMAGENET_MEAN, image_std=IMAGENET_STD
    )
    run = Pretraining(fresh, processor, photos, place, options)
    _write_run(place, folder, config, options, len(photos))
    return run


def model_config(preset: str, **fields: Any) -> ViTMAEConfig:
    """A configuration from a preset's name or the path of a config.json, with `fields` over it."""
    if preset in PRESETS:
        return ViTMAEConfig(**{**PRESETS[preset], "norm_pix_loss": True, **fields})
    if not Path(preset).is_file():
        raise ConfigError("model", preset, f"is one of {', '.join(PRESETS)}, or a config.json")
    return ViTMAEConfig.from_dict({**ViTMAEConfig.from_json_file(preset).to_dict(), **fields})


def _recipe(
    place: Path, model: Mapping[str, Any] | None, given: Mapping[str, Any]
) -> tuple[ViTMAEConfig, PretrainOptions]:
    """What `place` began with if it holds a run, else what was asked for."""
    saved = read_run(place, KIND)
    if saved is None:
        config = model_config("tiny") if model is None else ViTMAEConfig.from_dict(model)
        return config, PretrainOptions(**given)
    try:
        config = ViTMAEConfig.from_dict(saved["model"])
        options = PretrainOptions.from_json(saved["options"])
    except (ValueError, KeyError, TypeError) as error:
        raise damaged_run(place, error) from error
    if model is not None and ViTMAEConfig.from_dict(model) != config:
        raise TrainingError(f"{place} holds a run of another model: choose another output folder")
    return config, resumed(options, given, str(place))


def _write_run(
    place: Path, folder: Path, config: ViTMAEConfig, options: PretrainOptions, photos: int
) -> None:
    described = {
        "folder": str(folder.resolve()),
        "photos": photos,
        "model": config.to_dict(),
        "options": options.to_json(),
    }
    write_run(place, KIND, described)


def _square_side(config: ViTMAEConfig) -> int:
    height, width = config.image_shape
    if height != width:
        raise ConfigError("image_size", config.image_size, "must be a square to pretrain on")
    return height
