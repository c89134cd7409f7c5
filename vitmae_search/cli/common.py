"""What the commands share: options, the library they open, and how they print."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from vitmae_search.address import is_address
from vitmae_search.errors import display_path
from vitmae_search.settings import catalog_at, named_library, settings, vectors_at

if TYPE_CHECKING:
    from vitmae_search.library import Library
    from vitmae_search.records import Photo, RemovalReport

F = TypeVar("F", bound=Callable[..., Any])

SHOWN_TAGS = 10


class PathOnDisk(click.Path):
    """As click's own type, but an address of a storage is refused for what it is."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path.

        Args:
            value: What was given.
            param: For which parameter.
            ctx: Of which command.

        Raises:
            click.BadParameter: It is no such path; an address is not shown, as it may have a password.
        """
        if is_address(os.fspath(value)):
            self.fail("this has to be on a disk, and not on a storage of objects", param, ctx)
        return super().convert(value, param, ctx)


def _named(ctx: click.Context, parameter: click.Parameter, value: Path | None) -> Path | None:
    """A callback of click: the folder of a library that was given by its name."""
    return None if value is None else named_library(value)


def _database_option(name: str, used_at: Callable[[str], AbstractContextManager[None]]) -> Callable[[F], F]:
    """An option that names the database which a command, and the jobs that it starts, use."""

    def use(ctx: click.Context, parameter: click.Parameter, value: str | None) -> None:
        if value is not None:
            ctx.with_resource(used_at(value))

    # Hidden: docs/scaling.md has it, and a laptop needs none.
    return click.option(name, metavar="ADDRESS", expose_value=False, callback=use, hidden=True)


catalog_option = _database_option("--catalog", catalog_at)
vectors_option = _database_option("--vectors", vectors_at)
_library_option = click.option(
    "--library",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR|NAME",
    callback=_named,
    help="The library's folder, or its name in VITMAE_SEARCH_LIBRARIES.  [default: VITMAE_SEARCH_LIBRARY, or "
    "your user-data folder]",
)


def library_option(command: F) -> F:
    """Add --library, and --catalog and --vectors for those who keep these in a database."""
    return _library_option(catalog_option(vectors_option(command)))


json_option = click.option("--json", "as_json", is_flag=True, help="Print exactly one JSON object on stdout.")
model_option = click.option(
    "--model", metavar="NAME|PATH|HUB-ID", help="A bundled model, a folder or weights file, or a hub id."
)

projection_option = click.option(
    "--projection",
    metavar="auto|none|FILE",
    default="auto",
    show_default=True,
    help="What turns the model's features into the vectors that are searched: the current space's projection "
    "(or the chosen model's own), none, or one from a file.",
)


def device_options(command: F) -> F:
    """Add --device and --precision."""
    return device_option(precision_option("auto", "fp32", "bf16", text="Arithmetic of the encoder.")(command))


def precision_option(*values: str, text: str) -> Callable[[F], F]:
    """The option --precision.

    Args:
        values: What it may be; the first is the default.
        text: For `--help`.
    """
    return click.option(
        "--precision", type=click.Choice(values), default=values[0], show_default=True, help=text
    )


device_option = click.option(
    "--device",
    metavar="auto|cpu|cuda|cuda:N|mps",
    default=None,
    help="Where the model runs.  [default: auto]",
)


@contextmanager
def open_library(folder: Path | None, **options: Any) -> Iterator[Library]:
    """Open the library that the options and the environment name. Creates nothing on disk.

    Inside the block stdout goes to stderr, so that nothing that a plugin prints is mixed into `--json`.

    Args:
        folder: What `--library` names; None is the environment's.
        **options: Those of `Library.open`.
    """
    from vitmae_search.library import Library

    environment = settings()
    if options.get("device") is None:
        options["device"] = environment.device
    opened = Library.open(folder or environment.library, plugin_folders=[environment.plugins], **options)
    with redirect_stdout(sys.stderr), opened as library:
        yield library


def read_part(ctx: click.Context, parameter: click.Parameter, value: str | None) -> tuple[float, ...] | None:
    """A callback of click: four numbers with commas between them.

    Args:
        ctx: click's context.
        parameter: The option.
        value: What was given.
    """
    if value is None:
        return None
    try:
        numbers = tuple(float(text) for text in value.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != 4:
        raise click.BadParameter(f"{value!r} is not four numbers, such as 0.25,0.1,0.5,0.4", ctx, parameter)
    return numbers


def figure_option(default: str, text: str = "A .png, .pdf or .svg file.") -> Callable[[F], F]:
    """The option `-o` of a command that draws a figure.

    Args:
        default: The file's name where none is given.
        text: For `--help`.
    """
    return click.option(
        "-o",
        "output",
        type=PathOnDisk(dir_okay=False),
        metavar="OUT",
        default=default,
        show_default=True,
        help=text,
    )


def print_json(value: Mapping[str, object]) -> None:
    """Print one JSON object on stdout. Bytes of a path that are not UTF-8 become escaped surrogates."""
    click.echo(json.dumps(value, ensure_ascii=True, indent=2, default=_to_json))


def print_removal(report: RemovalReport, as_json: bool) -> None:
    """Print what `prune` or `forget` removed, on stdout.

    Args:
        report: What was removed.
        as_json: As one JSON object.
    """
    if as_json:
        print_json(asdict(report))
    else:
        click.echo(
            f"removed from the library: {report.photos} photos, {report.vectors} vectors, "
            f"{report.thumbnails} thumbnails; no photo file was touched"
        )


def _to_json(value: Any) -> Any:
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"not JSON: {type(value).__name__}")


def key_values(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """A callback of click that turns `-o KEY=VALUE ...` into a dict.

    Args:
        ctx: click's context.
        parameter: The option.
        values: What was given.

    Raises:
        click.BadParameter: A value is not KEY=VALUE.
    """
    pairs = {}
    for text in values:
        key, separator, value = text.partition("=")
        if not separator or not key:
            raise click.BadParameter(f"{text!r} is not KEY=VALUE", ctx=ctx, param=parameter)
        pairs[key] = value
    return pairs


def inherited(ctx: click.Context, library: Path | None, as_json: bool) -> tuple[Path | None, bool]:
    """`--library` and `--json` of a subcommand, given before its name or after it.

    Args:
        ctx: click's context of the subcommand.
        library: What it was given itself.
        as_json: What it was given itself.
    """
    group = ctx.parent.params if ctx.parent is not None else {}
    return library or group.get("library"), as_json or bool(group.get("as_json"))


def size_text(count: float) -> str:
    """A size in bytes as people read it: 1.2 MB."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def photo_text(photo: Photo) -> str:
    """A photo's path as one line of text; of a frame the video's, with its time."""
    frame = photo.frame
    return display_path(photo.path) if frame is None else f"{display_path(frame.video)} at {frame.time}"


def tags_line(tags: Mapping[str, int]) -> str:
    """The most frequent tags with their counts, on one line."""
    shown = [f"{display_path(tag)} {count}" for tag, count in list(tags.items())[:SHOWN_TAGS]]
    more = f", and {len(tags) - SHOWN_TAGS} more" if len(tags) > SHOWN_TAGS else ""
    return ", ".join(shown) + more
