"""Read the members of a tar, and raise an error if any could be missed.

Python's `tarfile` silently treats a damaged header, or a block of zeros between two members, as the
end of the archive. It follows negative sizes backwards and expands sparse members. Here, `tarfile`
only parses each header; the structure of the archive is checked.
"""

import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

BLOCK = tarfile.BLOCKSIZE
MAX_HEADER = 1_000_000  # bytes of a long name or of extended headers
MAX_PADDING = 100_000_000  # bytes of zeros at the end; GNU tar pads to 10 KiB
SIZE_DIGITS = 18  # maximum number of digits of a size
_EXTENDED = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
_LONG = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)


@dataclass(frozen=True)
class TarMember:
    """A member of a tar. Bytes of its name that are not UTF-8 are lone surrogates."""

    name: str
    size: int
    is_file: bool
    is_link: bool


def read_members(file: BinaryIO) -> Iterator[TarMember]:
    """Yield the members of a tar in order, with the file positioned at the member's content.

    Read the content before requesting the next member. Raises TarError if a member is invalid or
    could be missed.
    """
    total = os.fstat(file.fileno()).st_size
    place, long_name = 0, None
    extended: dict[str, str] = {}
    everywhere: dict[str, str] = {}
    while True:
        file.seek(place)
        block = file.read(BLOCK)
        if len(block) < BLOCK:
            raise tarfile.ReadError("the blocks that end a tar are missing")
        if not any(block):
            _check_end(file, total - place)
            return
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        is_extended, is_long = header.type in _EXTENDED, header.type in _LONG
        facts = {} if is_extended or is_long else {**everywhere, **extended}
        size = _size(facts["size"]) if "size" in facts else header.size
        if header.type == tarfile.GNUTYPE_SPARSE or any(key.startswith("GNU.sp") for key in facts):
            raise tarfile.ReadError(f"the member at byte {place:,} is sparse, which is not read")
        if size < 0:
            raise tarfile.ReadError(f"the member at byte {place:,} has a negative size")
        has_content = header.isreg() or header.type not in tarfile.SUPPORTED_TYPES
        if is_extended or is_long or has_content:
            place += size + -size % BLOCK
        place += BLOCK
        if place > total:
            raise tarfile.ReadError("unexpected end of data")
        if is_extended or is_long:
            if size > MAX_HEADER:
                raise tarfile.ReadError(f"a name or header has more than {MAX_HEADER:,} bytes")
            content = file.read(size)
            if is_long:
                if header.type == tarfile.GNUTYPE_LONGNAME:
                    long_name = content.split(b"\0")[0].decode("utf-8", "surrogateescape")
            elif header.type == tarfile.XGLTYPE:
                everywhere |= _extended(content)
            else:
                extended = _extended(content)
            continue
        name = facts.get("path", long_name or header.name)
        yield TarMember(name, size, header.isreg(), header.islnk() or header.issym())
        long_name, extended = None, {}


def _size(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > SIZE_DIGITS:
        raise tarfile.ReadError(f"invalid size {text[:40]!r}: expected a number of bytes")
    return int(text)


def _extended(content: bytes) -> dict[str, str]:
    """Parse the records of an extended header, each `LENGTH KEY=VALUE` and a line feed."""
    facts: dict[str, str] = {}
    place = 0
    while place < len(content):
        length, space, _ = content[place : place + SIZE_DIGITS].partition(b" ")
        end = place + int(length) if length.isdigit() else place
        record = content[place + len(length) + len(space) : end]
        key, equals, value = record.partition(b"=")
        if not (key and equals and record.endswith(b"\n")) or end > len(content):
            raise tarfile.ReadError("an extended header is damaged")
        facts[key.decode("utf-8", "replace")] = value[:-1].decode("utf-8", "surrogateescape")
        place = end
    return facts


def _check_end(file: BinaryIO, rest: int) -> None:
    if rest > MAX_PADDING:
        raise tarfile.ReadError(f"more than {MAX_PADDING:,} bytes follow the end of the archive")
    if file.read(rest).strip(b"\0"):
        raise tarfile.ReadError(
            "data follows the end of the archive: another tar, or members behind a damaged block"
        )
    if rest % BLOCK:
        raise tarfile.ReadError("its size is not a multiple of the block size: it is cut off")
