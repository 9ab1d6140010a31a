"""TOML: what cannot be read, printed or stored is refused, by every reader of it, in time."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from helpers.command import bench
from helpers.refusals import refused

from bench.machine.files import MAX_TOML_BYTES, read_toml

WRONG: dict[str, str | bytes] = {
    "nested lists": "x = " + "[" * 3000 + "]" * 3000,
    "lists that the parser takes": "x = " + "[" * 60 + "]" * 60,
    "a key of many parts": ".".join("a" * 20_000) + " = 1",
    "quoted parts": ".".join(['"a"'] * 20_000) + " = 1",
    "decimal digits": "x = " + "9" * 5000,
    "hexadecimal digits": "x = [0x" + "f" * 5000 + "]",
    "not UTF-8": b"x = '\xff'",
    "too large": "#" * (MAX_TOML_BYTES + 1),
}


def write(folder: Path, name: str, content: str | bytes) -> Path:
    file = folder / name
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_read_is_refused(case: str, tmp_path: Path) -> None:
    with refused("x.toml") as error:
        read_toml(write(tmp_path, "x.toml", WRONG[case]))
    assert len(str(error.value)) < 500


@pytest.mark.parametrize("case", ["nested lists", "decimal digits", "hexadecimal digits"])
def test_every_command_reads_toml_the_same_way(case: str, tmp_path: Path) -> None:
    file = write(tmp_path, "x.toml", WRONG[case])
    for command in (["run", file], ["study", file], ["run", "digits", "--config", file]):
        done = bench(*command, "--dry-run")
        assert done.refuses("x.toml")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.toml")
    with refused("x.toml"):
        read_toml(tmp_path / "x.toml")


def test_what_toml_allows_is_read(tmp_path: Path) -> None:
    text = f'x = {2**63 - 1}\na.b.c = ["d.e.f"]\nlong = "{". ".join(["a word"] * 99)}"\n'
    table = read_toml(write(tmp_path, "x.toml", "\ufeff" + text))
    assert table["x"] == 2**63 - 1 and table["a"] == {"b": {"c": ["d.e.f"]}}
