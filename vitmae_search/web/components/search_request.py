"""A search as an address asks for it, which the Search page and the route of further hits read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NotRequired, Self, TypedDict

from vitmae_search.records import MinScore, SearchFilter, SearchResult
from vitmae_search.web.components import examples, filters, words
from vitmae_search.web.components.filter_parameters import PARAMETERS, Filters, read_filters
from vitmae_search.web.components.query_picker import QueryState, read_picture
from vitmae_search.web.server.session import library

COUNTS = (12, 24, 48, 96)
"""Hits of a page."""
DEFAULT_COUNT = 24

ASKED = ("photo", "upload", words.PARAMETER, *examples.PARAMETERS, "k", filters.STACKS, *PARAMETERS)
"""The parameters that decide what is found."""

Weighted = Sequence[tuple[int, float]]


class SearchOptions(TypedDict):
    """What `Library.search` and `Library.similar` are both asked."""

    k: int
    where: SearchFilter
    offset: int
    min_score: MinScore
    stacks: bool
    space: NotRequired[int]


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """What is searched for, and how.

    Attributes:
        query: The picture and the words.
        more, less: Photos that hits should be more like, or less, with weights.
        options: The filters, and how many hits.
    """

    query: QueryState
    more: Weighted
    less: Weighted
    options: SearchOptions

    @classmethod
    def of(cls, query: QueryState, active: Filters, parameters: Mapping[str, str]) -> Self:
        """What an address asks for, of which the picture and the filters were read before.

        Args:
            query: The picture and the words.
            active: The filters.
            parameters: The address's parameters.
        """
        more, less = (
            [(one.photo.photo_id, one.weight) for one in examples.read_examples(parameters, kind)]
            for kind in examples.PARAMETERS
        )
        options: SearchOptions = {
            "k": read_count(parameters),
            "where": active.where,
            "offset": 0,
            "min_score": active.min_score,
            "stacks": filters.read_stacks(parameters),
        }
        return cls(query, more, less, options)

    @property
    def is_one_picture(self) -> bool:
        """Whether it is known of its scores how alike photos are."""
        return not (self.more or self.less or self.query.words)

    def run(self, options: SearchOptions) -> SearchResult:
        """Search with these options in place of its own.

        There is no least score where scores do not say how alike photos are.
        """
        if not self.is_one_picture:
            options = {**options, "min_score": None}
        if self.query.upload is None or not self.is_one_picture:
            return library().search_examples([*self.query.wanted, *self.more], self.less, **options)
        return library().search(self.query.upload.data, **options)


def read_search(parameters: Mapping[str, str]) -> SearchRequest | None:
    """The search that an address asks for; None where it asks for none, or for what is not there."""
    picture, asked = read_picture(parameters), words.read_words(parameters)
    active = read_filters(parameters)
    if (picture is None and ("photo" in parameters or "upload" in parameters or not asked)) or active.problem:
        return None
    return SearchRequest.of(replace(picture or QueryState(), words=asked), active, parameters)


def read_count(parameters: Mapping[str, str]) -> int:
    """How many hits a page has."""
    text = parameters.get("k", "")
    return int(text) if text in map(str, COUNTS) else DEFAULT_COUNT
