"""What a person decided of two contents that look alike.

Each function takes a connection that is in a transaction.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, select

from vitmae_search.catalog import undo
from vitmae_search.catalog.dialects import listed, upsert
from vitmae_search.catalog.marks import digests_of
from vitmae_search.catalog.schema import PairDecisionRow


def decide(connection: Connection, photo_id: int, others: Sequence[int], decision: str, text: str) -> int:
    """Decide what a photo and others are to each other; see `CatalogWriter.decide_pairs`.

    Args:
        connection: A connection in a transaction.
        photo_id: The photo.
        others: The others.
        decision: "different" or "ignored".
        text: What the change does, in words.
    """
    first = digests_of(connection, [photo_id])
    pairs = [sorted((first[0], other)) for other in digests_of(connection, others) if [other] != first]
    if pairs:
        firsts, seconds = zip(*pairs, strict=True)
        undo.record(
            connection, text, [undo.snapshot(connection, PairDecisionRow, digest=firsts, other=seconds)]
        )
        statement = upsert(connection, PairDecisionRow)
        rows = [{"digest": one, "other": other, "decision": decision} for one, other in pairs]
        renewed = {"decision": statement.excluded.decision}
        statement = statement.on_conflict_do_update(index_elements=["digest", "other"], set_=renewed)
        connection.execute(statement, rows)
    return len(pairs)


def among(connection: Connection, digests: Sequence[str]) -> dict[tuple[str, str], str]:
    """Return the decisions of pairs of these contents; see `Catalog.pair_decisions`.

    Args:
        connection: A connection in a transaction.
        digests: The contents.
    """
    wanted = listed(digests)
    columns = (PairDecisionRow.digest, PairDecisionRow.other, PairDecisionRow.decision)
    statement = select(*columns).where(PairDecisionRow.digest.in_(wanted), PairDecisionRow.other.in_(wanted))
    return {(one, other): decision for one, other, decision in connection.execute(statement)}
