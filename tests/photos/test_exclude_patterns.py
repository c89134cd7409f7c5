from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitmae_search.photos.scan import exclude_filter


@pytest.mark.parametrize(
    ("pattern", "path", "excluded"),
    [
        ("*.png", "a/b.png", True),
        ("*.png", "a/b.PNG", False),
        ("b", "a/b", True),
        ("a", "a/b", False),
        ("a/*", "a/b", True),
        ("a/*", "a/b/c", False),
        ("a/**", "a/b/c", True),
        ("/a", "a", True),
        ("/b", "a/b", False),
        ("**/c", "c", True),
        ("**/c", "a/b/c", True),
        ("a/**/c", "a/c", True),
        ("a/**/c", "a/x/y/c", True),
        ("?.jpg", "a.jpg", True),
        ("?.jpg", "ab.jpg", False),
        ("[!a].jpg", "b.jpg", True),
        ("[!a].jpg", "a.jpg", False),
        ("[z-a].jpg", "b.jpg", False),
        ("[", "[", True),
        ("[]", "[]", True),
        ("a.b", "aXb", False),
        ("two\nlines", "two\nlines", True),
        ("/", "a", False),
        ("", "a", False),
    ],
)
def test_patterns(pattern: str, path: str, excluded: bool) -> None:
    assert exclude_filter([pattern])(path.rpartition("/")[2], path, False) is excluded


def test_a_slash_at_the_end_asks_for_a_folder() -> None:
    excluded = exclude_filter(["raw/"])
    assert excluded("raw", "a/raw", True)
    assert not excluded("raw", "a/raw", False)


@given(st.text(alphabet="[]!^-az*?/\\.&|~\n", max_size=12), st.text(alphabet="az/]-", min_size=1))
def test_no_pattern_is_refused(pattern: str, path: str) -> None:
    assert exclude_filter([pattern])(path.rpartition("/")[2], path, True) in (True, False)


@given(st.text(alphabet=st.characters(exclude_characters="[]*?/", exclude_categories=["Cs"]), min_size=1))
def test_a_plain_name_excludes_itself_and_no_other(name: str) -> None:
    excluded = exclude_filter([name])
    assert excluded(name, f"folder/{name}", False)
    assert not excluded(name + "x", name + "x", False)


@pytest.mark.parametrize(
    ("pattern", "name"),
    [("[---]", "-"), ("[a--]", "x"), ("[--a]", "0"), ("[[:x]", "["), ("[&&]", "&"), ("[~~]", "~")],
)
def test_a_hyphen_or_operator_in_brackets_is_a_character(pattern: str, name: str) -> None:
    assert exclude_filter([pattern])(name, name, False) == (pattern != "[a--]")
