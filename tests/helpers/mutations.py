"""Seeded damage: to bytes, to JSON and TOML documents, and to what lies in a file's place."""

import copy
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ODD_VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 3, 7, 2**31, 2**63, -(2**63), 10**400, 0.5, 1e308, float("nan")),
    *("", "x", "red", "../../outside", "/etc/passwd", "/dev/zero", "hf:evil/beacon"),
    *("a" * 70_000, "\x1b[31m", "\u2028", "\x00", "\ud800", "[/bold]", "<script>"),
    *([], {}, [[]], [None] * 3, ["red"] * 3, {"red": 1}, [1e400]),
)
BLOCK = 512


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Return `data` with one kind of damage that disks, transfers and editors do."""
    if not data:
        return rng.randbytes(rng.randrange(1, 100))
    place, other = sorted((rng.randrange(len(data)), rng.randrange(len(data))))
    block = place // BLOCK * BLOCK
    size = len(data[block : block + BLOCK])
    kinds = {
        "flip": _flipped(data, place, 1 << rng.randrange(8)),
        "flips": _flipped(_flipped(data, place, rng.randrange(1, 256)), other, 255),
        "cut": data[:place],
        "cut out": data[:place] + data[other:],
        "zeros": data[:block] + bytes(size) + data[block + size :],
        "noise": data[:place] + rng.randbytes(other - place) + data[other:],
        "insert": data[:place] + rng.randbytes(rng.randrange(1, 40)) + data[place:],
        "twice": data + data,
        "block twice": data[: block + BLOCK] + data[block:],
        "empty": b"",
        "tail": data + rng.randbytes(BLOCK),
    }
    return kinds[rng.choice(sorted(kinds))]


def _flipped(data: bytes, place: int, mask: int) -> bytes:
    return data[:place] + bytes([data[place] ^ mask]) + data[place + 1 :]


def edited(document: Any, rng: random.Random) -> Any:
    """Return a copy of a document with one value replaced, removed, repeated or buried."""
    changed = copy.deepcopy(document)
    containers = [c for c in _containers(changed) if c]
    if not containers:
        return rng.choice(ODD_VALUES)
    holder = rng.choice(containers)
    key = rng.choice(sorted(holder)) if isinstance(holder, dict) else rng.randrange(len(holder))
    action = rng.choice(("replace", "replace", "replace", "remove", "bury", "repeat", "reverse"))
    if action == "remove":
        del holder[key]
    elif action == "bury":
        for _ in range(rng.choice((1, 3, 200))):
            holder[key] = [holder[key]]
    elif action == "repeat":
        holder[f"{key}2" if isinstance(holder, dict) else slice(0, 0)] = [holder[key]] * 3
    elif action == "reverse" and isinstance(holder[key], list):
        holder[key].reverse()
    else:
        holder[key] = copy.deepcopy(rng.choice(ODD_VALUES))
    return changed


def _containers(document: Any) -> Iterator[Any]:
    if isinstance(document, dict | list):
        yield document
        for value in document.values() if isinstance(document, dict) else document:
            yield from _containers(value)


def as_json(document: Any) -> bytes:
    """Return a document as JSON, with what Python adds to it: NaN and lone surrogates."""
    return json.dumps(document).encode()


def as_toml(table: dict[str, Any]) -> bytes:
    """Return a document as TOML; what TOML cannot hold is written as JSON, which it refuses."""
    plain = [f"{json.dumps(k)} = {_inline(v)}" for k, v in table.items()]
    return "\n".join(plain).encode("utf-8", "surrogatepass")


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        inner = ", ".join(f"{json.dumps(k)} = {_inline(v)}" for k, v in value.items())
        return "{ " + inner + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_inline, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def replaced(path: Path, outside: Path, rng: random.Random) -> None:
    """Put something else in the place of a file."""
    path.unlink()
    kind = rng.choice(("fifo", "folder", "outside", "dangling", "circle", "device", "zero", "none"))
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind != "none":
        path.symlink_to({"dangling": Path("nowhere"), "circle": path}.get(kind, outside))


def write_unsealed(path: Path, document: dict[str, Any]) -> None:
    """Write a document of a side file as in format 1, without a seal."""
    content = {name: value for name, value in document.items() if name != "seal"}
    path.write_text(json.dumps({**content, "format": 1}))
