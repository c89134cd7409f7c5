"""docs/cli.md says what the commands say."""

from __future__ import annotations

import importlib.util
from pathlib import Path

HERE = Path(__file__).parent


def test_the_page_is_up_to_date() -> None:
    spec = importlib.util.spec_from_file_location("cli_page", HERE / "cli_page.py")
    assert spec is not None
    assert spec.loader is not None
    cli_page = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(cli_page)
    written = cli_page.PAGE.read_text("utf-8")
    assert written == cli_page.page(), "an option changed: run `make cli-page` and commit docs/cli.md"
