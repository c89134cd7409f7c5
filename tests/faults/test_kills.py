"""A command that is killed, or loses its power, at any moment: nothing is lost, wrong or locked."""

from __future__ import annotations

import pytest

from tests.faults import strace
from tests.faults.kills import Kill, Tally, Target, strike_all
from tests.faults.scenarios import SCENARIOS

JOURNALS = ((), ("rollback_journal",))

pytestmark = [
    pytest.mark.skipif(bool(strace.missing()), reason=strace.missing() or "-"),
    pytest.mark.timeout(0),
]


def test_kills_lose_nothing_and_lock_nobody_out(server, tmp_path, amount, record_property) -> None:
    both = amount(0, 1, 1)
    targets = [
        Target(scenario, tmp_path / f"{number}-{len(patches)}", server, patches)
        for number, scenario in enumerate(SCENARIOS)
        for patches in (JOURNALS if both else (JOURNALS[number % 2],))
    ]
    tally = strike_all(targets, amount(16, 120, 500))
    by_scenario = ", ".join(f"{name} {count}" for name, count in tally.kills.items())
    record_property(
        "figures",
        f"kills: {sum(tally.kills.values())} ({by_scenario}), {len(tally.faults)} faults, "
        f"{tally.seconds:.0f} s",
    )
    assert tally.faults == []


def faults_of(target: Target, kills: list[Kill], breaking: tuple[str, ...] = ()) -> list[str]:
    """The faults of the first kill that shows any."""
    tally = Tally()
    for kill in kills:
        target.strike(kill, tally, breaking)
        if tally.faults:
            break
    return tally.faults


def named(name: str):
    return next(scenario for scenario in SCENARIOS if scenario.name == name)


def test_photos_committed_before_their_vectors_are_noticed(server, tmp_path) -> None:
    target = Target(named("changes"), tmp_path, server, ())
    kills = [Kill("fdatasync", number) for number in range(6, 14)]
    assert any(
        "have no vector" in fault for fault in faults_of(target, kills, ("commit_before_the_vectors",))
    )
    assert faults_of(target, kills[:3]) == []


def test_a_file_renamed_before_it_is_on_disk_is_noticed(server, tmp_path) -> None:
    target = Target(named("derive"), tmp_path, server, ())
    kills = [Kill("fdatasync", number, power=True) for number in range(10, 4, -1)]
    found = faults_of(target, kills, ("rename_without_sync",))
    assert any("projection" in fault for fault in found), found
    assert faults_of(target, kills[:3]) == []


def test_a_reader_that_undoes_nothing_is_noticed(server, tmp_path) -> None:
    kills = [Kill("unlink", number) for number in range(1, 8)]
    broken = Target(
        named("changes"), tmp_path / "broken", server, ("rollback_journal", "reader_heals_nothing")
    )
    assert any("stopped in the middle of a change" in fault for fault in faults_of(broken, kills))
    whole = Target(named("changes"), tmp_path / "whole", server, ("rollback_journal",))
    assert faults_of(whole, kills[:3]) == []
