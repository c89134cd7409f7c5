"""The command `vitmae-search`: which commands there are, and how each ends.

Exit codes: 0 done, 1 an error that a person can act on, 2 usage, 130 interrupted. A command's module is
imported only when it runs, so that `--help` answers at once.
"""

from __future__ import annotations

import gc
import importlib
import io
import sys
from typing import TYPE_CHECKING

import click

import vitmae_search
from vitmae_search.errors import VitmaeSearchError, did_you_mean, mask_credentials

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

COMMANDS = {
    "index": ("index", "Index photo folders, or bring them up to date."),
    "search": ("search", "Find the photos that look like a picture."),
    "list": ("list", "List the library's photos, newest first."),
    "mark": ("mark", "Make photos favourites, or rate them."),
    "albums": ("albums", "List albums; add photos, take them out, rename or delete one."),
    "searches": ("searches", "List the saved searches; save, run or delete one."),
    "duplicates": ("duplicates", "List near-duplicates over the whole library."),
    "unusual": ("unusual", "List the photos that are least like any other one."),
    "map": ("map", "Lay out the library's photos on a map."),
    "export": ("export", "Write photos with their vectors to a file, or links to a folder."),
    "undo": ("undo", "Undo the last change to marks, albums or saved searches."),
    "classify": ("classify", "Give the library's photos tags, with a classifier."),
    "evaluate": ("evaluate", "Measure how good searches are on a folder of photos."),
    "reconstruct": ("reconstruct", "Hide patches of a picture and let the model fill them in."),
    "inspect": ("inspect", "Show what the model sees: attention, or features as colors."),
    "explain": ("explain", "Show why two pictures match, patch by patch."),
    "neighbours": ("neighbours", "Show how a photo, or all of them, lie among their neighbours."),
    "spaces": ("spaces", "List the embedding spaces; use or drop one."),
    "jobs": ("jobs", "List the long jobs of all machines; cancel one."),
    "status": ("status", "Say what the library holds."),
    "check": ("check", "Look for damage in the library, and mend it."),
    "prune": ("prune", "Remove photos from the library that are gone from disk."),
    "forget": ("forget", "Remove a folder from the library; its files stay."),
    "relocate": ("relocate", "Tell the library that a folder has another path now."),
    "copy-catalog": ("copy_catalog", "Copy the catalogue's file into a PostgreSQL database."),
    "models": ("models", "List the models that can be named."),
    "plugins": ("plugins", "List the embedding plugins and their options."),
    "app": ("app", "Open the library in the browser."),
    "demo": ("demo", "Index a folder of sample photos and open the app on it."),
    "pretrain": ("pretrain", "Pretrain a masked autoencoder on a folder of images."),
    "film": ("film", "Write the film strip of a pretraining: what it learned to see."),
    "adapt": ("adapt", "Learn from your photos to find photos better."),
    "finetune": ("finetune", "Train a classifier on labelled photos."),
}


_GC_THRESHOLDS = (500_000, 50, 100)
"""New objects before a garbage collection; collections before one of older ones, and before one of all."""


class LazyGroup(click.Group):
    """A group that imports `vitmae_search.cli.<name>` only when that command or its options are needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands' names, as the help lists them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command.

        Args:
            ctx: click's context.
            cmd_name: The command's name.

        Returns:
            The command, None where there is none of this name.
        """
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"vitmae_search.cli.{COMMANDS[cmd_name][0]}")
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that the first argument names; a name that is none gets a suggestion.

        Args:
            ctx: click's context.
            args: The arguments.
        """
        name = args[0]
        if name not in COMMANDS and not name.startswith("-") and not ctx.resilient_parsing:
            ctx.fail(f"No such command {name!r}.{did_you_mean(name, COMMANDS)}")
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete a command's name or an option, without importing the commands.

        Args:
            ctx: click's context.
            incomplete: What was typed of the word.
        """
        from click.shell_completion import CompletionItem

        commands = [
            CompletionItem(name, help=text)
            for name, (_, text) in COMMANDS.items()
            if name.startswith(incomplete)
        ]
        return commands + click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the help's list of commands, without importing them.

        Args:
            ctx: click's context.
            formatter: Where it is written to.
        """
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


def _show_version(ctx: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    if wanted:
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
    # Imports make some hundred thousand objects that stay. To look at all of them again and again while they
    # are made, and twice at the end, would take 0.3 s.
    gc.set_threshold(*_GC_THRESHOLDS)
    code = run(sys.argv[1:])
    gc.freeze()
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code. An error that a person can act on is one line on stderr."""
    try:
        result = cli.main(args=arguments, prog_name="vitmae-search", standalone_mode=False)
    except click.exceptions.Abort:
        return _interrupted()
    except KeyboardInterrupt:
        return _interrupted()
    except click.ClickException as error:
        shown = io.StringIO()
        error.show(shown)
        click.echo(mask_credentials(shown.getvalue()), err=True, nl=False)
        return error.exit_code
    except VitmaeSearchError as error:
        click.echo(f"error: {' '.join(str(error).split())}", err=True)
        return 1
    except BrokenPipeError:
        # The reader of our output (head, less) has ended, which is no error. Without stdout Python flushes
        # nothing to it at exit.
        sys.stdout = None
        return 0
    return result if isinstance(result, int) else 0


def _interrupted() -> int:
    click.echo("interrupted; what was done is kept", err=True)
    return 130
