"""A real server on this machine that speaks Google Cloud Storage's JSON API: gcp-storage-emulator."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from typing import Any
from urllib.error import URLError
from urllib.parse import parse_qs, quote, urlencode, urlsplit
from urllib.request import Request, urlopen

from tests.helpers.object_store import BUCKET, picture

_NOTHING = (
    b"--x\r\nContent-Type: application/json\r\n\r\n{}\r\n"
    b"--x\r\nContent-Type: application/octet-stream\r\n\r\n\r\n--x--"
)
"""An object without bytes, which the server takes in this form alone."""


class GoogleStorage:
    """The server and its bucket. It knows no users, and lists everything on one page."""

    def __init__(self) -> None:
        """Start the server, with an empty bucket."""
        self.start()

    def start(self) -> None:
        """Start it; what it had is gone."""
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
        self.endpoint = f"http://127.0.0.1:{port}"
        words = ["start", f"--port={port}", "--host=127.0.0.1", "-M", "-q", f"--default-bucket={BUCKET}"]
        self._process = subprocess.Popen([sys.executable, "-m", "gcp_storage_emulator", *words])
        end = time.monotonic() + 60
        while time.monotonic() < end and self._process.poll() is None:
            try:
                self._ask("GET", "/")
            except URLError:
                time.sleep(0.05)
            else:
                return
        raise RuntimeError("the server does not start")

    def kill(self) -> None:
        """End it with SIGKILL, as a lost machine would."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def environment(self, endpoint: str | None = None) -> dict[str, str]:
        """The variables with which gcsfs finds it.

        Args:
            endpoint: Another address, such as that of a proxy before it.
        """
        return {
            "STORAGE_EMULATOR_HOST": endpoint or self.endpoint,
            "FSSPEC_GS_TOKEN": "anon",
        }

    def put(self, name: str, data: bytes | tuple[int, int, int]) -> None:
        """Store an object: bytes, or a small picture of one color.

        Args:
            name: In the bucket.
            data: Its bytes, or a color.
        """
        body = data if isinstance(data, bytes) else picture(data)
        way, kind = ("media", "application/octet-stream") if body else ("multipart", "multipart/related")
        where = f"/upload/storage/v1/b/{BUCKET}/o?{urlencode({'uploadType': way, 'name': name})}"
        self._ask("POST", where, body or _NOTHING, kind if body else f"{kind}; boundary=x")

    def move(self, name: str, other: str) -> None:
        """Give an object another name.

        Args:
            name: As it is.
            other: As it will be.
        """
        self._ask("POST", f"{_path(name)}/copyTo/b/{BUCKET}/o/{quote(other, safe='')}", b"")
        self._ask("DELETE", _path(name))

    def set_metadata(self, name: str, **metadata: str) -> None:
        """Change what is noted of an object, and not its content.

        Args:
            name: Of the object.
            **metadata: What is noted.
        """
        self._ask("PATCH", _path(name), json.dumps({"metadata": metadata}).encode(), "application/json")

    def delete(self, name: str) -> None:
        """Delete an object, or all in a folder."""
        query = urlencode({"prefix": name})
        for one in json.loads(self._ask("GET", f"/storage/v1/b/{BUCKET}/o?{query}"))["items"]:
            if one["name"] == name or one["name"].startswith(name + "/"):
                self._ask("DELETE", _path(one["name"]))

    def _ask(self, method: str, path: str, body: bytes | None = None, kind: str = "text/plain") -> Any:
        request = Request(self.endpoint + path, body, {"Content-Type": kind}, method=method)
        with urlopen(request, timeout=30) as answer:
            return answer.read()


def _path(name: str) -> str:
    return f"/storage/v1/b/{BUCKET}/o/{quote(name, safe='')}"


def one_page(path: str, body: bytes) -> bytes:
    """The part of a listing that Google would give in one answer; any other answer as it is.

    Args:
        path: Of the request, with its query.
        body: The server's answer, which has all objects.
    """
    query = parse_qs(urlsplit(path).query)
    if "maxResults" not in query or not body:
        return body
    first, most = int(query.get("pageToken", ["0"])[0]), int(query["maxResults"][0])
    items = json.loads(body)["items"]
    page = {"kind": "storage#objects", "items": items[first : first + most]}
    if not page["items"]:
        del page["items"]  # as Google does
    if first + most < len(items):
        page["nextPageToken"] = str(first + most)
    return json.dumps(page).encode()
