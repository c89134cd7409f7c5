"""The table of embedding spaces: lookup, the current space, creation, deletion, revisions."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    delete,
    exists,
    false,
    func,
    insert,
    literal,
    select,
    true,
    update,
)

from vitmae_search.catalog.dialects import Now, is_postgresql, upsert
from vitmae_search.catalog.schema import EmbeddingRow, FailureRow, RevisionRow, SpaceRow, TombstoneRow
from vitmae_search.errors import SpaceError
from vitmae_search.records import Space


@dataclass(frozen=True, slots=True)
class SpaceSummary:
    """The columns of a space that recording a batch needs. Nothing is counted, as each batch reads it."""

    space_id: int
    dimension: int
    parent_id: int | None
    projection: str | None


def list_spaces(connection: Connection) -> list[Space]:
    """Return all spaces, oldest first."""
    rows = connection.execute(_spaces().order_by(SpaceRow.created_at, SpaceRow.space_id))
    return [_as_space(row) for row in rows]


def get(connection: Connection, space_id: int) -> Space:
    """Return a space.

    Args:
        connection: A connection in a transaction.
        space_id: The space.

    Raises:
        SpaceError: There is no such space; the message lists those that exist.
    """
    found = _first(connection, SpaceRow.space_id == space_id)
    if found is None:
        raise SpaceError(f"There is no space {space_id}. {_existing_spaces(connection)}")
    return found


def features_id(connection: Connection, space_id: int) -> int:
    """Return the id of the space with this space's features: its parent, or itself.

    Args:
        connection: A connection in a transaction.
        space_id: The space.
    """
    found = select(SpaceRow.parent_id).where(SpaceRow.space_id == space_id)
    return connection.execute(found).scalar_one_or_none() or space_id


def get_features_space(connection: Connection, space_id: int) -> Space:
    """Return a space that holds features.

    Args:
        connection: A connection in a transaction.
        space_id: The space.

    Raises:
        SpaceError: The space is derived, or does not exist.
    """
    found = get(connection, space_id)
    if found.parent_id is not None:
        raise SpaceError(f"Space {space_id} is derived itself; its features are in space {found.parent_id}.")
    return found


def features_summary(connection: Connection, space_id: int, *, locked: bool = False) -> SpaceSummary:
    """Return the summary of a space that holds features.

    Args:
        connection: A connection in a transaction.
        space_id: The space.
        locked: Let no other writer of PostgreSQL change its vectors until the end of this transaction.

    Raises:
        SpaceError: The space is derived, or does not exist.
    """
    if locked:
        lock(connection, space_id)
    found = _summaries(connection, SpaceRow.space_id == space_id)
    if not found or found[0].parent_id is not None:
        get_features_space(connection, space_id)  # says why not
    return found[0]


def lock(connection: Connection, space_id: int) -> None:
    """Let no other writer of PostgreSQL change a space's vectors until the end of this transaction.

    What a transaction reads afterwards, another one has written wholly or will begin to write later.

    Args:
        connection: A connection in a transaction.
        space_id: The space.
    """
    if is_postgresql(connection):
        connection.execute(select(SpaceRow.space_id).where(SpaceRow.space_id == space_id).with_for_update())


def child_summaries(connection: Connection, space_id: int) -> list[SpaceSummary]:
    """Return summaries of the spaces that are derived from this one.

    Args:
        connection: A connection in a transaction.
        space_id: The space.
    """
    return _summaries(connection, SpaceRow.parent_id == space_id)


def current(connection: Connection) -> Space | None:
    """Return the space that searches use by default, or None."""
    return _first(connection, SpaceRow.current == true())


def history_identity(connection: Connection) -> str | None:
    """Return the identity of the current space's revision; see `Catalog.history_identity`."""
    statement = select(RevisionRow.identity).join(SpaceRow, SpaceRow.space_id == RevisionRow.space_id)
    newest = statement.where(SpaceRow.current == true(), RevisionRow.revision == SpaceRow.revision)
    return connection.execute(newest).scalar_one_or_none()


def revision_identity(connection: Connection, space_id: int) -> str | None:
    """Return the identity of a space's newest revision; None before the first.

    Args:
        connection: A connection in a transaction.
        space_id: The space.
    """
    statement = select(RevisionRow.identity).join(SpaceRow, SpaceRow.space_id == RevisionRow.space_id)
    newest = statement.where(SpaceRow.space_id == space_id, RevisionRow.revision == SpaceRow.revision)
    return connection.execute(newest).scalar_one_or_none()


