"""`vitmae-search jobs`: the list, and cancelling."""

from __future__ import annotations

from pathlib import Path

from tests.cli.conftest import Command
from vitmae_search.catalog import Catalog, CatalogWriter


def test_jobs_are_listed_and_cancelled(vitmae_search: Command, indexed: Path, tmp_path: Path) -> None:
    (done,) = vitmae_search("jobs", "--json").json["jobs"]
    assert (done["kind"], done["state"], done["cancel_requested_at"]) == ("index", "done", None)
    assert done["report"]["added"] == 8
    with CatalogWriter.open_writer(tmp_path / "library") as writer:
        writer.start_run("abcdef0123", "index", {"folders": ["/p"]})
        writer.update_run("abcdef0123", {"done": 3, "total": 9})
        listed = vitmae_search("jobs").out.splitlines()
        assert listed[0].startswith("abcdef01  index     running")
        assert listed[0].endswith("/p  3 of 9")
        assert " done " in listed[1]
        asked = vitmae_search("jobs", "cancel", "abc", "--json").json
        assert asked["cancel_requested_at"] is not None
        assert asked["key"] == "abcdef0123"
        assert "stopping" in vitmae_search("jobs", "--limit", "1").out
    with Catalog.open(tmp_path / "library") as catalog:
        assert catalog.cancel_requested("abcdef0123")


def test_what_cannot_be_cancelled_is_said(vitmae_search: Command, indexed: Path) -> None:
    (done,) = vitmae_search("jobs", "--json").json["jobs"]
    refused = vitmae_search("jobs", "cancel", done["key"])
    assert (refused.code, refused.err) == (1, "error: this run is done already\n")
    unknown = vitmae_search("jobs", "cancel", "zzz")
    assert "no job has a key that begins with zzz" in unknown.err


def test_a_new_library_has_no_jobs(vitmae_search: Command) -> None:
    assert vitmae_search("jobs").out == "there were no jobs yet\n"
