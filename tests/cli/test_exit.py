"""A process ends with its code, once threads and exit handlers are done."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.command import bench_process, python
from helpers.plugins import install

PROGRAM = """
import atexit, os, sys, threading, time

def run():
    atexit.register(lambda: print("exit handler", file=sys.stderr))
    threading.Thread(target=lambda: (time.sleep(0.1), print("thread", file=sys.stderr))).start()
    print("result", end="")
    {ending}

import bench.cli.main
bench.cli.main.main = run
from bench.__main__ import main
main()
"""
FORKED = """
if (child := os.fork()) == 0:
    sys.exit(3)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) + 4)
"""


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        ("sys.exit()", 0),
        ("sys.exit(0)", 0),
        ("sys.exit(3)", 3),
        ("sys.exit('why')", 1),
        ("1 / 0", 1),
        ("raise KeyboardInterrupt", 130),
    ],
)
def test_code_handlers_and_output(ending: str, code: int) -> None:
    done = python(PROGRAM.replace("{ending}", ending))
    assert (done.code, done.out) == (code, "result")
    for word in ("exit handler", "thread"):
        assert word in done.err
    assert ("why" in done.err) == ("why" in ending)
    assert ("ZeroDivisionError" in done.err) == ("/" in ending)


def test_a_forked_child_has_its_own_code() -> None:
    done = python(PROGRAM.replace("{ending}", FORKED.replace("\n", "\n    ")))
    assert done.code == 3 + 4


def test_handlers_from_before_the_command_run(tmp_path: Path) -> None:
    """Coverage of subprocesses and profilers register theirs before any command."""
    log = tmp_path / "log.txt"
    handler = f"lambda: open({str(log)!r}, 'w').write('handler')"
    (tmp_path / "sitecustomize.py").write_text(f"import atexit\natexit.register({handler})\n")
    assert bench_process("list", "datasets", PYTHONPATH=str(tmp_path)).code == 0
    assert log.read_text() == "handler"


def test_what_a_plugin_left_open_is_written(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    install(tmp_path, "logs", f"log = open({str(log)!r}, 'w'); log.write('all of it')")
    variables = {"PYTHONPATH": str(tmp_path), "BENCH_LOAD_PLUGINS": "logs"}
    assert bench_process("list", "datasets", **variables).code == 0
    assert log.read_text() == "all of it"
