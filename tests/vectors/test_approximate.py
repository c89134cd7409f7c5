"""Approximate search: what it finds, when it is taken, and that it never changes a score."""

import os
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from vitmae_search.errors import VectorCacheDamaged
from vitmae_search.vectors import ExactIndex, Policy, SpaceIndex, VectorCache
from vitmae_search.vectors.approximate import (
    CANDIDATE_COUNTS,
    ApproximateIndex,
    BuildCancelled,
    Measurement,
    factory_strings,
)
from vitmae_search.vectors.exact import exact_seconds
from vitmae_search.vectors.protocols import never_cancel
from vitmae_search.vectors.tune import (
    build,
    kth_scores,
    measure_recall,
    perturbed_queries,
    tune_candidates,
    updated_approximate,
)

DIMENSION = 32
COUNT = 6000
POLICY = Policy(exact_seconds=0.0, queries=60)


def clusters(count: int, seed: int = 0) -> np.ndarray:
    """Overlapping ones: the noise is as long as the centres are apart."""
    centres = np.random.default_rng(7).standard_normal((40, DIMENSION))
    random = np.random.default_rng(seed)
    rows = centres[random.integers(0, 40, count)] + random.standard_normal((count, DIMENSION))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def exact() -> ExactIndex:
    ids = np.random.default_rng(3).permutation(3 * COUNT)[:COUNT]
    return ExactIndex.from_arrays(ids, clusters(COUNT))


@pytest.fixture(scope="module")
def index(exact) -> SpaceIndex:
    return SpaceIndex(exact, build(exact, POLICY))


def recall(index: SpaceIndex, k: int = 10, **filters) -> float:
    queries = clusters(40, seed=5)
    found = index.search(queries, k, **filters)
    wanted = index.exact.search(queries, k, **filters)
    assert all(len(a) == len(b) for a, b in zip(found, wanted, strict=True))
    same = [np.isin(b.ids, a.ids).mean() for a, b in zip(found, wanted, strict=True) if len(b)]
    return float(np.mean(same)) if same else 1.0


def test_the_fewest_candidates_that_reach_the_recall_are_taken(exact, index):
    measured = index.approximate.measured
    assert measured.recall >= POLICY.recall
    assert measured.queries == POLICY.queries
    assert recall(index) >= 0.97
    queries = perturbed_queries(exact, POLICY.queries, POLICY.noise)
    kth = kth_scores(exact, queries, never_cancel)
    assert measure_recall(index, queries, kth, never_cancel) == measured.recall
    for candidates in CANDIDATE_COUNTS[: CANDIDATE_COUNTS.index(measured.candidates)]:
        weaker = SpaceIndex(exact, index.approximate.with_measurement(Measurement(candidates)))
        assert measure_recall(weaker, queries, kth, never_cancel) < POLICY.recall


def test_the_next_kind_is_taken_where_the_first_does_not_reach_the_recall(exact, monkeypatch):
    monkeypatch.setattr("vitmae_search.vectors.approximate.CANDIDATE_COUNTS", (400,))
    monkeypatch.setattr("vitmae_search.vectors.approximate._PCA_DIMENSIONS", 2)
    first, second = factory_strings(DIMENSION, COUNT)
    short = ApproximateIndex.build(exact, first).with_measurement(Measurement(400))
    queries = perturbed_queries(exact, 30, 0.5)
    kth = kth_scores(exact, queries, never_cancel)
    assert measure_recall(SpaceIndex(exact, short), queries, kth, never_cancel) < 0.95
    made = build(exact, Policy(queries=60, recall=0.95))
    assert made.kind == second
    assert made.measured.recall >= 0.95
    assert recall(SpaceIndex(exact, made)) >= 0.9
    assert recall(SpaceIndex(exact, made), allowed=exact.ids[::2]) >= 0.9


