"""The one way to open a file that came with data, and to read TOML from it."""

import os
import threading
from pathlib import Path

import pytest
from helpers.command import bench
from helpers.refusals import refused

from bench.machine.files import (
    MAX_TOML_BYTES,
    open_regular,
    path_exists,
    read_bytes,
    read_text,
    read_toml,
)


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        with refused("regular file", kind=OSError):
            open_regular(path)
    for path in (tmp_path / "none", tmp_path / ("x" * 300), tmp_path / "a\0b"):
        with pytest.raises(OSError):
            open_regular(path)
        assert not path_exists(path)


def test_a_file_exchanged_for_a_pipe_blocks_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe")
    regular = Path(__file__).stat()
    monkeypatch.setattr(os, "stat", lambda path: regular)  # as it was before the exchange
    errors: list[OSError] = []

    def opens() -> None:
        try:
            open_regular(tmp_path / "pipe")
        except OSError as error:
            errors.append(error)

    thread = threading.Thread(target=opens, daemon=True)
    thread.start()
    thread.join(20)
    assert "is not a regular file" in str(errors[0])


def test_a_file_larger_than_the_limit_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(10**12)  # takes no place on the disk
    with refused("200,000,000 bytes", kind=OSError):
        read_bytes(path)
    path.write_bytes("\ufeffé".encode())
    assert read_text(path) == "é"
    with refused("4 bytes", kind=OSError):
        read_bytes(path, max_bytes=4)


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


def test_what_toml_allows_is_read(tmp_path: Path) -> None:
    text = f'x = {2**63 - 1}\na.b.c = ["d.e.f"]\nlong = "{". ".join(["a word"] * 99)}"\n'
    table = read_toml(write(tmp_path, "x.toml", "\ufeff" + text))
    assert table["x"] == 2**63 - 1 and table["a"] == {"b": {"c": ["d.e.f"]}}
