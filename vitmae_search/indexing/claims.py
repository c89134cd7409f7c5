"""Several runs divide the files between them: each claims some before it reads them.

On PostgreSQL alone: a library's file has one writer at a time, who has all files.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from itertools import islice

from vitmae_search.catalog import CatalogWriter
from vitmae_search.errors import VitmaeSearchError
from vitmae_search.indexing.plan import PendingFile

LEASE_SECONDS = 30.0
"""How long the claims of a run hold after its process, machine or network is gone."""
_RENEWALS = 4
"""How often a lease is renewed while it lasts."""
_BLOCK_FILES = 64
"""Files that are claimed at a time: few, as those at which a run ends wait for the end of its lease."""


class FileClaims:
    """The claims of one run. Close it at the end.

    Attributes:
        elsewhere: Files that another run held when this one came to them.
    """

    def __init__(
        self,
        catalog: CatalogWriter,
        space_id: int,
        still_pending: Callable[[Sequence[PendingFile]], Sequence[PendingFile]],
    ) -> None:
        """Begin with no claim.

        Args:
            catalog: Has the claims of all runs.
            space_id: The space that the files are read for.
            still_pending: Called with files that are claimed: returns those that no other run has recorded
                since they were planned.
        """
        self._catalog = catalog
        self._space_id = space_id
        self._still_pending = still_pending
        self._holder = secrets.token_hex(8)
        self._lease = timedelta(seconds=LEASE_SECONDS)
        self._ended = threading.Event()
        self._renewing: threading.Thread | None = None
        self.elsewhere: list[PendingFile] = []

    def take(self, files: Iterable[PendingFile]) -> Iterable[PendingFile]:
        """Give those files that this run is to read, in their order, each claimed shortly before.

        Args:
            files: The files of the plan.
        """
        return self._take(files) if self._catalog.many_writers else files

    def release(self, files: Sequence[PendingFile]) -> None:
        """Give up the claims of files that are recorded, or that this run reads again later."""
        if self._renewing is not None and files:
            paths = [file.stamp.path for file in files]
            self._catalog.release_claims(self._holder, self._space_id, paths)

    def close(self) -> None:
        """Give up all claims; those that cannot be, as the server is away, are over with the lease."""
        self._ended.set()
        if self._renewing is not None:
            self._renewing.join()
            with suppress(VitmaeSearchError):
                self._catalog.release_all_claims(self._holder)

    def _take(self, files: Iterable[PendingFile]) -> Iterator[PendingFile]:
        if self._renewing is None:
            self._renewing = threading.Thread(target=self._renew, name="claims", daemon=True)
            self._renewing.start()
        iterator = iter(files)
        while block := list(islice(iterator, _BLOCK_FILES)):
            paths = [file.stamp.path for file in block]
            claimed = self._catalog.claim(self._holder, self._space_id, paths, self._lease)
            self.elsewhere += [file for file in block if file.stamp.path not in claimed]
            ours = [file for file in block if file.stamp.path in claimed]
            pending = self._still_pending(ours)
            to_read = {file.stamp.path for file in pending}
            self.release([file for file in ours if file.stamp.path not in to_read])
            yield from pending

    def _renew(self) -> None:
        while not self._ended.wait(self._lease.total_seconds() / _RENEWALS):
            with suppress(VitmaeSearchError):  # the run itself meets it
                self._catalog.renew_claims(self._holder, self._lease)
