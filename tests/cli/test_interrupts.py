"""Ctrl-C and SIGTERM end a command with 130 and 143 at any moment, and stdout is kept for JSON.

The processes signal themselves, so that no test depends on how fast a machine is.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.command import bench_process, python
from helpers.plugins import install

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
