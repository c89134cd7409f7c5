"""The plan: each file of a walk is in one place."""

from hypothesis import given, settings
from hypothesis import strategies as st

from vitmae_search.catalog import KnownFile
from vitmae_search.indexing.plan import PendingFile, make_plan
from vitmae_search.records import Failure, Stamp

stamps = st.builds(
    Stamp,
    path=st.sampled_from("abcdef"),
    size=st.integers(0, 1),
    mtime_ns=st.integers(0, 1),
    device=st.integers(0, 1),
)
rows = st.builds(
    KnownFile,
    photo_id=st.integers(1, 9),
    stamp=stamps,
    content_id=st.integers(1, 3),
    missing=st.booleans(),
    embedded=st.booleans(),
)
failed = st.builds(
    Failure,
    path=st.sampled_from("abcdef"),
    reason=st.just("bad"),
    size=st.integers(0, 1),
    mtime_ns=st.integers(0, 1),
)


@given(
    seen=st.lists(stamps, unique_by=lambda s: s.path),
    known=st.lists(rows, unique_by=lambda r: r.stamp.path),
    failures=st.lists(failed, unique_by=lambda f: f.path),
    retry=st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_each_file_of_the_walk_is_in_one_place(seen, known, failures, retry):
    table = {row.stamp.path: row for row in known}
    plan = make_plan(seen, table, {failure.path: failure for failure in failures}, retry_failed=retry)
    pending = [file.stamp.path for file in plan.pending]
    failed_paths = [failure.path for failure in plan.failed]
    assert len(pending) + len(failed_paths) + plan.unchanged == len(seen)
    assert pending == [stamp.path for stamp in seen if stamp.path in set(pending)], "the order of the walk"
    assert {row.stamp.path for row in plan.unseen} == table.keys() - {stamp.path for stamp in seen}
    assert set(plan.unseen_failures) == {f.path for f in failures} - {stamp.path for stamp in seen}
    if retry:
        assert not failed_paths
    for file in plan.pending:
        assert file.known is table.get(file.stamp.path)


def test_what_makes_a_file_pending():
    here = Stamp("a", 1, 1, 1)

    def known(stamp=here, missing=False, embedded=True):
        return {"a": KnownFile(7, stamp, 3, missing, embedded)}

    def plan(rows, failures=(), **options):
        return make_plan([here], rows, {f.path: f for f in failures}, **options)

    assert plan({}).pending == [PendingFile(here)]
    assert plan(known()).unchanged == 1
    assert plan(known(missing=True)).returned == [7]
    assert plan(known(Stamp("a", 1, 1, 9))).restamped == {7: here}
    assert plan(known(), rescan=True).pending
    assert plan(known(Stamp("a", 2, 1, 1))).pending
    assert plan(known(Stamp("a", 1, 2, 1))).pending
    assert plan(known(embedded=False)).pending
    assert plan({}, [Failure("a", "bad", 1, 1, tried_with="v1")], tried_with="v1").pending == []
    assert plan({}, [Failure("a", "bad", 1, 1, tried_with="v1")], tried_with="v2").pending
    assert plan({}, [Failure("a", "no permission", 1, 1)], tried_with="v1").pending
    assert plan(known(), [Failure("a", "no permission", 1, 1)]).pending, "an unchanged row with a failure"
    assert plan({}, [Failure("a", "bad", 1, 2, tried_with="v1")], tried_with="v1").pending
    assert plan({}, [Failure("a", "bad", 1, 1, 5, "v1")], tried_with="v1").pending, "another ctime"
    assert plan({}, [Failure("a", "bad", 1, 1, tried_with="")], retry_failed=True).pending
    assert plan({}, [Failure("a", "bad", 1, 1, tried_with="")], rescan=True).pending


def test_a_file_is_unchanged_if_its_ctime_is():
    before = Stamp("a", 1, 1, 1, 5, 6)
    assert Stamp("a", 1, 1, 1, 5, 6).unchanged_since(before)
    assert Stamp("a", 1, 1, 2, 5, 7).unchanged_since(before), "drives are numbered anew, and their files"
    assert not Stamp("a", 1, 1, 1, 4, 6).unchanged_since(before)
    assert Stamp("a", 1, 1, 1, 5, 6).unchanged_since(Stamp("a", 1, 1, 1)), "a row of an earlier version"
