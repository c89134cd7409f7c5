"""The benchmark of vector stores runs, and finds what is there."""

from pathlib import Path

from click.testing import CliRunner

from benchmarks.vector_stores import main


def test_it_runs_on_a_small_case(tmp_path: Path, pgvector_address: str) -> None:
    words = [str(tmp_path), "2000", "files", pgvector_address, "--dimension", "64", "--queries", "4"]
    ran = CliRunner().invoke(main, words, catch_exceptions=False)
    assert ran.output.count("| 1.000 |") == 10
    assert "secret" not in ran.output
