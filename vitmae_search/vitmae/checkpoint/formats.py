"""File formats: a weights file is recognised by its first bytes, before anything opens it.

What is not weights is refused by name: the web page that a failed download leaves, the pointer that a clone
without git-lfs leaves, a pickle of a protocol that torch reads with a warning.
"""

from __future__ import annotations

import codecs
import re
import zipfile
from pathlib import Path

from vitmae_search.errors import CheckpointError, display_path
from vitmae_search.regular_file import open_regular_file

_HEAD = 512
_ZIP = b"PK\x03\x04"
_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""How files of torch.save begin that is older than 1.6: a pickled magic number, in protocol 2."""
_PROTOCOL = 2
"""The pickle protocol that torch.save writes, and the only one that torch reads without running code."""
_LFS_POINTER = b"version https://git-lfs"
_MARKUP = re.compile(rb"(\xef\xbb\xbf)?\s*<[!?a-z]", re.IGNORECASE)
_CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
_HOW_TO_CONVERT = "save its state dict as safetensors where you trust it"


def unreadable_error(path: Path, error: OSError) -> CheckpointError:
    """Make the error for a file that cannot be read.

    Args:
        path: The file.
        error: What the operating system says.
    """
    return CheckpointError(f"{display_path(path)} cannot be read: {error.strerror or error}.")


def damaged_error(path: Path) -> CheckpointError:
    """Make the error for a file that begins as its format does, and goes on otherwise."""
    return CheckpointError(f"{display_path(path)} is truncated or damaged.")


def check_safetensors(path: Path) -> None:
    """Raise `CheckpointError` for a file that begins as something else than safetensors."""
    head, where = _read_head(path), display_path(path)
    _refuse_text(head, where)
    if head.startswith((_ZIP, _LEGACY)):
        raise CheckpointError(f"{where} is a torch file, not a safetensors file; name it .pth.")


def check_torch(path: Path) -> None:
    """Raise `CheckpointError` unless torch.save wrote the file and torch can read it without running code."""
    head, where = _read_head(path), display_path(path)
    if _ZIP.startswith(head) or _LEGACY.startswith(head):  # nothing but the beginning, or less
        raise damaged_error(path)
    if head.startswith(_ZIP):
        _check_archive(path)
    elif not head.startswith(_LEGACY):
        _refuse_text(head, where)
        raise CheckpointError(f"{where} {_describe(head)}.")


def _check_archive(path: Path) -> None:
    where = display_path(path)
    try:
        names, start = _open_archive(path)
    except Exception as error:  # a damaged archive can raise anything
        raise damaged_error(path) from error
    if start is None:
        raise CheckpointError(f"{where} is a zip archive that torch.save did not write.")
    if "constants.pkl" in names:
        raise CheckpointError(f"{where} is a TorchScript program, which could run code; {_HOW_TO_CONVERT}.")
    if start[:1] == b"\x80" and start[1:] != bytes([_PROTOCOL]):
        raise CheckpointError(
            f"{where} was saved with pickle protocol {start[-1]}; save it again with torch.save's own, "
            f"{_PROTOCOL}, or as safetensors."
        )


def _open_archive(path: Path) -> tuple[set[str], bytes | None]:
    """The members' names without their folder, and the first two bytes of data.pkl, None without one."""
    with zipfile.ZipFile(path) as archive:
        members = {name.partition("/")[2]: name for name in archive.namelist()}
        if "data.pkl" not in members:
            return set(members), None
        with archive.open(members["data.pkl"]) as member:
            return set(members), member.read(2)


def _describe(head: bytes) -> str:
    """What a file that is no torch file is, as the end of a sentence."""
    if head[0] == 0x80 and len(head) > 1 and head[1] < 6:
        return f"is a Python pickle (protocol {head[1]}), and opening it could run code; {_HOW_TO_CONVERT}"
    if head[4:9] == b"\0\0\0\0{":
        return "is a safetensors file; name it .safetensors"
    return "is not a torch file"


def _refuse_text(head: bytes, where: str) -> None:
    """Raise `CheckpointError` for text: a git-lfs pointer, a web page, or any other."""
    if head.startswith(_LFS_POINTER):
        raise CheckpointError(f"{where} is a git-lfs pointer, not the weights; `git lfs pull` fetches them.")
    if _MARKUP.match(head):
        raise CheckpointError(f"{where} is a web page, not weights; download the file itself.")
    if _is_text(head):
        raise CheckpointError(f"{where} is a text file, not weights.")


def _is_text(head: bytes) -> bool:
    utf16 = head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    decoder = codecs.getincrementaldecoder("utf-16" if utf16 else "utf-8")()
    try:
        text = decoder.decode(head)  # an incremental decoder, since the last character may be cut in two
    except UnicodeDecodeError:
        return False
    return bool(text) and not _CONTROLS.search(text)


def _read_head(path: Path) -> bytes:
    """The first bytes of a file. Raises `CheckpointError` where it cannot be read."""
    try:
        with open_regular_file(path) as file:
            return file.read(_HEAD)
    except OSError as error:
        raise unreadable_error(path, error) from error