def is_in_history(connection: Connection, identity: str) -> bool:
    """Say whether any revision's identity begins so; see `Catalog.is_in_history`.

    Args:
        connection: A connection in a transaction.
        identity: The beginning of an identity, hex.
    """
    found = exists().where(RevisionRow.identity.startswith(identity, autoescape=True))
    return bool(connection.execute(select(found)).scalar_one())


def by_fingerprint(connection: Connection, fingerprint: str) -> Space | None:
    """Return the space with this fingerprint, or None.

    Args:
        connection: A connection in a transaction.
        fingerprint: The fingerprint, hex.
    """
    return _first(connection, SpaceRow.fingerprint == fingerprint)


def list_children(connection: Connection, space_id: int) -> list[Space]:
    """Return the spaces that are derived from this one, oldest first.

    Args:
        connection: A connection in a transaction.
        space_id: The space.
    """
    rows = connection.execute(_spaces().where(SpaceRow.parent_id == space_id).order_by(SpaceRow.space_id))
    return [_as_space(row) for row in rows]


def ensure(
    connection: Connection, fingerprint: str, values: Mapping[str, Any], *, current_if_first: bool = True
) -> Space:
    """Return the space with this fingerprint, and make it if there is none; see `CatalogWriter.ensure_space`.

    A dropped space comes back with its id, empty. An existing one takes the `model` and `options` given, and
    so do those derived from it.

    Args:
        connection: A connection in a transaction.
        fingerprint: The fingerprint, hex.
        values: The other columns.
        current_if_first: Make the first space the current one.
    """
    statement = select(SpaceRow.space_id, SpaceRow.dimension, SpaceRow.dropped)
    row = connection.execute(statement.where(SpaceRow.fingerprint == fingerprint)).one_or_none()
    if row is not None and row.dimension != values["dimension"]:
        raise SpaceError(
            f"Space {row.space_id} has vectors of dimension {row.dimension}, and the model now gives "
            f"{values['dimension']}: its plugin must raise its vector_revision."
        )
    if row is not None and not row.dropped:
        # The same weights may lie elsewhere now: the new model and options opened the embedder just now.
        reopening = {name: values[name] for name in ("model", "options")}
        family = (SpaceRow.space_id == row.space_id) | (SpaceRow.parent_id == row.space_id)
        connection.execute(update(SpaceRow).where(family).values(reopening))
        return get(connection, row.space_id)
    fresh = {
        **values,
        "dropped": False,
        "current": current_if_first and current(connection) is None,
        "created_at": datetime.now(UTC),
    }
    if row is not None:
        connection.execute(update(SpaceRow).where(SpaceRow.space_id == row.space_id).values(fresh))
    else:
        connection.execute(insert(SpaceRow).values(fingerprint=fingerprint, revision=0, **fresh))
    made = by_fingerprint(connection, fingerprint)
    assert made is not None
    return made


def update_provenance(connection: Connection, space: Space, values: Mapping[str, Any]) -> None:
    """Set some values of a space's provenance.

    Args:
        connection: A connection in a transaction.
        space: The space.
        values: Those that are set; the others stay.
    """
    provenance = {**space.provenance, **values}
    if provenance != space.provenance:
        row = SpaceRow.space_id == space.space_id
        connection.execute(update(SpaceRow).where(row).values(provenance=provenance))


def use(connection: Connection, space_id: int) -> None:
    """Make a space the current one.

    Args:
        connection: A connection in a transaction.
        space_id: The space.
    """
    get(connection, space_id)
    connection.execute(update(SpaceRow).where(SpaceRow.current == true()).values(current=False))
    connection.execute(update(SpaceRow).where(SpaceRow.space_id == space_id).values(current=True))


def drop(connection: Connection, space_id: int, *, even_current: bool = True) -> None:
    """Delete a space with its vectors and failures; see `CatalogWriter.drop_space`.

    Args:
        connection: A connection in a transaction.
        space_id: The space.
        even_current: Whether it may be the current one.
    """
    lock(connection, space_id)
    gone = get(connection, space_id)
    if gone.current and not even_current:
        raise SpaceError(
            f"Space {space_id} was not dropped: it is the one that searches use now. Use another one first."
        )
    derived = [str(space.space_id) for space in list_children(connection, space_id)]
    if derived:
        them = f"space {derived[0]}" if len(derived) == 1 else f"spaces {', '.join(derived)}"
        raise SpaceError(f"Space {space_id} holds the features of {them}; drop {them} first.")
    tombstone(connection, space_id, EmbeddingRow.space_id == space_id, next_revision(connection, space_id))
    connection.execute(delete(FailureRow).where(FailureRow.space_id == space_id))
    statement = update(SpaceRow).where(SpaceRow.space_id == space_id)
    connection.execute(statement.values(current=False, dropped=True))
    others = list_spaces(connection)
    if gone.current and others:
        of_same = [other for other in others if other.features_id == gone.features_id]
        use(connection, (of_same or others)[-1].space_id)


