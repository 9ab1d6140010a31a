"""The one way to open a file that came with data."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from helpers.refusals import refused

from bench.machine.files import open_regular, path_exists, read_bytes, read_text


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
