"""The command `vitmae-search film`."""

from __future__ import annotations

import os

import click

from vitmae_search.cli.common import PathOnDisk, figure_option, json_option, print_json
from vitmae_search.errors import display_path


@click.command("film")
@click.argument("run", type=PathOnDisk(file_okay=False))
@figure_option("film.png", "A .png, .pdf, .svg or (animated) .gif file.")
@click.option(
    "--guesses", is_flag=True, help="Show the model's guess of every patch, not the completed photo."
)
@json_option
def command(run: str, output: str, guesses: bool, as_json: bool) -> None:
    """Write the film strip of a pretraining: the same photos, reconstructed while the model learns.

    RUN is the run's folder; the run may be going on. --json gives the epochs and losses as numbers.

    \b
    vitmae-search film runs/pretrain
    vitmae-search film runs/pretrain -o film.gif
    """
    from vitmae_search.inspection import figures
    from vitmae_search.inspection.film_strip import film_figure, film_gif
    from vitmae_search.training_runs import read_film_strip

    strip = read_film_strip(run)
    if output.lower().endswith(".gif"):
        animation = film_gif(strip, guesses=guesses)
        with figures.saved(output) as stream:
            stream.write(animation)
    else:
        figures.save_figure(film_figure(strip, guesses=guesses), output)
    first, last = strip.moments[0], strip.moments[-1]
    if as_json:
        moments = [
            {"step": each.step, "epoch": each.epoch, "loss": each.loss, "losses": list(each.losses)}
            for each in strip.moments
        ]
        print_json({"photos": list(strip.names), "moments": moments, "output": os.path.abspath(output)})
        return
    click.echo(
        f"{len(strip.moments)} moments, loss {first.loss:.4f} to {last.loss:.4f}: {display_path(output)}"
    )
