"""Photos as they should not be: mutated files of all formats, crafted oddities, files that change."""

from __future__ import annotations

import io
import os
import random
import socket
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

Seeds = dict[str, bytes]


def whole_photos() -> Seeds:
    """Small photos by file name, of every format that is read, in several of its ways."""
    pillow_heif = __import__("pillow_heif")
    pillow_heif.register_heif_opener()
    small = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    rgb = Image.fromarray(small).resize((64, 48), Image.Resampling.BICUBIC)
    frames = [rgb, rgb.rotate(90).resize(rgb.size)]
    exif = Image.Exif()
    exif.update({0x0112: 6, 0x0110: "Camera", 0x0132: "2015:06:07 08:09:10"})
    ways: list[tuple[str, Image.Image, dict[str, object]]] = [
        ("baseline.jpg", rgb, {"quality": 90, "exif": exif}),
        ("progressive.jpg", rgb, {"progressive": True, "icc_profile": b"x" * 300}),
        ("grey.jpg", rgb.convert("L"), {"comment": b"a comment"}),
        ("cmyk.jpg", rgb.convert("CMYK"), {}),
        ("rgb.png", rgb, {"exif": exif}),
        ("alpha.png", rgb.convert("RGBA"), {}),
        ("palette.png", rgb.convert("P"), {"transparency": 3}),
        ("deep.png", Image.fromarray(np.arange(3072, dtype=np.uint16).reshape(48, 64) * 21), {}),
        ("animated.png", rgb, {"save_all": True, "append_images": frames}),
        ("lossy.webp", rgb, {"quality": 60, "exif": exif}),
        ("lossless.webp", rgb.convert("RGBA"), {"lossless": True}),
        ("animated.webp", rgb, {"save_all": True, "append_images": frames}),
        ("animated.gif", rgb, {"save_all": True, "append_images": frames}),
        ("plain.tiff", rgb, {}),
        ("lzw.tiff", rgb, {"compression": "tiff_lzw"}),
        ("deflate.tiff", rgb.convert("RGBA"), {"compression": "tiff_adobe_deflate"}),
        ("jpeg.tiff", rgb, {"compression": "jpeg"}),
        ("packbits.tiff", rgb.convert("L"), {"compression": "packbits"}),
        ("fax.tiff", rgb.convert("1"), {"compression": "group4"}),
        ("rgb.bmp", rgb, {}),
        ("palette.bmp", rgb.convert("P"), {}),
        ("photo.avif", rgb, {"quality": 60}),
        ("photo.heic", rgb, {"quality": 60}),
    ]
    photos = {}
    for name, image, options in ways:
        stream = io.BytesIO()
        kind = {"jpg": "JPEG", "tiff": "TIFF", "heic": "HEIF"}.get(
            name.split(".")[1], name.split(".")[1].upper()
        )
        image.save(stream, kind, **options)  # type: ignore[arg-type]
        photos[name] = stream.getvalue()
    return photos


def mutate(data: bytes, draw: random.Random) -> bytes:
    """Change a file in one of many ways, most of them in its first bytes, where decoders decide.

    Args:
        data: The whole file.
        draw: Decides.
    """
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 5))):
        place = draw.randrange(min(len(changed), draw.choice((64, 1024, 1 << 30))))
        match draw.randrange(6):
            case 0:
                changed[place] ^= 1 << draw.randrange(8)
            case 1:
                changed[place] = draw.choice((0, 1, 0x7F, 0x80, 0xFF))
            case 2:
                extreme = draw.choice((0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, draw.getrandbits(32)))
                order = draw.choice("<>")
                changed[place : place + 4] = struct.pack(f"{order}I", extreme)
            case 3:
                del changed[max(16, place) :]
            case 4:
                piece = changed[place : place + draw.randint(1, 200)]
                changed[place:place] = piece * draw.randint(1, 20)
            case _:
                del changed[place : place + draw.randint(1, 50)]
        if not changed:
            return bytes(data[:1])
    return bytes(changed)


