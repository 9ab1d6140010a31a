"""Results that somebody attached to an issue: find the archive, unpack it, gather what was checked.

The workflow `submission.yml` calls the functions one after the other. `address`, `unpack` and
`gather` run in a job that can write nothing; `accept` runs in the one that opens the pull request,
sees JSON alone, and needs nothing but Python. Each refuses with one line.
"""

from __future__ import annotations

import json
import os
import re
import stat
import sys
from pathlib import Path, PurePosixPath
from zipfile import BadZipFile, ZipFile, ZipInfo

RUN_FILES = ("manifest.json", "samples.jsonl", "summary.json", "audit.jsonl")
REPORTED = "reported.json"  # results of papers
MAX_RUNS = 50
MAX_FILE = 2_000_000  # bytes; `bench results validate` allows as many for a run
RUN_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,180}-[0-9a-f]{8}")
ADDRESS = re.compile(r"https://github\.com/user-attachments/files/\d+/[\w.-]+\.zip(?![\w./-])")


class RefusedError(Exception):
    """The submission cannot be taken; the message says why."""


def address(body: str) -> str:
    """Return the address of the only archive that the text of an issue has."""
    found: list[str] = sorted(set(ADDRESS.findall(body)))
    if len(found) != 1:
        raise RefusedError(f"expected one attached .zip file, found {len(found)}")
    return found[0]


def checked_name(name: str) -> PurePosixPath:
    """Return the path of a file that a submission may have: `RUN_ID/FILE`, or `reported.json`."""
    parts = tuple(name.split("/"))
    if parts == (REPORTED,):
        return PurePosixPath(REPORTED)
    if len(parts) == 2 and RUN_ID.fullmatch(parts[0]) and parts[1] in RUN_FILES:
        return PurePosixPath(*parts)
    raise RefusedError(
        f"{name[:80]!r} does not belong there; expected RUN_ID/FILE, where FILE is one of"
        f" {', '.join(RUN_FILES)}, or {REPORTED}"
    )


def unpack(archive: Path, folder: Path) -> None:
    """Write the files of an archive into a new folder; nothing is written if one is refused."""
    contents: dict[PurePosixPath, bytes] = {}
    try:
        with ZipFile(archive) as packed:
            entries = [entry for entry in packed.infolist() if not entry.filename.endswith("/")]
            if len(entries) > MAX_RUNS * len(RUN_FILES):
                raise RefusedError(f"it has {len(entries):,} files, more than {MAX_RUNS} runs have")
            for entry in entries:
                name = checked_name(entry.filename)
                if name in contents:
                    raise RefusedError(f"{name} occurs twice")
                contents[name] = _read(packed, entry)
    except (BadZipFile, EOFError, NotImplementedError, OSError, RuntimeError, ValueError) as error:
        raise RefusedError(f"it is no complete .zip file: {error}") from None
    if not contents:
        raise RefusedError("it has no file")
    folder.mkdir()
    for name, content in contents.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)


def _read(packed: ZipFile, entry: ZipInfo) -> bytes:
    """Return the content of a regular file of at most `MAX_FILE` bytes, whatever its size says."""
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        raise RefusedError(f"{entry.filename} is a link or special, not a file")
    with packed.open(entry) as file:
        content = file.read(MAX_FILE + 1)
    if len(content) > MAX_FILE:
        raise RefusedError(f"{entry.filename} has more than {MAX_FILE:,} bytes")
    return content


def gather(published: Path, unpacked: Path, validated: Path) -> None:
    """Copy from `published` what was added from `unpacked`, by the toolkit's own copying."""
    from bench.machine.files import own_files, take_file

    for name in own_files(unpacked):
        source = published / name
        if source.exists():  # an audit may have had no valid line
            (validated / name).parent.mkdir(parents=True, exist_ok=True)
            take_file(published, name, validated / name)


def accept(validated: Path, published: Path) -> None:
    """Copy regular JSON files of a submission into `published`, and nothing else."""
    contents: dict[PurePosixPath, bytes] = {}
    for parent, folders, files in os.walk(validated):
        for entry in (Path(parent, name) for name in (*folders, *files)):
            mode = entry.lstat().st_mode
            if stat.S_ISDIR(mode):
                continue
            name = checked_name(entry.relative_to(validated).as_posix())
            if not stat.S_ISREG(mode) or entry.lstat().st_size > MAX_FILE:
                raise RefusedError(f"{name} is no regular file of at most {MAX_FILE:,} bytes")
            contents[name] = entry.read_bytes()
            _check_json(name, contents[name])
    if not contents:
        raise RefusedError("nothing was validated")
    for name, content in contents.items():
        target = published / name
        if target.is_symlink() or target.parent.is_symlink():
            raise RefusedError(f"{target} is a link")
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(content)


def _check_json(name: PurePosixPath, content: bytes) -> None:
    lines = content.splitlines() if name.suffix == ".jsonl" else [content]
    try:
        for line in lines:
            json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RefusedError(f"{name} is not JSON: {error}") from None


def main(command: str, *places: str) -> None:
    """Call a function with the paths that the workflow names."""
    paths = [Path(place) for place in places]
    if command == "address":
        print(address(os.environ.get("BODY", "")))
    elif command == "unpack":
        unpack(*paths)
    elif command == "gather":
        gather(*paths)
    else:
        accept(*paths)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except RefusedError as refused:
        sys.exit(f"Refused: {refused}.")
