"""The cookies of visitors who have signed in."""

from __future__ import annotations

import hashlib
import secrets
import time

from itsdangerous import BadData, TimestampSigner

MAX_AGE = 30 * 24 * 3600
"""Seconds for which a sign-in lasts."""


class SignInCookies:
    """Issues signed cookies, and tells them from all others. Not thread-safe: the event loop alone uses it.

    A cookie holds a random number, the time, and a signature. The signing key is made anew at each start, so
    that a restart signs everybody out, and a copied cookie says nothing about the password.
    """

    def __init__(self, max_age: int = MAX_AGE) -> None:
        self._max_age = max_age
        self._signer = TimestampSigner(secrets.token_bytes(32), digest_method=hashlib.sha256)
        self._revoked: dict[str, float] = {}

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

    def revoke(self, value: str) -> None:
        """Make a valid cookie invalid."""
        now = time.monotonic()
        self._revoked = {number: until for number, until in self._revoked.items() if until > now}
        if self.is_valid(value):
            number = self._signer.unsign(value).decode("ascii")
            self._revoked[number] = now + self._max_age