def next_revision(connection: Connection, space_id: int) -> int:
    """Begin a change of a space's vectors: increase its revision and return it.

    Args:
        connection: A connection in a transaction.
        space_id: The space.
    """
    this_space = SpaceRow.space_id == space_id
    connection.execute(update(SpaceRow).where(this_space).values(revision=SpaceRow.revision + 1))
    revision = int(connection.execute(select(SpaceRow.revision).where(this_space)).scalar_one())
    identify_revision(connection, space_id, revision)
    return revision


def identify_revision(connection: Connection, space_id: int, revision: int) -> None:
    """Draw a new identity for a revision.

    Args:
        connection: A connection in a transaction.
        space_id: The space.
        revision: The revision, which may have an identity.
    """
    identity = secrets.token_hex(8)
    statement = upsert(connection, RevisionRow).values(
        space_id=space_id, revision=revision, identity=identity, made_at=Now()
    )
    again = statement.on_conflict_do_update(
        index_elements=["space_id", "revision"], set_={"identity": identity}
    )
    connection.execute(again)


def tombstone(connection: Connection, space_id: int, which: ColumnElement[bool], revision: int) -> None:
    """Delete embeddings of a space and leave a tombstone for each.

    Args:
        connection: A connection in a transaction.
        space_id: The space.
        which: Condition on the embeddings to delete.
        revision: The revision of this change.
    """
    removed = select(EmbeddingRow.embedding_id, EmbeddingRow.space_id, literal(revision))
    removed = removed.where(EmbeddingRow.space_id == space_id, which)
    columns = ["embedding_id", "space_id", "revision"]
    connection.execute(insert(TombstoneRow).from_select(columns, removed))
    deleted = connection.execute(delete(EmbeddingRow).where(EmbeddingRow.space_id == space_id, which))
    change_number(connection, space_id, -deleted.rowcount)


def change_number(connection: Connection, space_id: int, change: int) -> None:
    """Note that a space has more or fewer vectors.

    Args:
        connection: A connection in a transaction, which has added or deleted them.
        space_id: The space.
        change: How many more.
    """
    this_space = SpaceRow.space_id == space_id
    connection.execute(update(SpaceRow).where(this_space).values(vectors=SpaceRow.vectors + change))


def count_vectors(connection: Connection, space_id: int) -> int:
    """Count a space's vectors, as `Space.vectors` should say.

    Args:
        connection: A connection in a transaction.
        space_id: The space.
    """
    of_space = select(func.count()).where(EmbeddingRow.space_id == space_id)
    return int(connection.execute(of_space).scalar_one())


def count_again(connection: Connection) -> None:
    """Write down how many vectors each space has, counted anew."""
    of_space = select(func.count()).where(EmbeddingRow.space_id == SpaceRow.space_id).scalar_subquery()
    connection.execute(update(SpaceRow).values(vectors=of_space))


def _spaces() -> Select[Any]:
    columns = [column for column in SpaceRow.__table__.columns if column.name != "dropped"]
    return select(*columns).where(SpaceRow.dropped == false())


def _first(connection: Connection, condition: ColumnElement[bool]) -> Space | None:
    row = connection.execute(_spaces().where(condition)).one_or_none()
    return None if row is None else _as_space(row)


def _summaries(connection: Connection, condition: ColumnElement[bool]) -> list[SpaceSummary]:
    columns = (SpaceRow.space_id, SpaceRow.dimension, SpaceRow.parent_id, SpaceRow.projection)
    statement = select(*columns).where(SpaceRow.dropped == false(), condition)
    return [SpaceSummary(*row) for row in connection.execute(statement.order_by(SpaceRow.space_id))]


def _as_space(row: Row[Any]) -> Space:
    return Space(**row._mapping)


def _existing_spaces(connection: Connection) -> str:
    existing = [f"{space.space_id} ({space.plugin}, {space.model})" for space in list_spaces(connection)]
    return (
        f"There are: {', '.join(existing)}." if existing else "None has been made yet: index a folder first."
    )
