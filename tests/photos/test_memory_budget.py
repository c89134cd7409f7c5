"""How much memory photos take is known before they are decoded, and bounded."""

import io
import subprocess
import sys
import threading
from pathlib import Path

import pillow_heif
import pytest
from PIL import Image

from vitmae_search.errors import MemoryShort, PhotoTooLarge
from vitmae_search.photos import decode
from vitmae_search.photos.formats import declared_size
from vitmae_search.photos.memory_budget import MemoryBudget, _group_limits, memory_limit

SIDE = 2000
_PEAK = """
import sys
from pathlib import Path
from vitmae_search.photos import decode
data = Path(sys.argv[1]).read_bytes()
shrink_to = int(sys.argv[2]) or None
def status(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name)) * 1024
decode(Path(sys.argv[3]).read_bytes(), shrink_to=shrink_to)  # what is imported does not count
before = status("VmRSS")
Path("/proc/self/clear_refs").write_text("5")
asked = [0]
decode(data, shrink_to=shrink_to, reserve=lambda count: asked.append(count))
print(max(asked), status("VmHWM") - before)
"""


def encoded(image, image_format, **options):
    buffer = io.BytesIO()
    if image_format == "HEIF":
        pillow_heif.from_pillow(image).save(buffer, quality=50)
    else:
        image.save(buffer, image_format, **options)
    return buffer.getvalue()


def picture(side, mode="RGB"):
    small = Image.effect_noise((64, 64), 60).convert(mode)
    return small.resize((side, side), Image.Resampling.NEAREST)


@pytest.mark.parametrize(("image_format", "mode", "options", "shrink_to"), [
    ("JPEG", "RGB", {}, 0),
    ("JPEG", "RGB", {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"}, 0),
    ("JPEG", "RGB", {"progressive": True, "subsampling": 0}, 320),
    ("JPEG", "CMYK", {"progressive": True}, 0),
    ("PNG", "RGBA", {}, 0),
    ("WEBP", "RGB", {}, 0),
    ("WEBP", "RGBA", {"lossless": True, "quality": 0, "method": 0}, 0),
    ("TIFF", "CMYK", {}, 0),
    ("GIF", "P", {}, 0),
    ("AVIF", "RGBA", {"speed": 10}, 0),
    ("HEIF", "RGB", {}, 0),
])  # fmt: skip
def test_no_photo_takes_more_than_it_asked_for(tmp_path, image_format, mode, options, shrink_to):
    for name, side in (("large", SIDE), ("small", 64)):
        image = picture(side, "RGB").convert(mode)
        (tmp_path / name).write_bytes(encoded(image, image_format, **options))
    arguments = [tmp_path / "large", str(shrink_to), tmp_path / "small"]
    done = subprocess.run(
        [sys.executable, "-c", _PEAK, *arguments], capture_output=True, text=True, check=True
    )
    asked, taken = map(int, done.stdout.split())
    uncounted, of_the_allocator = 32_000_000, 2**20
    assert taken <= max(asked, uncounted) + of_the_allocator


@pytest.mark.parametrize(("image_format", "options"), [
    ("WEBP", {}), ("WEBP", {"lossless": True}), ("WEBP", {"exif": b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0"}),
    ("AVIF", {}), ("HEIF", {}),
])  # fmt: skip
def test_the_size_is_read_without_the_decoder(image_format, options):
    image = Image.new("RGB", (301, 203), "red")
    width, height = declared_size(encoded(image, image_format, **options), image_format)
    assert 301 <= width <= 302, "a HEIF has whole blocks"
    assert 203 <= height <= 204


def test_other_formats_and_broken_headers_declare_none():
    assert declared_size(encoded(Image.new("RGB", (9, 9)), "PNG"), "PNG") is None
    webp = encoded(Image.new("RGB", (9, 9)), "WEBP")
    assert declared_size(webp[:20], "WEBP") is None
    assert declared_size(webp[:12] + b"VP9 " + webp[16:], "WEBP") is None
    assert declared_size(b"", "AVIF") is None


def test_a_webp_with_more_pixels_than_allowed_is_not_even_opened():
    webp = bytearray(encoded(Image.new("RGB", (9, 9)), "WEBP", exif=b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0"))
    assert webp[12:16] == b"VP8X"
    webp[24:30] = (16_000).to_bytes(3, "little") * 2
    with pytest.raises(PhotoTooLarge, match="16001 × 16001 pixels"):
        decode(bytes(webp))


def test_what_can_never_be_had_is_said_with_what_to_do():
    with pytest.raises(MemoryShort) as error:
        decode(encoded(picture(SIDE), "WEBP"), path="big.webp", reserve=lambda count: 50_000_000)
    assert error.value.reason == (
        "2000 × 2000 pixels: decoding them from WEBP takes about 0.1 GB of memory, more than the 0.1 GB that "
        "photos may take here; save it smaller, or index it on a machine with more"
    )


def test_a_budget_is_never_exceeded_and_all_have_their_turn():
    budget = MemoryBudget(100)
    most, lock, used = [0], threading.Lock(), [0]

    def work(count):
        assert budget.acquire(count)
        with lock:
            used[0] += count
            most[0] = max(most[0], used[0])
        with lock:
            used[0] -= count
        budget.release(count)

    threads = [threading.Thread(target=work, args=(count,)) for count in (60, 50, 100, 1, 99, 40) * 20]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert most[0] <= 100
    assert not budget.acquire(101)
    assert budget.acquire(100)


def test_the_limit_of_the_control_group_counts(tmp_path):
    own = tmp_path / "cgroup"
    own.write_text("4:memory:/old/group\n1:cpu:/x\n0::/outer/inner\n")
    for folder, file, text in [
        ("outer", "memory.max", "3000\n"),
        ("outer/inner", "memory.max", "max\n"),
        ("memory/old", "memory.limit_in_bytes", "5000\n"),
        ("memory/old/group", "memory.limit_in_bytes", "9223372036854771712\n"),
    ]:
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / file).write_text(text)
    assert min(_group_limits(tmp_path, own)) == 3000
    assert 5000 in _group_limits(tmp_path, own)
    assert _group_limits(tmp_path, Path("/nowhere")) == []
    assert memory_limit() > 0