def write_mutations(folder: Path, count: int, seed: int, whole: Seeds) -> None:
    """Write mutated photos.

    Args:
        folder: Where to.
        count: How many.
        seed: Of what is drawn.
        whole: What is mutated, by file name.
    """
    folder.mkdir(parents=True)
    names = sorted(whole)
    for number in range(count):
        draw = random.Random(f"{seed} {number}")
        name = names[number % len(names)]
        (folder / f"{number:05d}-{name}").write_bytes(mutate(whole[name], draw))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(width: int, height: int, *chunks: bytes) -> bytes:
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + _chunk(b"IEND", b"")


def oddities(whole: Seeds) -> Iterator[tuple[bytes, bytes]]:
    """Names and contents of files that a person may have, or be sent.

    Args:
        whole: Whole photos by name.
    """
    jpeg, rows = whole["baseline.jpg"], zlib.compress(bytes(1 << 24))
    yield b"empty.jpg", b""
    yield b"one-byte.png", b"\x89"
    yield b"text.jpg", b"this is no photo\n" * 100
    yield b"page.gif", b"<html><body>GIF89a</body></html>"
    yield b"bomb.png", _png(60_000, 60_000, _chunk(b"IDAT", rows))
    yield b"wide.png", _png(2_000_000_000, 1, _chunk(b"IDAT", rows))
    yield b"nothing-wide.png", _png(0, 7, _chunk(b"IDAT", rows))
    yield (
        b"text-bomb.png",
        _png(1, 1, _chunk(b"zTXt", b"a\0\0" + rows), _chunk(b"IDAT", zlib.compress(bytes(4)))),
    )
    yield b"no-data.png", _png(64, 48)
    yield b"line.png", _png(30_000, 1, _chunk(b"IDAT", zlib.compress(bytes(90_001))))
    yield b"wrong-suffix.png", jpeg
    yield b"twice.jpg", jpeg + jpeg
    yield b"zeros-behind.jpg", jpeg + bytes(1 << 20)
    yield b"many-markers.jpg", jpeg[:2] + b"\xff\xfe\x00\x02" * 100_000 + jpeg[2:]
    yield b"loop.tiff", b"II*\0\x08\0\0\0\x00\x00\x08\0\0\0"
    yield b"far.tiff", b"II*\0\xf0\xff\xff\xff"
    yield b"many-entries.tiff", b"MM\0*\0\0\0\x08\xff\xff" + bytes(1000)
    yield b"huge.bmp", whole["rgb.bmp"][:18] + struct.pack("<ii", 1 << 30, 1 << 30) + whole["rgb.bmp"][26:]
    yield b"upside-down.bmp", whole["rgb.bmp"][:22] + struct.pack("<i", -48) + whole["rgb.bmp"][26:]
    yield b"endless.gif", whole["animated.gif"][:-1] * 50
    yield b"not-utf8-\xff\xfe.jpg", jpeg
    yield b"line\nbreak.jpg", jpeg
    yield b"-rf.jpg", jpeg
    yield b"'; DROP TABLE photos; --.jpg", jpeg
    yield "\u202egpj.exe.jpg".encode(), jpeg
    yield b"n" * 251 + b".jpg", jpeg


def write_oddities(folder: Path, whole: Seeds) -> None:
    """Write them, and what is no ordinary file at all.

    Args:
        folder: Where to.
        whole: Whole photos by name.
    """
    folder.mkdir(parents=True)
    for name, data in oddities(whole):
        Path(os.fsdecode(os.path.join(os.fsencode(folder), name))).write_bytes(data)
    (folder / "folder.jpg").mkdir()
    os.mkfifo(folder / "pipe.jpg")
    (folder / "itself.jpg").symlink_to("itself.jpg")
    (folder / "nowhere.jpg").symlink_to("not-there.jpg")
    (folder / "device.jpg").symlink_to("/dev/zero")
    (folder / "above").symlink_to("..")
    place = os.getcwd()
    os.chdir(folder)  # a socket's path may have some hundred bytes
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket.jpg")
    os.chdir(place)
