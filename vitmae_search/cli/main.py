"""The command `vitmae-search`: which commands there are, and how each ends.

Exit codes: 0 done, 1 an error that a person can act on, 2 usage, 130 interrupted. A command's module is
imported only when it runs, so that `--help` answers at once.
"""

from __future__ import annotations

import importlib
import sys

import click

import vitmae_search
from vitmae_search.errors import VitmaeSearchError

COMMANDS = {
    "index": ("index", "Index photo folders, or bring them up to date."),
    "search": ("search", "Find the photos that look like a picture."),
    "classify": ("classify", "Give the library's photos tags, with a classifier."),
    "evaluate": ("evaluate", "Measure how good searches are on a folder of photos."),
    "reconstruct": ("reconstruct", "Hide patches of a picture and let the model fill them in."),
    "spaces": ("spaces", "List the embedding spaces; use or drop one."),
    "status": ("status", "Say what the library holds."),
    "check": ("check", "Look for damage in the library, and mend it."),
    "models": ("models", "List the models that can be named."),
    "plugins": ("plugins", "List the embedding plugins and their options."),
    "app": ("app", "Open the library in the browser."),
    "demo": ("demo", "Index a folder of sample photos and open the app on it."),
    "pretrain": ("pretrain", "Pretrain a masked autoencoder on a folder of images."),
    "adapt": ("adapt", "Learn from your photos to find photos better."),
    "finetune": ("finetune", "Train a classifier on labelled photos."),
}


class LazyGroup(click.Group):
    """A group that imports `vitmae_search.cli.<name>` when the command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"vitmae_search.cli.{COMMANDS[cmd_name][0]}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


def _show_version(ctx: click.Context, parameter: click.Parameter, asked: bool) -> None:
    if asked:
        click.echo(f"vitmae-search, version {vitmae_search.__version__}")
        ctx.exit()


@click.group(
    cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_show_version,
    help="Show the version and exit.",
)
def cli() -> None:
    """Search a photo folder by how its photos look, on your own machine.

    Begin with `vitmae-search index FOLDER`, then `vitmae-search app`. Nothing leaves this machine.
    """


def main() -> None:
    """Run the command line and exit."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code. Errors for people are one line on stderr."""
    try:
        result = cli.main(args=arguments, prog_name="vitmae-search", standalone_mode=False)
    except click.exceptions.Abort:
        return _stopped()
    except KeyboardInterrupt:
        return _stopped()
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except VitmaeSearchError as error:
        click.echo(f"error: {' '.join(str(error).split())}", err=True)
        return 1
    except BrokenPipeError:
        # The reader of our output (head, less) has gone: not an error, and nothing more to say to it.
        sys.stdout = None
        return 0
    return result if isinstance(result, int) else 0


def _stopped() -> int:
    click.echo("interrupted; what was done is kept", err=True)
    return 130
