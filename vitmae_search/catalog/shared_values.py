"""`SharedValues`: small files that all processes with one catalogue on a server need, on any machine."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, timedelta

from sqlalchemy import Connection, delete, func, select

from vitmae_search.catalog.database import WritableDatabase
from vitmae_search.catalog.dialects import Now, upsert
from vitmae_search.catalog.schema import SharedValueRow


@dataclass(frozen=True, slots=True)
class SharedValue:
    """A value, and what people call it.

    Attributes:
        data: Its bytes.
        label: Its name for people, such as that of an uploaded file.
    """

    data: bytes
    label: str


class SharedValues:
    """The table of shared values. A name begins with what the value is for, as in "upload/…". Thread-safe."""

    def __init__(self, database: WritableDatabase) -> None:
        self._database = database

    def get(self, name: str) -> SharedValue | None:
        """The value with this name, or None."""
        wanted = select(SharedValueRow.value, SharedValueRow.label).where(SharedValueRow.name == name)
        with self._database.read_transaction() as connection:
            row = connection.execute(wanted).one_or_none()
        return None if row is None else SharedValue(row.value, row.label)

    def names(self, beginning: str) -> set[str]:
        """What follows in the names that begin with this."""
        found = select(SharedValueRow.name).where(SharedValueRow.name.startswith(beginning, autoescape=True))
        with self._database.read_transaction() as connection:
            return {name.removeprefix(beginning) for name in connection.execute(found).scalars()}

    def put(self, name: str, data: bytes, label: str = "") -> None:
        """Keep a value, in place of one of this name.

        Args:
            name: Its name.
            data: Its bytes.
            label: Its name for people; what is no Unicode in it becomes question marks.
        """
        label = label.encode("utf-8", "replace").decode("utf-8")
        values = {"name": name, "label": label, "value": data, "made_at": Now()}

        def change(connection: Connection) -> None:
            statement = upsert(connection, SharedValueRow).values(values)
            changed = {key: value for key, value in values.items() if key != "name"}
            connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_=changed))

        self._database.change(change)

    def put_if_absent(self, name: str, data: bytes) -> bytes:
        """Keep a value unless there is one of this name, and return the one that is kept.

        Args:
            name: Its name.
            data: Its bytes.
        """
        known = self.get(name)
        if known is not None:
            return known.data
        values = {"name": name, "label": "", "value": data, "made_at": Now()}

        def change(connection: Connection) -> None:
            statement = upsert(connection, SharedValueRow).values(values)
            connection.execute(statement.on_conflict_do_nothing(index_elements=["name"]))

        self._database.change(change)
        kept = self.get(name)
        return data if kept is None else kept.data

    def delete(self, name: str) -> None:
        """Delete a value, if it is there."""
        self._database.change(
            lambda connection: connection.execute(delete(SharedValueRow).where(SharedValueRow.name == name))
        )

    def keep_newest(self, beginning: str, count: int, size: int) -> None:
        """Delete the oldest of the values whose names begin with this; the newest one always stays.

        Args:
            beginning: How their names begin.
            count: How many are kept at most.
            size: How many bytes all of them may have.
        """
        newest_first = SharedValueRow.made_at.desc(), SharedValueRow.name
        place = func.row_number().over(order_by=newest_first).label("place")
        total = func.sum(func.length(SharedValueRow.value)).over(order_by=newest_first).label("total")
        ranked = select(SharedValueRow.name, place, total).where(
            SharedValueRow.name.startswith(beginning, autoescape=True)
        )
        each = ranked.subquery()
        over = select(each.c.name).where(
            (each.c.place > count) | ((each.c.total > size) & (each.c.place > 1))
        )
        self._database.change(
            lambda connection: connection.execute(delete(SharedValueRow).where(SharedValueRow.name.in_(over)))
        )

    def delete_older(self, beginning: str, age: timedelta) -> None:
        """Delete values whose names begin with this, and which are older.

        Args:
            beginning: How their names begin.
            age: How old they may be.
        """

        def change(connection: Connection) -> None:
            now = connection.execute(select(Now())).scalar_one().replace(tzinfo=UTC)
            begins = SharedValueRow.name.startswith(beginning, autoescape=True)
            connection.execute(delete(SharedValueRow).where(begins, SharedValueRow.made_at < now - age))

        self._database.change(change)
