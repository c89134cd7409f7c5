"""`vitmae-search models`."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from vitmae_search.cli.common import json_option, library_option, open_library, print_json, size_text


@click.command("models")
@library_option
@json_option
def command(library: Path | None, as_json: bool) -> None:
    """List the models that `--model` takes by name: bundled, cached from the hub, and known there."""
    with open_library(library) as opened:
        models = opened.models()
    if as_json:
        print_json({"models": [dataclasses.asdict(model) for model in models]})
        return
    for model in models:
        size = size_text(model.bytes) if model.bytes else ""
        dimension = f"{model.dimension} dimensions" if model.dimension else ""
        side = f"{model.image_size} px" if model.image_size else ""
        facts = ", ".join(fact for fact in (dimension, side, size, model.note) if fact)
        click.echo(f"{model.name:32s} {model.source:8s} {facts}")
