"""Write docs/cli.md from the commands themselves: `python tests/docs/cli_page.py`.

`test_cli_page.py` compares the page with what this gives.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import click

from vitmae_search.cli.main import COMMANDS, cli

PAGE = Path(__file__).resolve().parents[2] / "docs/cli.md"

INTRODUCTION = """\
# Command line

<!-- Written by tests/docs/cli_page.py from the commands themselves: change those and run `make cli-page`. -->

Every command that works on a library takes `--library DIR`, and all but `app` and `demo` take `--json`, which
prints exactly one JSON object on stdout; everything else goes to stderr. `vitmae-search COMMAND --help` shows
the same in the terminal. Exit codes: 0 done, also where single files failed; 1 an error that you can act on;
2 wrong usage; 130 interrupted, with what was done kept.
"""


def page() -> str:
    """The whole page."""
    context = click.Context(cli, info_name="vitmae-search")
    rows = [f"| [`{name}`](#{name}) | {text} |" for name, (_, text) in COMMANDS.items()]
    parts = [INTRODUCTION, "| command | |\n|---|---|\n" + "\n".join(rows) + "\n"]
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        parts += section(command, click.Context(command, info_name=name, parent=context), level=2)
    return "\n".join(parts)


def section(command: click.Command, context: click.Context, level: int) -> Iterator[str]:
    """The heading, text and options of a command, then its subcommands."""
    title = context.command_path.removeprefix("vitmae-search ")
    yield f"{'#' * level} {title}\n"
    usage = " ".join(command.collect_usage_pieces(context))
    yield f"```\n{context.command_path} {usage}\n```\n"
    yield description(command)
    rows = list(option_rows(command, context))
    if rows:
        yield "| option | meaning |\n|---|---|\n" + "\n".join(rows) + "\n"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            yield from section(child, click.Context(child, info_name=name, parent=context), level + 1)


def description(command: click.Command) -> str:
    """The help text; paragraphs that click is told to keep as they are become code."""
    paragraphs = inspect.cleandoc(command.help or "").split("\n\n")
    shown = []
    for paragraph in paragraphs:
        if paragraph.startswith("\b\n"):
            shown.append("```\n" + inspect.cleandoc(paragraph.removeprefix("\b\n")) + "\n```")
        else:
            shown.append(" ".join(paragraph.split()))
    return "\n\n".join(shown) + "\n"


def option_rows(command: click.Command, context: click.Context) -> Iterator[str]:
    """One table row for each option but `--help`. The usage line and the text name the arguments."""
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is None or isinstance(parameter, click.Argument) or "--help" in parameter.opts:
            continue
        names, text = record
        # Square brackets would be links.
        shown = re.sub(r"(^| )\[([^]]*)\]", r"\1(\2)", cell(text)).replace("<", "&lt;")
        yield f"| `{cell(names)}` | {shown} |"


def cell(text: str) -> str:
    """Text for a table cell: one line, with bars escaped."""
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
