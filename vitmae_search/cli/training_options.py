"""Options that every training command has, and which of them were given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from vitmae_search.cli.common import PathOnDisk

F = TypeVar("F", bound=Callable[..., Any])

POSITIVE = click.FloatRange(min=0, min_open=True)
SHARE = click.FloatRange(0, 1, max_open=True)

folder_argument = click.argument("folder", type=PathOnDisk(exists=True, file_okay=False))
stored_side_option = click.option(
    "--stored-side", type=int, default=0, help="Side at which photos are packed.  [default: the image size]"
)
seed_option = click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
device_option = click.option(
    "--device", metavar="auto|cpu|cuda|cuda:N|mps", default="auto", show_default=True
)
threads_option = click.option(
    "--threads", type=click.IntRange(0), default=0, help="On the CPU.  [default: all cores]"
)
save_minutes_option = click.option(
    "--save-minutes", type=POSITIVE, default=5.0, show_default=True, help="Between checkpoints."
)


def run_options(command: F) -> F:
    """Add the hidden --library and --run-key, with which the app starts a training and follows it."""
    command = click.option("--library", type=click.Path(path_type=Path), hidden=True)(command)
    return click.option("--run-key", hidden=True)(command)


def given_options(ctx: click.Context) -> set[str]:
    """The names of the options on the command line; for the others, a resumed run keeps its own values."""
    return {name for name in ctx.params if ctx.get_parameter_source(name) != ParameterSource.DEFAULT}
