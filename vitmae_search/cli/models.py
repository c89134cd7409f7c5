"""The command `vitmae-search models`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import click

from vitmae_search.cli.common import (
    device_options,
    json_option,
    library_option,
    open_library,
    print_json,
    size_text,
)
from vitmae_search.errors import display_path
from vitmae_search.records import ModelListing


@click.command("models")
@click.option(
    "--speed", is_flag=True, help="Measure how fast each model on this machine is; it is remembered."
)
@device_options
@library_option
@json_option
def command(library: Path | None, speed: bool, device: str | None, precision: str, as_json: bool) -> None:
    """List the models that --model takes: bundled, trained here, in the hub's cache, and known on the hub.

    A speed counts the encoder alone: photos are decoded beside it.
    """
    with open_library(library, device=device, precision=precision) as opened:
        models = opened.measure_models(_announce) if speed else opened.models()
    if as_json:
        print_json({"models": [dataclasses.asdict(model) for model in models]})
        return
    for model in models:
        click.echo(f"{model.name:32s} {model.source:8s} {', '.join(_facts(model))}")


def _announce(name: str) -> None:
    click.echo(f"measuring {name} ...", err=True)


def _facts(model: ModelListing) -> Iterator[str]:
    if model.dimension:
        yield f"{model.dimension} dimensions"
    if model.image_size:
        yield f"{model.image_size} px"
    if model.parameters:
        yield f"{model.parameters / 1e6:.1f} M parameters"
    if model.bytes:
        yield size_text(model.bytes)
    if model.decoder is not None:
        yield "decoder" if model.decoder else "no decoder"
    if model.projection:
        yield "projection"
    if model.images_per_second:
        yield f"{_rate_text(model.images_per_second)} images/s ({model.measured_on})"
    if model.note:
        yield display_path(model.note)


def _rate_text(rate: float) -> str:
    return f"{rate:.0f}" if rate >= 10 else f"{rate:.2g}"
