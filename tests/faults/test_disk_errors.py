"""A disk that is full, broken or read-only: what was done is kept, and one sentence says what to do."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.faults import strace
from tests.faults.disk_errors import inject_all
from tests.faults.kills import Target, complaints
from tests.faults.scenarios import SCENARIOS, Home, index_command, write_photo
from tests.faults.truth import Truth, wrong_hits

pytestmark = pytest.mark.timeout(0)

DISTURBED = ("first index", "changes", "derive", "classify", "prune")


@pytest.mark.skipif(bool(strace.missing()), reason=strace.missing() or "-")
def test_errors_of_calls_that_write(server, tmp_path, amount, record_property) -> None:
    targets = [
        Target(scenario, tmp_path / str(number), server, ("rollback_journal",) * (number % 2))
        for number, scenario in enumerate(each for each in SCENARIOS if each.name in DISTURBED)
    ]
    tally = inject_all(targets, amount(10, 60, 300))
    kinds = ", ".join(f"{name} {count}" for name, count in sorted(tally.errors.items()))
    record_property(
        "figures",
        f"disk errors: {sum(tally.errors.values())} ({kinds}), {tally.reported} reported, "
        f"{len(tally.faults)} faults",
    )
    assert tally.faults == []


def mounted(place: Path, *options: str) -> None:
    command = ["mount", *options, str(place)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a file system")


@pytest.fixture
def small_disk(home: Home) -> Iterator[Path]:
    """The library is on a file system of its own, which can be made smaller, larger and read-only."""
    home.library.mkdir()
    mounted(home.library, "-t", "tmpfs", "-o", "size=64k", "tmpfs")
    yield home.library
    with suppress(OSError):
        subprocess.run(["umount", "-l", str(home.library)], check=True)


def assert_says_what_to_do(done, folder: Path, word: str) -> None:
    assert done.code == 1, done
    assert "Traceback" not in done.err
    [line] = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert str(folder) in line
    assert word in line


def test_a_disk_that_is_really_full(home, small_disk) -> None:
    for seed in range(40):
        write_photo(home.photos / f"{seed:02d}.jpg", seed)
    for kilobytes in (64, 200, 300, 400):
        mounted(small_disk, "-o", f"remount,size={kilobytes}k")
        done = home.run(*index_command(home))
        if done.code:
            assert_says_what_to_do(done, small_disk, "full")
        for look in ("status", "check"):
            done = home.run(look)
            if Truth.of(small_disk).photos:
                assert list(complaints(look, done)) == []
            elif done.code:  # there may be tables to be made yet
                assert "full" in done.err or "has no photos yet" in done.err
    mounted(small_disk, "-o", "remount,size=20m")
    home.must(*index_command(home))
    home.must("check")
    truth = Truth.of(small_disk)
    assert len(truth.searchable()) == 40
    query = str(home.photos / "00.jpg")
    assert wrong_hits(truth, query, home.must("search", query, "--json").json["hits"], 10) == []


def test_a_mount_that_is_read_only(home, small_disk) -> None:
    mounted(small_disk, "-o", "remount,size=20m")
    for seed in range(8):
        write_photo(home.photos / f"{seed}.jpg", seed)
    home.must(*index_command(home))
    mounted(small_disk, "-o", "remount,ro")
    query = str(home.photos / "0.jpg")
    home.must("status")
    home.must("check")
    hits = home.must("search", query, "--json", "-k", "5").json["hits"]
    write_photo(home.photos / "new.jpg", 99)
    assert_says_what_to_do(home.run(*index_command(home)), small_disk, "written")
    mounted(small_disk, "-o", "remount,rw")
    assert wrong_hits(Truth.of(small_disk), query, hits, 5) == []
