"""Claims of files: which run reads which, on PostgreSQL."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest

from vitmae_search.catalog import CatalogWriter

pytestmark = pytest.mark.postgresql_only("a file has one writer")

MINUTE = timedelta(minutes=1)
MOMENT = timedelta(milliseconds=50)


def test_a_file_has_one_holder_for_each_space(writer: CatalogWriter):
    assert writer.claim("one", 1, ["/p/a", "/p/b"], MINUTE) == {"/p/a", "/p/b"}
    assert writer.claim("other", 1, ["/p/b", "/p/c", "/p/\udce9"], MINUTE) == {"/p/c", "/p/\udce9"}
    assert writer.claim("one", 1, ["/p/a", "/p/c"], MINUTE) == {"/p/a"}, "its own again"
    assert writer.claim("other", 2, ["/p/a"], MINUTE) == {"/p/a"}, "for another model"
    writer.release_claims("one", 1, ["/p/a", "/p/c"])
    assert writer.claim("other", 1, ["/p/a", "/p/b"], MINUTE) == {"/p/a"}, "nobody releases another's"
    writer.release_all_claims("one")
    assert writer.claim("other", 1, ["/p/b"], MINUTE) == {"/p/b"}


def test_claims_are_over_with_the_lease_unless_it_is_renewed(writer: CatalogWriter):
    writer.claim("one", 1, ["/p/a"], MOMENT)
    time.sleep(2 * MOMENT.total_seconds())
    assert writer.claim("other", 1, ["/p/a"], MOMENT) == {"/p/a"}
    assert writer.claim("one", 1, ["/p/b"], MINUTE) == {"/p/b"}, "a run that slept through its lease goes on"
    writer.renew_claims("other", MINUTE)
    time.sleep(2 * MOMENT.total_seconds())
    assert writer.claim("one", 1, ["/p/a"], MINUTE) == set()
