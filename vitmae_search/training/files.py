"""Files of a folder, each replaced as a whole, one after the other."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vitmae_search.atomic import sync_folder


@contextmanager
def replace_files(folder: Path) -> Iterator[Path]:
    """A new folder whose files replace those of the same name in `folder` when the block ends."""
    temporary = Path(tempfile.mkdtemp(dir=folder, prefix=".saving-"))
    try:
        yield temporary
        for made in sorted(temporary.iterdir()):
            with made.open("rb") as stream:
                os.fsync(stream.fileno())
            os.replace(made, folder / made.name)
        sync_folder(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
