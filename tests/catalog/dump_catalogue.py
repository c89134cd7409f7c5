"""Write `version_N.sql` for the newest version N: `python tests/catalog/dump_catalogue.py [FOLDER]`.

Run it before a new step is added to `migrations.py`. The newest dump is brought up to date by the steps that
there are, and dumped again. Rows for tables and columns that are new since then are added by hand.
"""

from __future__ import annotations

import sqlite3
import sys
import tempfile
from contextlib import closing
from pathlib import Path

from vitmae_search.catalog import CatalogWriter
from vitmae_search.catalog.migrations import NEWEST
from vitmae_search.catalog.schema import APPLICATION_ID
from vitmae_search.catalog.sqlite import catalogue_file

HERE = Path(__file__).parent


def newest_dump() -> Path:
    """The dump of the highest version."""
    return max(HERE.glob("version_*.sql"), key=lambda path: int(path.stem.rpartition("_")[2]))


def dump(folder: Path) -> Path:
    """Write the dump of version `NEWEST` into `folder`, and return its path."""
    with tempfile.TemporaryDirectory() as library:
        file = catalogue_file(Path(library))
        with closing(sqlite3.connect(file)) as catalogue:
            catalogue.executescript(newest_dump().read_text("utf-8"))
        CatalogWriter.open_writer(Path(library)).close()  # applies the steps
        with closing(sqlite3.connect(file)) as catalogue:
            lines = list(catalogue.iterdump())
    header = [
        f"-- A catalogue of version {NEWEST}. Never edited: it stands for the files that people have.",
        f"PRAGMA application_id = {APPLICATION_ID};",
        f"PRAGMA user_version = {NEWEST};",
    ]
    path = folder / f"version_{NEWEST}.sql"
    path.write_text("\n".join([*header, *lines]) + "\n", "utf-8")
    return path


if __name__ == "__main__":
    print(dump(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE))
