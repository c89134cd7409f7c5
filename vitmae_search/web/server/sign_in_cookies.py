"""The cookies of visitors who have signed in."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING

from itsdangerous import BadData, TimestampSigner

from vitmae_search.errors import LibraryDenied

if TYPE_CHECKING:
    from vitmae_search.library import SharedValues

MAX_AGE = 30 * 24 * 3600
"""Seconds for which a sign-in lasts."""

_CURRENT_SECONDS = 3.0
"""How long after a sign-out another copy of the app may still take the cookie."""
_KEY = "sign-in key"
_SIGNED_OUT = "signed out/"


class SignInCookies:
    """Issues signed cookies, and tells them from all others. Not thread-safe: the event loop alone uses it.

    A cookie holds a random number, the time, and a signature. The signing key is made anew at each start, so
    that a restart signs everybody out, and a copied cookie says nothing about the password.
    """

    def __init__(self, max_age: int = MAX_AGE) -> None:
        self._max_age = max_age
        self._set_key(secrets.token_bytes(32))
        self._revoked: dict[str, float] = {}

    @property
    def name(self) -> str | None:
        """What the cookie's name ends with; None is the port, where each server has cookies of its own."""
        return None

    def is_current(self) -> bool:
        """Whether `refresh` need not be called now."""
        return True

    def refresh(self) -> None:
        """Learn what other copies of the app did. It may take a while: call it in a thread."""

    def issue(self) -> str:
        """A new cookie's value."""
        return self._signer.sign(secrets.token_urlsafe(16)).decode("ascii")

    def is_valid(self, value: str) -> bool:
        """Whether it was issued here, is not too old, and was not revoked."""
        try:
            number = self._signer.unsign(value, max_age=self._max_age).decode("ascii")
        except (BadData, UnicodeError):
            return False
        return number not in self._revoked

    def revoke(self, value: str) -> str | None:
        """Make a valid cookie invalid; returns its number, or None where it was none."""
        now = time.monotonic()
        self._revoked = {number: until for number, until in self._revoked.items() if until > now}
        if not self.is_valid(value):
            return None
        number = self._signer.unsign(value).decode("ascii")
        self._revoked[number] = now + self._max_age
        return number

    def _set_key(self, key: bytes) -> None:
        self._signer = TimestampSigner(key, digest_method=hashlib.sha256)


class SharedSignInCookies(SignInCookies):
    """Cookies that all copies of the app with one catalogue and one password issue and know.

    The signing key comes of the password and a random number in the catalogue, so that a cookie alone says
    nothing about the password, and another password signs everybody out. A sign-out is written there, too.
    """

    def __init__(
        self, password: str, shared: Callable[[], SharedValues | None], max_age: int = MAX_AGE
    ) -> None:
        """Nothing is read before `refresh`.

        Args:
            password: The app's password.
            shared: Gives what the copies share.
            max_age: Seconds for which a sign-in lasts.
        """
        super().__init__(max_age)
        self._password, self._shared = password.encode("utf-8", "surrogateescape"), shared
        self._lock = threading.Lock()
        self._name: str | None = None
        self._current_until = float("-inf")

    @property
    def name(self) -> str | None:
        """The same for all copies, whatever their ports, and another one for another key."""
        return self._name

    def is_current(self) -> bool:
        """Whether the catalogue was asked just now."""
        return time.monotonic() < self._current_until

    def refresh(self) -> None:
        """Learn the key, and who signed out.

        Raises:
            VitmaeSearchError: The catalogue does not answer, and the key is not known yet.
        """
        with self._lock:
            if self.is_current():
                return
            if self._name is not None:  # the others need not wait for this look
                self._current_until = time.monotonic() + _CURRENT_SECONDS
            shared = self._shared()
            assert shared is not None
            if self._name is None:
                self._derive_key(_random_number(shared))
            until = time.monotonic() + self._max_age
            self._revoked |= dict.fromkeys(shared.names(_SIGNED_OUT) - self._revoked.keys(), until)
            self._current_until = time.monotonic() + _CURRENT_SECONDS

    def revoke(self, value: str) -> str | None:
        """Make a valid cookie invalid, for all copies. It may take a while: call it in a thread."""
        number = super().revoke(value)
        shared = None if number is None else self._shared()
        if shared is not None:
            shared.put(f"{_SIGNED_OUT}{number}", b"")
            shared.delete_older(_SIGNED_OUT, timedelta(seconds=self._max_age))
        return number

    def _derive_key(self, random: bytes) -> None:
        key = hmac.digest(random, self._password, "sha256")
        self._set_key(key)
        self._name = hmac.digest(key, b"name", "sha256").hex()[:12]


def _random_number(shared: SharedValues) -> bytes:
    """What all copies make the key of; where there is none, and this copy may only read, one of its own."""
    own = secrets.token_bytes(32)
    try:
        return shared.put_if_absent(_KEY, own)
    except LibraryDenied:
        return own
