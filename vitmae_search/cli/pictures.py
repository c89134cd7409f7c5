"""How a command names pictures: a file, or `id:12` for a photo of the library; `2:` before it is a weight.

A search also takes words: `text:a red bicycle`, or without `text:` whatever does not look like a file's name.
"""

from __future__ import annotations

import os
import re

import click

from vitmae_search.records import Words

_NAMED = re.compile(
    r"(?:(?P<weight>\d+(?:\.\d+)?):)?(?:id:(?P<id>\d{1,18})|(?P<words>text:)?(?P<name>.+))", re.DOTALL
)
_LIKE_A_PATH = re.compile(r"[/.~].*|\S*/\S*|.*\.\w{2,5}", re.DOTALL)
"""Begins as a path does, has a slash and no blank, or ends as a file's name does."""

Examples = tuple[tuple[str | int, float], ...]
"""Pictures with their weights, for `Library.search_examples`."""

Asked = tuple[tuple[str | int | Words, float], ...]
"""Pictures and words with their weights, for `Library.search_examples`."""


def read_examples(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> Examples:
    """A callback of click that reads `[WEIGHT:]FILE` and `[WEIGHT:]id:N`.

    Args:
        ctx: click's context.
        parameter: The argument or option.
        values: What was given; a file of this very name is that file.

    Raises:
        click.BadParameter: A weight is not above 0.
    """
    return tuple((_picture(asked), weight) for asked, weight in read_asked(ctx, parameter, values))


def read_asked(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> Asked:
    """A callback of click that reads pictures, as `read_examples` does, and `[WEIGHT:][text:]WORDS`.

    Args:
        ctx: click's context.
        parameter: The argument or option.
        values: What was given; a file of this very name is that file.

    Raises:
        click.BadParameter: A weight is not above 0.
    """
    return tuple(_read_one(ctx, parameter, text) for text in values)


def _picture(asked: str | int | Words) -> str | int:
    """A picture where no words are taken: they are the name of a file that is not there."""
    return asked.text if isinstance(asked, Words) else asked


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


def _read_one(ctx: click.Context, parameter: click.Parameter, text: str) -> tuple[str | int | Words, float]:
    named = _NAMED.fullmatch(text)
    if named is None or os.path.lexists(text):
        return text, 1.0
    weight = float(named["weight"] or 1)
    if not weight > 0:
        raise click.BadParameter(f"the weight of {text!r} is not above 0", ctx, parameter)
    if named["id"] is not None:
        return int(named["id"]), weight
    name = named["name"]
    is_file = os.path.lexists(name) or _LIKE_A_PATH.fullmatch(name)
    return (Words(name) if named["words"] or not is_file else name), weight
