from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitmae_search.embedding import (
    CAPABILITIES,
    PluginInfo,
    canonical_json,
    derived_fingerprint,
    fingerprint,
)

INFO = PluginInfo("p", "P")
IDENTITY = {"weights": "ab" * 32, "config": {"layers": [1, 2], "eps": 1e-12}, "mean": [0.1, 1 / 3]}
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)


@given(PLAIN)
def test_canonical_json_is_json_and_survives_a_round_trip(value: object) -> None:
    text = canonical_json(value)
    assert json.loads(text) == value
    assert canonical_json(json.loads(text)) == text
    assert text.isascii()


@given(st.dictionaries(st.text(), st.integers()))
def test_the_order_of_keys_does_not_matter(value: dict[str, int]) -> None:
    assert canonical_json(dict(reversed(value.items()))) == canonical_json(value)


@pytest.mark.parametrize(
    "value",
    [np.float32(1), np.float64(1), np.arange(2), {1: 2}, {"a": {"b": {3}}}, b"x", object(), [PluginInfo]],
)
def test_what_is_not_plain_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match="value"):
        canonical_json(value)


@pytest.mark.parametrize("value", [float("nan"), {"a": [float("inf")]}])
def test_numbers_that_json_lacks_are_refused(value: object) -> None:
    with pytest.raises(ValueError, match="which JSON does not have"):
        canonical_json(value)


def test_everything_that_decides_the_vectors_changes_it() -> None:
    prints = {
        fingerprint(IDENTITY, INFO, "exact"),
        fingerprint(IDENTITY, INFO, "scaled"),
        fingerprint(IDENTITY, replace(INFO, name="q"), "exact"),
        fingerprint(IDENTITY, replace(INFO, vector_revision=2), "exact"),
        fingerprint({**IDENTITY, "pooling": "cls"}, INFO, "exact"),
        fingerprint({**IDENTITY, "mean": [0.1, 0.3333333333333333]}, INFO, "exact"),
        fingerprint({**IDENTITY, "mean": [0.1, 0.33333333333333326]}, INFO, "exact"),
    }
    assert len(prints) == 6  # 1/3 and 0.3333333333333333 are one float


def test_what_does_not_decide_them_leaves_it() -> None:
    described = replace(INFO, title="Another", options={"a": 1}, capabilities=CAPABILITIES)
    assert fingerprint(IDENTITY, described, "exact") == fingerprint(IDENTITY, INFO, "exact")


def test_it_is_the_same_in_another_process() -> None:
    code = (
        "from vitmae_search.embedding import PluginInfo, fingerprint;"
        f"print(fingerprint({IDENTITY!r}, PluginInfo('p', 'P'), 'exact'))"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == fingerprint(IDENTITY, INFO, "exact")


def test_a_derived_space_is_its_features_and_its_projection() -> None:
    made = {derived_fingerprint(features, projection) for features in "ab" for projection in "ab"}
    assert len(made) == 4
    assert all(len(one) == 64 for one in made)
    assert derived_fingerprint("a", "b") in made
