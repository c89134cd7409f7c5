"""Fetch a picture that a person names by its address, from a public web server only.

The address is the person's, but what stands behind it is foreign: a name may lead into the person's own
network, and a server may send on, send without end, or send something else. So each name is resolved once,
all that it resolves to has to be public, and the connection goes to what was checked. No proxy, cookie or
password is used.
"""

from __future__ import annotations

import http.client
import ipaddress
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from typing import Any
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from vitmae_search.errors import PhotoError, PhotoTooLarge, UnreadablePhoto, UnsupportedPhoto

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

MAX_BYTES = 64 * 2**20
"""The largest picture that is fetched."""
MAX_SECONDS = 30.0
"""For all of it: names, redirections, and the picture."""
_MAX_REDIRECTIONS = 5
_REDIRECTIONS = frozenset({301, 302, 303, 307, 308})
_CHUNK = 1 << 16
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_NO_PICTURES = re.compile(
    r"(text|audio|video|font|multipart|message)/|application/(json|xml|pdf|zip|javascript)"
)


def is_public(address: IpAddress) -> bool:
    """Return whether an address is of the public internet: not of this machine or its networks."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address in _NAT64:
            return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        # Both carry an IPv4 address to which a tunnel may lead.
        if address.sixtofour is not None or address.teredo is not None or address.is_site_local:
            return False
    special = address.is_private or address.is_reserved or address.is_loopback or address.is_link_local
    return address.is_global and not (special or address.is_multicast or address.is_unspecified)


def fetch_picture(
    url: str,
    *,
    is_allowed: Callable[[IpAddress], bool] | None = None,
    max_bytes: int = MAX_BYTES,
    max_seconds: float = MAX_SECONDS,
) -> bytes:
    """Fetch a picture's file.

    Args:
        url: An http or https address.
        is_allowed: Which addresses may be connected to; None is `is_public`.
        max_bytes: Most bytes of the file.
        max_seconds: The longest time that it may take.

    Returns:
        The bytes, which may still be no picture: decode them where that can be killed.

    Raises:
        UnreadablePhoto: The address is wrong or not public, or the server does not answer with a file.
        UnsupportedPhoto: It says that what it sends is no picture.
        PhotoTooLarge: It sends more than `max_bytes`.
    """
    fetching = _Fetching(is_allowed or is_public, max_bytes, time.monotonic() + max_seconds)
    try:
        address = url
        for _ in range(_MAX_REDIRECTIONS + 1):
            found = fetching.get(_checked(address))
            if isinstance(found, bytes):
                return found
            address = urljoin(address, found)
        raise UnreadablePhoto(None, "the server sends on from one address to the next without end")
    except PhotoError as error:
        raise type(error)(url, error.reason) from error.__cause__
    except TimeoutError as error:
        raise UnreadablePhoto(url, f"it took longer than {max_seconds:g} s") from error
    except ssl.SSLCertVerificationError as error:
        raise UnreadablePhoto(url, "the server's certificate is not valid for this name") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        if time.monotonic() >= fetching.deadline:
            raise UnreadablePhoto(url, f"it took longer than {max_seconds:g} s") from error
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UnreadablePhoto(url, f"the server could not be asked ({reason})") from error


def _checked(url: str) -> SplitResult:
    """The parts of an address, if it is one that is fetched."""
    if not url.isprintable() or " " in url or "\\" in url:
        raise UnreadablePhoto(None, "an address has no spaces, backslashes or control characters")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        raise UnreadablePhoto(None, "only addresses of http and https are fetched")
    if not parts.hostname:
        raise UnreadablePhoto(None, "the address names no server")
    if parts.username is not None or parts.password is not None:
        raise UnreadablePhoto(None, "addresses with a name or password in them are not fetched")
    return parts


class _Fetching:
    """One picture that is being fetched, with what is left of its time."""

    def __init__(self, is_allowed: Callable[[IpAddress], bool], max_bytes: int, deadline: float) -> None:
        self._is_allowed, self._max_bytes, self.deadline = is_allowed, max_bytes, deadline

    def get(self, parts: SplitResult) -> bytes | str:
        """The bytes at an address, or where it sends on to."""
        host = _ascii_host(parts.hostname or "")
        port = parts.port or (443 if parts.scheme == "https" else 80)
        connected = self._connect(host, port)
        if parts.scheme == "https":
            connected = ssl.create_default_context().wrap_socket(
                connected, server_hostname=host, do_handshake_on_connect=False
            )
        # The time on the clock: a server may send a little now and then.
        watch = threading.Timer(max(0.0, self.deadline - time.monotonic()), _shut, [connected])
        watch.daemon = True
        watch.start()
        try:
            if isinstance(connected, ssl.SSLSocket):
                connected.do_handshake()
            connection = http.client.HTTPConnection(host, port)
            connection.sock = connected
            target = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~") + (
                "?" + quote(parts.query, safe="/%:@!$&'()*+,;=~?") if parts.query else ""
            )
            connection.putrequest("GET", target, skip_host=True, skip_accept_encoding=True)
            connection.putheader("Host", _host_header(parts, host))
            connection.putheader("User-Agent", "vitmae-search")
            connection.putheader("Accept", "image/*,application/octet-stream;q=0.8")
            connection.putheader("Accept-Encoding", "identity")
            connection.putheader("Connection", "close")
            connection.endheaders()
            with connection.getresponse() as response:
                return self._answer(response)
        finally:
            watch.cancel()
            connected.close()

    def _answer(self, response: http.client.HTTPResponse) -> bytes | str:
        if response.status in _REDIRECTIONS and response.getheader("Location"):
            return str(response.getheader("Location"))
        if response.status != 200:
            raise UnreadablePhoto(None, f"the server answers {response.status} {response.reason}".rstrip())
        kind = (response.getheader("Content-Type") or "").lower()
        if _NO_PICTURES.match(kind):
            raise UnsupportedPhoto(None, f"it is no picture, but {kind.partition(';')[0].strip()}")
        length = response.getheader("Content-Length") or ""
        if length.isdecimal() and int(length) > self._max_bytes:
            raise self._too_large()
        data = bytearray()
        while chunk := response.read(_CHUNK):
            data += chunk
            if len(data) > self._max_bytes:
                raise self._too_large()
            self._left()
        if length.isdecimal() and len(data) < int(length):
            self._left()
            raise UnreadablePhoto(None, "the server ended in the middle of the picture")
        if not data:
            raise UnreadablePhoto(None, "the server sends nothing")
        return bytes(data)

    def _too_large(self) -> PhotoTooLarge:
        return PhotoTooLarge(None, f"larger than {self._max_bytes / 2**20:g} MiB, the most that is fetched")

    def _left(self) -> float:
        """The seconds that are left. Raises `TimeoutError`."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def _connect(self, host: str, port: int) -> socket.socket:
        """Connect to a server. All that its name resolves to has to be allowed."""
        found = self._resolve(host, port)
        for _, sockaddr in found:
            address = ipaddress.ip_address(str(sockaddr[0]).partition("%")[0])
            if not self._is_allowed(address):
                raise UnreadablePhoto(
                    None, f"{host} is {address}, which is no public address, so it is not connected to"
                )
        failed: OSError = OSError("its name leads nowhere")
        for family, sockaddr in found:
            try:
                connected = socket.socket(family, socket.SOCK_STREAM)
                connected.settimeout(self._left())
                connected.connect(sockaddr)
                return connected
            except TimeoutError:
                connected.close()
                raise
            except OSError as error:
                connected.close()
                failed = error
        raise failed

    def _resolve(self, host: str, port: int) -> list[tuple[socket.AddressFamily, Any]]:
        """What a name resolves to. It is asked for once, so that it cannot answer otherwise later."""
        pool = ThreadPoolExecutor(1, thread_name_prefix="resolve")
        try:
            asked = pool.submit(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
            rows = asked.result(self._left())
        except FutureTimeoutError:
            raise TimeoutError from None
        except (socket.gaierror, UnicodeError) as error:
            raise UnreadablePhoto(None, f"there is no server {host}") from error
        finally:
            pool.shutdown(wait=False)
        return [(row[0], row[4]) for row in rows if row[0] in (socket.AF_INET, socket.AF_INET6)]


def _ascii_host(host: str) -> str:
    """A host's name as it is resolved; international ones are encoded."""
    try:
        return host if host.isascii() else host.encode("idna").decode("ascii")
    except UnicodeError as error:
        raise UnreadablePhoto(None, "the name of the server is not one that there can be") from error


def _host_header(parts: SplitResult, host: str) -> str:
    named = f"[{host}]" if ":" in host else host
    return named if parts.port is None else f"{named}:{parts.port}"


def _shut(connected: socket.socket) -> None:
    """End whatever waits for a connection."""
    with suppress(OSError):
        connected.shutdown(socket.SHUT_RDWR)