def test_some_lists_are_read_without_a_filter_and_all_with_one(exact, monkeypatch):
    monkeypatch.setattr("vitmae_search.vectors.approximate._LISTS_FROM", COUNT)
    monkeypatch.setattr("vitmae_search.vectors.approximate._FEW_CANDIDATES", 200)
    made = build(exact, Policy(queries=60, recall=0.9))
    assert "IVF38" in made.kind
    assert made.measured.share < 1
    made = ApproximateIndex.deserialize(*(lambda data, more: (data.tobytes(), more))(*made.serialize()))
    whole = made.with_measurement(replace(made.measured, share=1.0))
    few = made.with_measurement(replace(made.measured, share=1 / 38))
    assert (
        recall(SpaceIndex(exact, few)) < recall(SpaceIndex(exact, made)) <= recall(SpaceIndex(exact, whole))
    )
    for allowed in (np.sort(exact.ids[:1500]), np.sort(exact.ids[::2])):
        queries = clusters(20, seed=6)
        found, wanted = (
            [set(ids.tolist()) for ids in one.candidates(queries, 10, allowed=allowed)]
            for one in (few, whole)
        )
        assert found == wanted
    more = ExactIndex.from_arrays(np.arange(COUNT + 600), clusters(COUNT + 600))
    strict = tune_candidates(made.with_added(more), more, Policy(queries=60, recall=1.0), never_cancel)
    assert strict.measured.share == 1


def test_several_threads_find_what_one_finds(exact, monkeypatch):
    monkeypatch.setattr("vitmae_search.vectors.approximate._LISTS_FROM", 0)
    monkeypatch.setattr("vitmae_search.vectors.approximate.os.cpu_count", lambda: 3)
    built = ApproximateIndex.build(exact, factory_strings(DIMENSION, COUNT)[0])
    some = np.sort(exact.ids[::3])
    filters = ({}, {"allowed": some}, {"excluded": some}, {"allowed": some, "excluded": some[:900]})
    for share in (0.5, 1.0):
        made = built.with_measurement(Measurement(200, share=share))
        for chosen in filters:
            alone = made.candidates(clusters(10, seed=5), 10, **chosen)
            with monkeypatch.context() as divided:
                divided.setattr("vitmae_search.vectors.approximate._CODES_A_THREAD", 500)
                divided_up = made.candidates(clusters(10, seed=5), 10, **chosen)
            for one, several in zip(alone, divided_up, strict=True):
                assert len(set(several.tolist())) == len(one) == 200
                # Codes are short: many are at the same distance, and the last of them may differ.
                assert np.isin(several, one).mean() > 0.95
                assert np.isin(several, some).all() if "allowed" in chosen else True
                assert not np.isin(several, chosen.get("excluded", [])).any()


def test_several_threads_say_where_too_few_are_left(exact, monkeypatch):
    monkeypatch.setattr("vitmae_search.vectors.approximate._LISTS_FROM", 0)
    monkeypatch.setattr("vitmae_search.vectors.approximate._CODES_A_THREAD", 500)
    monkeypatch.setattr("vitmae_search.vectors.approximate.os.cpu_count", lambda: 3)
    built = ApproximateIndex.build(exact, factory_strings(DIMENSION, COUNT)[0])
    query, made = clusters(1, seed=5), built.with_measurement(Measurement(200))
    assert made.candidates(query, 10, allowed=np.sort(exact.ids[:199])) == [None]
    [found] = made.candidates(query, 10, allowed=np.sort(exact.ids[:200]))
    assert len(found) == 200


def test_vectors_far_from_the_origin_are_told_apart():
    """Raw features share a large mean: inner products after PCA would order them wrongly."""
    rows = clusters(COUNT) + np.float32(3 / DIMENSION**0.5)
    exact = ExactIndex.from_arrays(np.arange(COUNT), rows / np.linalg.norm(rows, axis=1, keepdims=True))
    made = build(exact, Policy(queries=60, noise=0.1))
    assert made.kind == factory_strings(DIMENSION, COUNT)[0]
    assert made.measured.recall >= 0.99
    assert made.measured.candidates == CANDIDATE_COUNTS[0]


def test_recall_is_measured_against_the_truth(exact, index):
    queries = perturbed_queries(exact, 30, 0.5)
    kth = kth_scores(exact, queries, never_cancel)
    assert kth.tolist() == pytest.approx([found.scores[-1] for found in exact.search(queries, 10)], abs=1e-6)
    assert measure_recall(SpaceIndex(exact, None), queries, kth, never_cancel) == 1.0
    blind = SpaceIndex(exact, index.approximate.with_measurement(Measurement(1)))
    assert measure_recall(blind, queries, kth, never_cancel) == pytest.approx(0.1, abs=0.02)


