"""How a command names pictures: a file, or `id:12` for a photo of the library; `2:` before it is a weight."""

from __future__ import annotations

import os
import re

import click

_NAMED = re.compile(r"(?:(?P<weight>\d+(?:\.\d+)?):)?(?:id:(?P<id>\d{1,18})|(?P<path>.+))", re.DOTALL)

Examples = tuple[tuple[str | int, float], ...]
"""Pictures with their weights, for `Library.search_examples`."""


def read_examples(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> Examples:
    """A callback of click that reads `[WEIGHT:]FILE` and `[WEIGHT:]id:N`.

    Args:
        ctx: click's context.
        parameter: The argument or option.
        values: What was given; a file of this very name is that file.

    Raises:
        click.BadParameter: A weight is not above 0.
    """
    return tuple(_read_example(ctx, parameter, text) for text in values)


def read_photos(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> list[str | int]:
    """A callback of click that reads photos of the library, each as a path or `id:N`.

    Args:
        ctx: click's context.
        parameter: The argument or option.
        values: What was given.
    """
    return [photo for photo, _ in read_examples(ctx, parameter, values)]


photos_argument = click.argument(
    "photos", nargs=-1, required=True, metavar="PHOTO...", type=click.Path(), callback=read_photos
)


def _read_example(ctx: click.Context, parameter: click.Parameter, text: str) -> tuple[str | int, float]:
    named = _NAMED.fullmatch(text)
    if named is None or os.path.lexists(text):
        return text, 1.0
    weight = float(named["weight"] or 1)
    if not weight > 0:
        raise click.BadParameter(f"the weight of {text!r} is not above 0", ctx, parameter)
    return (named["path"] if named["id"] is None else int(named["id"])), weight
