"""The figures of the benchmarks are only as true as what counts and compares them."""

from __future__ import annotations

import time

import numpy as np

from benchmarks.timing import (
    comparison_rows,
    describe_machine,
    format_figure,
    markdown_table,
    speedups,
    time_interleaved,
)


def test_each_variant_runs_once_a_round_and_takes_turns_at_being_first() -> None:
    ran: list[str] = []
    seconds = time_interleaved({name: lambda name=name: ran.append(name) for name in "abc"}, rounds=6)
    rounds = ["".join(ran[at : at + 3]) for at in range(0, len(ran), 3)]
    assert len(rounds) == 7  # one of them to warm up
    assert all(sorted(one) == list("abc") for one in rounds)
    assert {one[0] for one in rounds[1:]} == set("abc")
    pairs = {one[at : at + 2] for one in rounds[1:] for at in range(2)}
    assert pairs == {"ab", "bc", "ca", "ba", "cb", "ac"}, "each follows each other"
    assert {name: taken.shape for name, taken in seconds.items()} == dict.fromkeys("abc", (6,))


def test_each_variant_waits_for_the_device_before_and_after() -> None:
    late: list[str] = []
    variants = {name: lambda name=name: late.append(name) for name in "ab"}
    seconds = time_interleaved(
        variants, rounds=2, synchronise=lambda: (time.sleep(0.02 * len(late)), late.clear())
    )
    assert not late, "nothing is left undone"
    assert all(min(taken) >= 0.02 for taken in seconds.values()), "what it waits for is counted"


def test_a_ratio_is_of_one_round_so_a_slow_round_of_all_changes_nothing() -> None:
    slow = np.array([4.0, 40.0, 4.0])
    assert speedups({"slow": slow, "fast": slow / 4}, "slow") == {"slow": 1.0, "fast": 4.0}


def test_a_table_has_the_median_the_ratio_and_the_notes() -> None:
    seconds = {"slow": np.array([2.0, 2.0, 9.0]), "fast": np.array([0.5, 0.5, 0.5])}
    notes, names = {"slow": [1], "fast": [0.99]}, ["cos"]
    made = markdown_table(
        *comparison_rows(seconds, reference="slow", count=10, unit="images/s", notes=notes, columns=names)
    )
    assert made.splitlines() == [
        "|  | images/s | × slow | cos |",
        "| --- | --- | --- | --- |",
        "| slow | 5.00 | 1.00 | 1 |",
        "| fast | 20.0 | 4.00 | 0.99 |",
    ]
    assert comparison_rows(seconds, reference="slow", count=10)[1][0][1] == "200"  # ms a piece


def test_figures_keep_what_says_something() -> None:
    assert [format_figure(one) for one in (0.01234, 1.234, 12.34, 123.4, 12345.6, 0)] == [
        *("0.0123", "1.23", "12.3", "123", "12346", "0")
    ]


def test_the_machine_line_names_what_is_here_and_what_is_not() -> None:
    line = describe_machine("numpy", "no-such-package")
    assert f"numpy {np.__version__}" in line
    assert "no-such-package (not here)" in line