@pytest.mark.parametrize("share", [0.5, 0.05, 0.001])
@pytest.mark.parametrize("few", [0, COUNT // 3])
def test_filters_keep_the_recall(index, monkeypatch, share, few):
    """Searched exactly where few are left, and among the proposals where many are."""
    monkeypatch.setattr("vitmae_search.vectors.space_index.EXACT_FILTER_ROWS", few)
    ids = index.exact.ids
    drawn = np.random.default_rng(1).choice(ids, max(1, int(share * len(ids))), replace=False)
    assert recall(index, allowed=drawn) >= 0.97
    assert recall(index, excluded=drawn) >= 0.97
    assert recall(index, allowed=drawn, excluded=drawn[::2]) >= 0.97
    only = index.search(clusters(5, seed=6), 10, allowed=drawn)
    assert all(np.isin(found.ids, drawn).all() for found in only)


def test_a_filter_that_leaves_one_cluster_far_from_the_query_keeps_the_recall(index):
    query = clusters(1, seed=5)
    far = index.exact.search(query, COUNT)[0].ids[-COUNT // 4 :]
    assert np.array_equal(
        index.search(query, 10, allowed=far)[0].ids[:1], index.exact.search(query, 10, allowed=far)[0].ids[:1]
    )
    assert recall(index, allowed=far) >= 0.97


@pytest.mark.parametrize("k", [1, 10, 35, 2000, 10_000])
def test_any_k_gives_as_many_as_there_are(index, k):
    assert recall(index, k) >= 0.95


def test_scores_and_order_are_those_of_exact_search(index):
    for query in clusters(20, seed=9):
        found = index.search(query[None], 10)[0]
        truth = index.exact.search(query[None], 10, allowed=found.ids)[0]
        assert found.ids.tolist() == truth.ids.tolist()
        assert found.scores.tolist() == truth.scores.tolist()


def test_what_came_later_is_found_and_what_is_gone_is_not(index):
    exact = index.exact.copy()
    later = np.arange(10**6, 10**6 + 50)
    new = clusters(50, seed=11)
    exact.add(later, new)
    gone = exact.ids[:1500]
    exact.remove(gone)
    changed = SpaceIndex(exact, index.approximate)
    assert [found.ids[0] for found in changed.search(new, 1)] == later.tolist()
    assert recall(changed) >= 0.97
    assert not np.isin(changed.search(clusters(30, seed=2), 10)[0].ids, gone).any()
    assert recall(changed, allowed=np.concatenate([later, exact.ids[::2]])) >= 0.97


def test_stored_and_read_it_proposes_the_same(exact, index):
    payload, more = index.approximate.serialize()
    read = ApproximateIndex.deserialize(payload.tobytes(), more)
    assert read.measured == index.approximate.measured
    assert read.kind == index.approximate.kind
    queries = clusters(20, seed=4)
    again = SpaceIndex(exact, read).search(queries, 10)
    for a, b in zip(again, index.search(queries, 10), strict=True):
        assert a.ids.tolist() == b.ids.tolist()


@pytest.mark.parametrize("change", [{"kind": None}, {"count": 10**9}, {"measured": {"other": 1}}])
def test_what_another_version_stored_is_refused(index, change):
    payload, more = index.approximate.serialize()
    changed = {key: value for key, value in (more | change).items() if value is not None}
    with pytest.raises(VectorCacheDamaged, match="of another kind"):
        ApproximateIndex.deserialize(payload.tobytes(), changed)
    with pytest.raises(VectorCacheDamaged, match="of another kind"):
        ApproximateIndex.deserialize(payload[:-50].tobytes(), more)


def test_it_joins_what_is_little_and_begins_anew_where_it_is_much(exact, index):
    held = index.approximate
    grown = exact.copy()
    assert updated_approximate(grown, held, POLICY) is held
    grown.add(np.arange(10**6, 10**6 + 30), clusters(30, seed=20))
    assert updated_approximate(grown, held, POLICY) is held, "half a per cent is searched exactly"
    grown = grown.copy()
    grown.add(np.arange(2 * 10**6, 2 * 10**6 + 300), clusters(300, seed=21))
    joined = updated_approximate(grown, held, POLICY)
    assert joined.trained_on == COUNT
    assert joined.ids.tolist() == grown.ids.tolist()
    assert joined.measured.recall >= POLICY.recall
    assert len(joined.missing_ids(grown)) == 0
    grown = grown.copy()
    grown.remove(grown.ids[:4000])
    anew = updated_approximate(grown, joined, POLICY)
    assert anew.trained_on == len(grown)
    assert anew.ids.tolist() == grown.ids.tolist()


def test_exact_search_stays_while_it_is_fast(exact, tmp_path, big):
    assert 0 < exact_seconds(exact) < 60
    assert exact_seconds(ExactIndex(3)) == 0
    cache = VectorCache(tmp_path, Policy(exact_seconds=60))
    cache.save(big)
    cache.maintain(big)
    assert cache.open(big).approximate is None
    assert not cache.approximate_path(big.key).exists()
    assert cache.describe(big).kind == "exact"
    assert str(cache.describe(big)).startswith("exact: 6,000 vectors take about ")


def test_what_is_surely_fast_is_not_even_opened(tmp_path, big, monkeypatch):
    VectorCache(tmp_path).save(big)
    cache = VectorCache(tmp_path)
    monkeypatch.setattr(cache, "_current", None)  # calling it would raise a TypeError
    assert cache.save(big)
    cache.speed_up(big)


def test_one_number_a_vector_is_searched_exactly(tmp_path, new_source):
    source = new_source(1)
    source.add(np.ones((50, 1), np.float32))
    cache = VectorCache(tmp_path, POLICY)
    cache.maintain(source)
    assert cache.open(source).approximate is None
    assert len(cache.open(source).search(np.ones((1, 1), np.float32), 3)[0]) == 3


@pytest.mark.parametrize("count", [1, 2, 17, 100])
def test_however_few_there_are(count):
    exact = ExactIndex.from_arrays(np.arange(count), clusters(count))
    made = build(exact, POLICY)
    assert made.measured.recall == 1.0
    assert recall(SpaceIndex(exact, made)) == 1.0


def test_building_can_be_given_up_at_any_moment(exact, index):
    asked = 0

    def after(calls):
        nonlocal asked
        asked = 0

        def cancelled():
            nonlocal asked
            asked += 1
            return asked > calls

        return cancelled

    for calls in (0, 1, 3, 20):
        with pytest.raises(BuildCancelled):
            build(exact, POLICY, after(calls))
    grown = exact.copy()
    grown.add(np.arange(10**6, 10**6 + 900), clusters(900, seed=20))
    with pytest.raises(BuildCancelled):
        updated_approximate(grown, index.approximate, POLICY, after(0))


@pytest.fixture
def big(new_source):
    source = new_source(DIMENSION)
    source.add(clusters(COUNT))
    return source


def assert_found(index: SpaceIndex, source) -> None:
    """The truth's scores, and nearly all of the truth's best."""
    ids = np.array(sorted(source.rows), np.int64)
    truth = ExactIndex.from_arrays(ids, np.array([source.rows[i][1] for i in ids.tolist()]))
    queries = clusters(20, seed=5)
    hits = 0
    for query, found in zip(queries, index.search(queries, 10), strict=True):
        same = truth.search(query[None], 10, allowed=found.ids)[0]
        assert (found.ids.tolist(), found.scores.tolist()) == (same.ids.tolist(), same.scores.tolist())
        hits += np.isin(found.ids, truth.search(query[None], 10)[0].ids).sum()
    assert hits >= 0.95 * 10 * len(queries)


def test_a_new_process_finds_the_approximate_index_and_follows_the_source(tmp_path, big):
    cache = VectorCache(tmp_path, POLICY)
    assert cache.open(big).approximate is None
    cache.speed_up(big)
    assert cache.open(big).approximate is not None
    again = VectorCache(tmp_path, POLICY)
    approximate = again.open(big).approximate
    assert approximate is not None
    assert_found(again.open(big), big)
    ids = big.add(clusters(40, seed=30))
    big.remove(ids[:5] + list(range(1, 100)))
    assert again.open(big).approximate is approximate
    assert_found(again.open(big), big)
    assert again.save(big)
    assert again.open(big).approximate is approximate
    assert_found(again.open(big), big)
    assert_found(VectorCache(tmp_path, POLICY).open(big), big)


def test_nothing_is_read_where_the_approximate_index_is_of_the_last_revision(tmp_path, big, monkeypatch):
    VectorCache(tmp_path, POLICY).maintain(big)
    cache = VectorCache(tmp_path, POLICY)
    monkeypatch.setattr(cache, "_current", None)  # calling it would raise a TypeError
    assert cache.save(big)
    cache.speed_up(big)


def test_an_index_that_does_not_reach_the_recall_is_not_searched(tmp_path, big):
    hopeless = Policy(exact_seconds=0.0, queries=20, recall=1.01)
    cache = VectorCache(tmp_path, hopeless)
    cache.maintain(big)
    assert cache.open(big).approximate is None
    assert cache.approximate_path(big.key).is_file(), "it is not tried again each time"
    before = cache.approximate_path(big.key).stat().st_mtime_ns
    VectorCache(tmp_path, hopeless).maintain(big)
    assert cache.approximate_path(big.key).stat().st_mtime_ns == before
    assert VectorCache(tmp_path, hopeless).open(big).approximate is None
    assert_found(VectorCache(tmp_path, hopeless).open(big), big)


def test_each_damage_to_the_approximate_file_leaves_searches_exact_until_it_is_made_again(tmp_path, big):
    cache = VectorCache(tmp_path, POLICY)
    cache.maintain(big)
    path = cache.approximate_path(big.key)
    whole = path.read_bytes()
    places = [*range(0, 500, 9), *np.random.default_rng(0).integers(4096, len(whole), 20).tolist()]
    for place in places:
        with open(path, "r+b", buffering=0) as file:
            for byte in (whole[place] ^ 1 << place % 8, whole[place]):
                file.seek(place)
                file.write(bytes([byte]))
                whole_again = byte == whole[place]
                assert (VectorCache(tmp_path, POLICY).open(big).approximate is not None) == whole_again
    for length in (0, 100, 4096, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert VectorCache(tmp_path, POLICY).open(big).approximate is None
    mended = VectorCache(tmp_path, POLICY)
    mended.maintain(big)
    assert mended.open(big).approximate is not None
    assert VectorCache(tmp_path, POLICY).open(big).approximate is not None


def test_a_file_of_another_catalogue_is_not_used(tmp_path, big, new_source):
    VectorCache(tmp_path, POLICY).maintain(big)
    other = new_source(DIMENSION)
    other.add(clusters(COUNT, seed=1))
    cache = VectorCache(tmp_path, POLICY)
    assert cache.open(other).approximate is None
    assert_found(cache.open(other), other)


def test_a_damaged_vector_is_found_while_searches_go_on(tmp_path, big):
    path = VectorCache(tmp_path, POLICY).path(big.key)
    VectorCache(tmp_path, POLICY).save(big)
    whole = bytearray(path.read_bytes())
    whole[4096 + 5000] ^= 4
    path.write_bytes(whole)
    cache = VectorCache(tmp_path, POLICY)
    assert_found(cache.open(big), big)
    cache.maintain(big)
    ids = np.array(sorted(big.rows), np.int64)
    assert np.array_equal(
        cache.open(big).exact.vectors(ids), np.array([big.rows[i][1] for i in ids.tolist()])
    )
    assert VectorCache(tmp_path, POLICY).verify(big)


def test_searches_go_on_while_the_indexes_are_made_and_swapped(tmp_path, big):
    cache = VectorCache(tmp_path, POLICY)
    wrong: list[object] = []
    stop, turn = threading.Event(), threading.Lock()  # MemorySource is a plain dict
    query = clusters(1, seed=5)

    def search() -> None:
        while not stop.is_set():
            with turn:
                found = cache.open(big).search(query, 10)[0]
                true = [
                    float((big.rows[i][1].astype(np.float64) * query[0]).sum()) for i in found.ids.tolist()
                ]
            if not np.array_equal(np.float32(true), found.scores) or len(found) != 10:
                wrong.append(found)

    threads = [threading.Thread(target=search) for _ in range(2)]
    for thread in threads:
        thread.start()
    for step in range(4):
        with turn:
            big.add(clusters(200, seed=40 + step))
            big.remove(sorted(big.rows)[:50])
            cache.save(big)
        cache.maintain(big)
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong
    assert cache.open(big).approximate is not None


def test_the_background_makes_it_and_stops_when_asked(tmp_path, big):
    cache = VectorCache(tmp_path, POLICY, background=True)
    deadline = time.monotonic() + 60
    while cache.open(big).approximate is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert cache.open(big).approximate is not None
    cache.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("vectors")]
    assert_found(cache.open(big), big)


def test_closing_gives_up_what_is_being_made(tmp_path, big):
    cache = VectorCache(tmp_path, POLICY, background=True)
    cache.open(big)
    cache.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("vectors")]
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".tmp")]
    assert_found(cache.open(big), big)
