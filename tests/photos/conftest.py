"""Real photos for the tests of this package, from wheels that ship them."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image


def _shipped(package: str, *parts: str) -> Path:
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent.joinpath(*parts)


@pytest.fixture(scope="session")
def china_bytes() -> bytes:
    """A 640 × 427 JPEG of a temple."""
    return _shipped("sklearn", "datasets", "images", "china.jpg").read_bytes()


@pytest.fixture(scope="session")
def cat_bytes() -> bytes:
    """A 451 × 300 PNG of a cat."""
    return _shipped("skimage", "data", "chelsea.png").read_bytes()


@pytest.fixture(scope="session")
def cat(cat_bytes: bytes) -> Image.Image:
    image = Image.open(BytesIO(cat_bytes)).convert("RGB")
    image.info = {}  # the file has an sRGB profile, which PIL would write into every copy
    return image


@pytest.fixture(scope="session")
def encoded() -> Callable[..., bytes]:
    """`encoded(image, format, **options)`: the bytes of the file that PIL writes."""

    def encode(image: Image.Image, image_format: str, **options: Any) -> bytes:
        buffer = BytesIO()
        image.save(buffer, image_format, **options)
        return buffer.getvalue()

    return encode


@contextmanager
def _as_unprivileged_user() -> Iterator[None]:
    user = os.geteuid()
    if user == 0:  # in a container; root may read everything
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


@pytest.fixture
def locked() -> Iterator[tuple[Path, Callable[[], AbstractContextManager[None]]]]:
    """A folder that anybody may enter, and a context in which permissions hold, for root too.

    `tmp_path` will not do: pytest keeps it from other users.
    """
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder, _as_unprivileged_user
    for inside in folder.rglob("*"):
        inside.chmod(0o700)
    shutil.rmtree(folder)
