"""The options that select what to embed with, for the commands that embed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from vitmae_search.cli.common import (
    device_option,
    key_values,
    model_option,
    precision_option,
    projection_option,
)

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "--embedder",
        metavar="PLUGIN",
        help="The embedding plugin.  [default: the current space's, or vitmae with --model]",
    ),
    model_option,
    click.option(
        "-o",
        "options",
        multiple=True,
        metavar="KEY=VALUE",
        callback=key_values,
        help="An option of the plugin (see `vitmae-search plugins`). Repeat for several.",
    ),
    projection_option,
    device_option,
    precision_option(
        *("auto", "fp32", "bf16", "int8"),
        text="Arithmetic of the encoder. int8, for CPUs with VNNI, needs OpenVINO and makes its own space.",
    ),
    click.option(
        "--decode",
        type=click.Choice(["scaled", "exact"]),
        help="Let the JPEG decoder scale large photos down, or decode every pixel.  [default: scaled]",
    ),
    click.option(
        "--batch-size",
        type=click.IntRange(1, 4096),
        help="How many photos are encoded and recorded at once.  [default: as suits model and device]",
    ),
)


def embedding_options(command: F) -> F:
    """Add --embedder, --model, -o, --projection, --device, --precision, --decode and --batch-size."""
    for add in reversed(_OPTIONS):
        command = add(command)
    return command
