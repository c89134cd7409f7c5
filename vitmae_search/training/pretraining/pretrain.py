"""`pretrain`: from a folder of photos to a checkpoint."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from vitmae_search.errors import ConfigError, TrainingError
from vitmae_search.training.data.packed_photos import OnPacked, pack
from vitmae_search.training.data.photo_files import PhotoFilesDataset
from vitmae_search.training.devices import resolve_auto
from vitmae_search.training.distributed import DistributedContext, init_distributed
from vitmae_search.training.init_weights import fit_decoder, init_name, read_init_checkpoint
from vitmae_search.training.pretraining.loop import PretrainLoop, PretrainProgress, PretrainReport
from vitmae_search.training.pretraining.options import PRESETS, PretrainOptions
from vitmae_search.training.pretraining.photo_source import Photos
from vitmae_search.training.run_folder import (
    STATE_FILE,
    damaged_run_error,
    locked_folder,
    read_run,
    write_report,
    write_run,
)
from vitmae_search.training.shared_options import resume_options
from vitmae_search.vitmae import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Checkpoint,
    NewParametersWarning,
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
    """Train a masked autoencoder on every photo under `folder` (He et al. 2022).

    If `output` holds a run, it is resumed with its own options; what is given must then agree. Processes
    that were launched together (`torchrun`, `accelerate launch`) all call this and share each batch.

    Args:
        folder: The photos, searched recursively.
        output: The run's folder, which becomes a checkpoint for `from_pretrained`.
        model: Fields of `ViTMAEConfig` (default: the preset "tiny" with norm_pix_loss). With the option
            `init` the configuration is that checkpoint's, and `model` may change the fields that no weight
            depends on (mask_ratio and norm_pix_loss) and the decoder's (see `fit_decoder`).
        options: Fields of `PretrainOptions`.
        on_packed: Called while photos are packed.
        on_compiled: Called with the seconds that compiling took.
        on_progress: Called after each line of the log.
        stop: Asked after every step; true saves a checkpoint and ends the run, which can be resumed.

    Raises:
        TrainingError: There are no photos, `output` holds another run or is in use, the model cannot be
            compiled, a loss is not finite, or the disk is full.
        ConfigError: An option or a field of the model is out of range.
        ModelError: The initial checkpoint cannot be read.
        DeviceError: The device is not available, or has too little memory.
    """
    given = options or {}
    distributed = init_distributed(str(given.get("device", "auto")))
    with locked_folder(output) if distributed.is_main else nullcontext(Path(output)) as run_folder:
        with distributed.main_process_first():
            loop = _make_loop(Path(folder), run_folder, model, given, on_packed, distributed)
        report = loop.run(on_compiled=on_compiled, on_progress=on_progress, stop=stop)
        if distributed.is_main:
            write_report(run_folder, asdict(report))
        return report


def _make_loop(
    folder: Path,
    output: Path,
    model: Mapping[str, Any] | None,
    given: Mapping[str, Any],
    on_packed: OnPacked | None,
    distributed: DistributedContext,
) -> PretrainLoop:
    recipe = _recipe(output, model, given)
    config, options = recipe.model.config, recipe.options
    if options.threads:
        torch.set_num_threads(options.threads)
    side = _square_side(config)
    photos = _load_photos(folder, output, options, options.stored_side or side, on_packed)
    processor = ViTImageProcessor(
        size={"height": side, "width": side}, image_mean=recipe.mean, image_std=recipe.std
    )
    if distributed.world_size == 1:  # a resumed run keeps its device unless another was given
        distributed = DistributedContext(choose_device(options.device))
    loop = PretrainLoop(recipe.model, processor, photos, output, options, distributed)
    if distributed.is_main:
        _write_run_file(output, folder, recipe, len(photos))
    return loop


def _load_photos(
    folder: Path, output: Path, options: PretrainOptions, side: int, on_packed: OnPacked | None
) -> Photos:
    if options.cache == "none":
        return PhotoFilesDataset.of_folder(folder, side)
    return pack(folder, output / "photos", side=side, on_progress=on_packed)


def model_config(preset: str, **fields: Any) -> ViTMAEConfig:
    """A model configuration.

    Args:
        preset: A name of `PRESETS`, or the path of a config.json.
        fields: Override the preset's fields.

    Raises:
        ConfigError: There is no such preset or file, or a field is out of range.
    """
    if preset in PRESETS:
        return ViTMAEConfig(**{**PRESETS[preset], "norm_pix_loss": True, **fields})
    if not Path(preset).is_file():
        raise ConfigError("model", preset, f"is one of {', '.join(PRESETS)}, or a config.json")
    return ViTMAEConfig.from_dict({**ViTMAEConfig.from_json_file(preset).to_dict(), **fields})


@dataclass(frozen=True, slots=True)
class _Recipe:
    """The initial model, the options, and the mean and deviation that normalise pixels."""

    model: ViTMAEForPreTraining
    options: PretrainOptions
    mean: Sequence[float] = IMAGENET_MEAN
    std: Sequence[float] = IMAGENET_STD


def _recipe(output: Path, model: Mapping[str, Any] | None, given: Mapping[str, Any]) -> _Recipe:
    """The recipe of the run in `output`, or a new one from what was given."""
    saved = read_run(output, KIND)
    if given.get("init") is not None:
        given = {**given, "init": init_name(given["init"])}
    if saved is None:
        return _new_recipe(model, resolve_auto(PretrainOptions(**given)))
    try:
        config = ViTMAEConfig.from_dict(saved["model"])
        options = PretrainOptions.from_json(saved["options"])
        statistics = saved.get("image_mean", IMAGENET_MEAN), saved.get("image_std", IMAGENET_STD)
    except (ValueError, KeyError, TypeError) as error:
        raise damaged_run_error(output, error) from error
    if model is not None and _given_config(config if options.init else None, model) != config:
        raise TrainingError(f"{output} holds a run of another model: choose another output folder")
    options = resume_options(options, given, str(output))
    if options.init is None or (output / STATE_FILE).exists():
        initial = _random_init(config, options.seed)  # the weights of a saved state replace these
    else:
        initial = _from_checkpoint(read_init_checkpoint(options.init), config, options.seed)
    return _Recipe(initial, options, *statistics)


def _new_recipe(model: Mapping[str, Any] | None, options: PretrainOptions) -> _Recipe:
    if options.init is None:
        config = model_config("tiny") if model is None else ViTMAEConfig.from_dict(model)
        return _Recipe(_random_init(config, options.seed), options)
    checkpoint = read_init_checkpoint(options.init)
    processor = ViTImageProcessor.for_checkpoint(checkpoint.files, checkpoint.config)
    config = _given_config(ViTMAEConfig.from_dict(checkpoint.config.to_dict()), model or {})
    initial = _from_checkpoint(checkpoint, config, options.seed)
    return _Recipe(initial, options, processor.image_mean, processor.image_std)


def _random_init(config: ViTMAEConfig, seed: int) -> ViTMAEForPreTraining:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return ViTMAEForPreTraining(config)


def _from_checkpoint(checkpoint: Checkpoint, config: ViTMAEConfig, seed: int) -> ViTMAEForPreTraining:
    with torch.random.fork_rng(), warnings.catch_warnings():
        torch.manual_seed(seed)  # for what is made anew in the decoder
        warnings.simplefilter("ignore", NewParametersWarning)  # this trains it
        model = ViTMAEForPreTraining.from_checkpoint(fit_decoder(checkpoint, config))
    model.loading_info = None  # of a new decoder it would say that it cannot reconstruct
    return model


def _given_config(base: ViTMAEConfig | None, model: Mapping[str, Any]) -> ViTMAEConfig:
    """The configuration that `model` gives: all fields, or overrides of `base`."""
    return ViTMAEConfig.from_dict(model) if base is None else base.with_overrides(model)


def _write_run_file(output: Path, folder: Path, recipe: _Recipe, photos: int) -> None:
    description = {
        "folder": str(folder.resolve()),
        "photos": photos,
        "model": recipe.model.config.to_dict(),
        "image_mean": list(recipe.mean),
        "image_std": list(recipe.std),
        "options": recipe.options.to_json(),
    }
    write_run(output, KIND, description)


def _square_side(config: ViTMAEConfig) -> int:
    height, width = config.image_shape
    if height != width:
        raise ConfigError("image_size", config.image_size, "must be a square to pretrain on")
    return height
