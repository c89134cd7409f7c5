"""A model of `transformers` from its files: network, image processor and tokenizer.

The files are found and the weights read as those of a ViTMAE are: the local cache first, no code, no values
that are not finite. No code of a model's repository ever runs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from vitmae_search.embedding import CheckpointError, ModelNotFound, PluginOptionError
from vitmae_search.errors import ModelError, display_path
from vitmae_search.vitmae import CheckpointFiles, find_checkpoint
from vitmae_search.vitmae.checkpoint.weights import read_json, read_weights

from .model_list import EXTRA, NAME, PREFIX

_VOCABULARIES = (
    *("tokenizer.json", "vocab.json", "vocab.txt", "spiece.model", "tokenizer.model"),
    "sentencepiece.bpe.model",
)
"""What a tokenizer has at least one of; without any, `transformers` makes an empty one."""
_MORE_FILES = (
    *_VOCABULARIES,
    *("processor_config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    "merges.txt",
)
"""What image processors and tokenizers are read from, beside preprocessor_config.json."""

_transformers: Any = transformers  # it is typed in part only
_NO_CODE = {"trust_remote_code": False}
"""None, the default, would ask on the terminal whether to run the code of the model's repository."""


@dataclass(frozen=True, slots=True)
class HubCheckpoint:
    """A model, opened.

    Attributes:
        name: Its short name for people.
        files: Where it was read from.
        model: The network, in fp32 on the CPU.
        missing: Names of weights that the files do not have.
        config: config.json as it is.
    """

    name: str
    files: CheckpointFiles
    model: Any
    missing: frozenset[str]
    config: dict[str, Any]

    @property
    def folder(self) -> Path:
        """The folder of its files."""
        return self.files.weights.parent


def open_checkpoint(model: str) -> HubCheckpoint:
    """Find a model's files, and load them.

    Args:
        model: A hub id or a folder.

    Raises:
        ModelNotFound: There is no such folder or hub id, or it lacks a file.
        CheckpointError: The files cannot be loaded.
        ModelError: It is not a model that looks at photos.
    """
    source, name = _locate(model.removeprefix(PREFIX))
    files = find_checkpoint(source, more=_MORE_FILES)
    if files.config is None:
        raise ModelNotFound(f"{display_path(files.weights.parent)} has no config.json.")
    raw = read_json(files.config)
    if raw.get("model_type") == "vit_mae":
        raise PluginOptionError(
            NAME,
            f"{name} is a ViTMAE, which is read without transformers: use --model {name}, without {PREFIX}",
        )
    state, _ = read_weights(files.weights)
    with _errors_of(name), _quiet():
        config = _transformers.AutoConfig.from_pretrained(
            files.config.parent, local_files_only=True, **_NO_CODE
        )
        with torch.device("meta"):
            kind = type(_transformers.AutoModel.from_config(config, **_NO_CODE))
        network, loaded = kind.from_pretrained(
            None, config=config, state_dict=state, output_loading_info=True, dtype=torch.float32
        )
    mismatched = sorted(str(one) for one in loaded["mismatched_keys"])
    if mismatched:
        raise CheckpointError(f"{name}: weights have other shapes than its config.json says: {mismatched[0]}")
    return HubCheckpoint(name, files, network.eval(), frozenset(loaded["missing_keys"]), raw)


def open_image_processor(checkpoint: HubCheckpoint) -> Any:
    """The image processor of `transformers`, which works with Pillow and NumPy alone.

    Raises:
        ModelNotFound: There is no file that describes one.
        CheckpointError: It cannot be read.
    """
    names = ("preprocessor_config.json", "processor_config.json")
    if not any((checkpoint.folder / name).is_file() for name in names):
        raise ModelNotFound(f"{display_path(checkpoint.folder)} has no {names[0]}{_whole(checkpoint)}")
    with _errors_of(checkpoint.name), _quiet():
        return _transformers.AutoImageProcessor.from_pretrained(
            checkpoint.folder, backend="pil", local_files_only=True, **_NO_CODE
        )


def open_tokenizer(checkpoint: HubCheckpoint) -> Any:
    """The tokenizer.

    Raises:
        ModelNotFound: Its files are not there.
        ModelError: It cannot be read, or needs a package that is not installed.
    """
    if not any((checkpoint.folder / name).is_file() for name in _VOCABULARIES):
        raise ModelNotFound(f"{display_path(checkpoint.folder)} has no tokenizer{_whole(checkpoint)}")
    try:
        with _errors_of(checkpoint.name), _quiet():
            return _transformers.AutoTokenizer.from_pretrained(
                checkpoint.folder, local_files_only=True, **_NO_CODE
            )
    except CheckpointError as error:
        if isinstance(error.__cause__, ImportError):
            raise ModelError(f"the tokenizer of {checkpoint.name} needs more packages: {EXTRA}") from error
        raise


def _whole(checkpoint: HubCheckpoint) -> str:
    """What to do where a file is missing."""
    if "snapshots" in checkpoint.folder.parts:
        return f"; `hf download {checkpoint.name}` gets all files of the model"
    return "; put all files of the model into its folder"


def _locate(model: str) -> tuple[str, str]:
    """Where to load a model from, and its short name for people."""
    path = Path(model).expanduser()
    if model and path.exists():
        folder = path.resolve() if path.is_dir() else path.resolve().parent
        return os.fspath(path), display_path(folder.name)
    if model.count("/") != 1:
        raise ModelNotFound(
            f"no model {display_path(model)!r}: it is no folder, and a hub id looks like "
            "openai/clip-vit-base-patch32."
        )
    return model, display_path(model)


@contextmanager
def _errors_of(name: str) -> Iterator[None]:
    """Raise `CheckpointError` for whatever `transformers` raises for files that it cannot use."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a file may hold anything
        first = str(error).strip().partition("\n")[0]
        raise CheckpointError(f"transformers cannot open {name}: {first}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the progress bars and reports of `transformers`: what matters is an error of ours."""
    log = _transformers.utils.logging
    verbosity, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(verbosity)
        if bars:
            log.enable_progress_bar()
