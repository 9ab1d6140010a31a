"""Ordinary use of a terminal: interrupts, closed pipes, full disks, few characters and columns."""

import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest
from helpers.command import PATIENCE, bench_process, python
from helpers.plugins import install

from bench.cli.output import Descriptor, prepare_streams, say

LINE = "a – b → é · 猫\n"


def stream(raw: Descriptor) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BufferedWriter(raw), "utf-8", write_through=True)


def test_a_reader_that_leaves_ends_nothing() -> None:
    read, write = os.pipe()
    raw = Descriptor(write, "w")
    out = stream(raw)
    out.write("first\n")
    out.flush()
    assert os.read(read, 100) == b"first\n"
    os.close(read)
    for _ in range(3):
        out.write("more\n" * 100_000)
        out.flush()
    assert raw.failure is None
    out.close()


def test_a_full_disk_is_remembered_and_ends_nothing() -> None:
    raw = Descriptor(os.open("/dev/full", os.O_WRONLY), "w")
    out = stream(raw)
    out.write("text")
    out.flush()
    out.write("more")
    out.close()
    assert raw.failure is not None and "space" in str(raw.failure)


def test_a_pipe_that_does_not_block_gets_every_line() -> None:
    read, write = os.pipe()
    os.set_blocking(write, False)
    got: list[bytes] = []
    reader = Thread(target=lambda: got.extend(iter(lambda: os.read(read, 5_000), b"")))
    out = stream(Descriptor(write, "w"))
    reader.start()
    out.write("line\n" * 100_000)
    out.close()
    reader.join()
    os.close(read)
    assert b"".join(got) == b"line\n" * 100_000


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "stdout", sys.stdout)  # each is put back
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    yield


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("utf-8", LINE),
        ("latin-1", "a - b -> é · \\u732b\n"),
        ("ascii", "a - b -> \\xe9 - \\u732b\n"),
    ],
)
def test_a_terminal_of_few_characters(encoding: str, shown: str, streams: None) -> None:
    read, write = os.pipe()
    terminal = sys.stdout = os.fdopen(write, "w", encoding=encoding)
    prepare_streams()
    sys.stdout.write(LINE)
    sys.stdout.flush()
    assert os.read(read, 100).decode(encoding) == shown
    terminal.close()
    os.close(read)


def test_closed_streams(streams: None) -> None:
    sys.stdout = sys.stderr = None
    prepare_streams()
    assert sys.stdout is not None and sys.stderr is not None
    sys.stdout.write(LINE)
    sys.stderr.write(LINE)


@pytest.mark.long
def test_the_command_says_that_its_output_is_lost() -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123 - a device
        command = [sys.executable, "-m", "bench", "list", "strategies"]
        done = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=PATIENCE
        )
        assert done.returncode == 1
        assert done.stderr == "Error: The output cannot be written: No space left on device.\n"
        command.append("--json")
        done = subprocess.run(
            command, stderr=full, stdout=subprocess.PIPE, text=True, timeout=PATIENCE
        )
        assert done.returncode == 0 and done.stdout.startswith("[")


def test_json_in_any_encoding() -> None:
    done = bench_process("list", "strategies", "--json", PYTHONIOENCODING="ascii")
    assert done.code == 0 and isinstance(done.json, list)


def test_messages_break_between_words_and_commands_do_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", "20")
    say("Stability is no probability.\n\nRun bench run digits --limit 20 --fresh.")
    shown = "Stability is no\nprobability.\n\nRun bench run digits --limit 20 --fresh.\n"
    assert terminal.getvalue() == shown


BY_SIGNAL = [(signal.SIGINT, 130, "Interrupted"), (signal.SIGTERM, 143, "Terminated")]

# Signals its own process where it is told to, and swallows what comes of it.
SWALLOWS = """
import os
try:
    os.kill(os.getpid(), int(os.environ["SIGNAL"]))
except BaseException:
    pass
"""


DYING = """
import os, signal
from bench import interrupts

class Dying:
    def __init__(self, end): self.end = end
    def __del__(self): self.end()

interrupts.listen()
interrupts.begin_work()
Dying(lambda: os.kill(os.getpid(), signal.SIGINT))
Dying(lambda: 1 / 0)
try:
    interrupts.check()
except interrupts.Interrupt:
    print("raised again")
"""


def test_one_that_python_drops_is_raised_again_without_a_traceback() -> None:
    done = python(DYING)
    assert (done.code, done.out) == (0, "raised again\n")
    assert "ZeroDivisionError" in done.err and "Interrupt" not in done.err


@pytest.mark.parametrize(("number", "code", "word"), BY_SIGNAL)
def test_before_the_command_is_imported(number: int, code: int, word: str) -> None:
    started = "from bench import interrupts; interrupts.listen()"
    program = f"import os; {started}; os.kill(os.getpid(), {int(number)}); print('went on')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr == f"Error: {word} before anything was done.\n"


@pytest.mark.parametrize(("number", "code", "word"), BY_SIGNAL)
def test_an_import_that_swallows_it(number: int, code: int, word: str, tmp_path: Path) -> None:
    install(tmp_path, "swallows", SWALLOWS)
    done = bench_process(
        *("list", "datasets"),
        PYTHONPATH=str(tmp_path),
        BENCH_LOAD_PLUGINS="swallows",
        SIGNAL=str(int(number)),
    )
    assert (done.code, done.out) == (code, "") and f"Error: {word}." in done.err
    assert "Traceback" not in done.err
