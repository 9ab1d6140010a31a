"""Mutants of eight rooms of the toolkit, and the test that catches each of them.

    python tools/mutants.py draw --seed 77 --per-room 25
    python tools/mutants.py check [--numbers 0-99] [--tests FILE]

A mutant is one change in the body of a function: another comparison, operator or number, a
condition that is reversed, a statement that is left out. `mutants.json` lists them with the line
where they were drawn; a line that has moved is found by its text, and one that was changed since is
"gone". `check` applies one mutant at a time to a copy of HEAD. A mutant is caught if a test of the
default `pytest` fails (or does not end) with it and passes without it. The test that caught it
before is run alone; if there is none, or it catches it no more, the tests that FILE names for its
number ({"12": ["tests/…::test_…"]}), or those of its room. Each mutant may use SECONDS of processor
time, so that one that is not caught may be caught by a slower test.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from itertools import accumulate
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LIST = ROOT / "tools/mutants.json"
ROOMS = {  # the folder of a room's code → that of its tests
    "bench/engine": "tests/engine",
    "bench/stats": "tests/stats",
    "bench/store": "tests/store",
    "bench/inputs": "tests/inputs",
    "bench/running": "tests/running",
    "bench/discovery": "tests/discovery",
    "bench/machine": "tests/machine",
    "plugins/bench_plugins/backbones": "tests/plugins/backbones",
}
SECONDS, WAIT = 100, 600  # of processor time, and of the clock, for all tests of a mutant
CONFTEST, USAGE_ERROR = "tests/conftest.py", 4  # what refuses to begin, and how pytest then ends
HEAVY = "torch diffusers transformers datasets scipy.stats matplotlib.pyplot hypothesis rich pandas"
COMPARED = {"<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "!=", "!=": "=="}
COMPARED |= {"in": "not in", "not in": "in", "is": "is not", "is not": "is"}
OPERATORS = {"+": "-", "-": "+", "*": "/", "/": "*", "//": "*", "and": "or", "or": "and"}


@dataclass(frozen=True)
class Mutant:
    """A change of `before` into `after` at a column of a line's stripped text."""

    file: str
    line: int
    text: str
    column: int
    before: str
    after: str
    caught_by: str | None = None

    def start(self, source: str) -> int | None:
        """Return where the change begins in a source, or None if the line has left it."""
        lines = source.splitlines(keepends=True)
        same = [i for i, line in enumerate(lines) if line.strip() == self.text]
        if not same:
            return None
        at = min(same, key=lambda i: abs(i + 1 - self.line))
        indent = len(lines[at]) - len(lines[at].lstrip())
        start = sum(map(len, lines[:at])) + indent + self.column
        return start if source.startswith(self.before, start) else None

    def applied(self, source: str) -> str | None:
        """Return the source with the change."""
        start = self.start(source)
        if start is None:
            return None
        return source[:start] + self.after + source[start + len(self.before) :]


class Source:
    """A module's text, with the places of its nodes."""

    def __init__(self, file: Path) -> None:
        self.text = file.read_text("utf-8")
        self.lines = self.text.splitlines(keepends=True)
        self.starts = [0, *accumulate(map(len, self.lines))]
        self.tree = ast.parse(self.text)

    def at(self, line: int, column: int) -> int:
        """Return the offset of a place whose column counts bytes."""
        return self.starts[line - 1] + len(self.lines[line - 1].encode()[:column].decode())

    def span(self, node: Any) -> tuple[int, int]:
        """Return where a node begins and ends."""
        return self.at(node.lineno, node.col_offset), self.at(node.end_lineno, node.end_col_offset)

    def between(self, left: ast.AST, right: ast.AST, table: dict[str, str]) -> Iterator[Any]:
        """Yield the change of the operator between two nodes."""
        start, end = self.span(left)[1], self.span(right)[0]
        operator = re.search(r"[^\s()]+( (in|not)\b)?", self.text[start:end])
        if operator and (after := table.get(operator.group())):
            yield start + operator.start(), operator.group(), after

    def changes(self, node: ast.AST) -> Iterator[tuple[int, str, str]]:
        """Yield the changes of a node: where, before and after."""
        match node:
            case ast.Compare(left=left, comparators=[right]):
                yield from self.between(left, right, COMPARED)
            case ast.BinOp(left=left, right=right):
                yield from self.between(left, right, OPERATORS)
            case ast.BoolOp(values=[left, right, *_]):
                yield from self.between(left, right, OPERATORS)
            case ast.UnaryOp(op=ast.Not()):
                start = self.span(node)[0]
                yield start, "not ", ""
            case ast.Constant(value=int(number)) if not isinstance(number, bool):
                start, end = self.span(node)
                yield start, self.text[start:end], str(number + 1)
            case ast.If(test=test) | ast.IfExp(test=test):
                start, end = self.span(test)
                yield start, self.text[start:end], f"not ({self.text[start:end]})"
            case ast.Return(value=ast.expr() as value):
                start, end = self.span(value)
                yield start, self.text[start:end], "None"
            case ast.Raise() | ast.Expr(value=ast.Call()):
                start, end = self.span(node)
                yield start, self.text[start:end], "pass"

    def mutants(self, file: str) -> dict[str, list[Mutant]]:
        """Return the mutants of all functions, by the kind of what they change."""
        functions = [n for n in ast.walk(self.tree) if isinstance(n, ast.FunctionDef)]
        nodes = {n for function in functions for part in function.body for n in ast.walk(part)}
        nodes -= {n for text in nodes if isinstance(text, ast.JoinedStr) for n in ast.walk(text)}
        kinds = defaultdict(list)
        for node in nodes:
            for start, before, after in self.changes(node):
                line = sum(place <= start for place in self.starts)
                text = self.lines[line - 1].strip()
                column = start - self.starts[line - 1] - self.lines[line - 1].index(text)
                mutant = Mutant(file, line, text, column, before, after)
                assert mutant.start(self.text) == start, mutant
                kinds[type(node).__name__].append(mutant)
        return kinds


def drawn(seed: int, per_room: int) -> list[Mutant]:
    """Draw mutants: of every room as many, and in it of every kind about as many."""
    generator = random.Random(seed)
    mutants = []
    for room in ROOMS:
        kinds: dict[str, list[Mutant]] = defaultdict(list)
        for file in sorted((ROOT / room).rglob("*.py")):
            name = file.relative_to(ROOT).as_posix()
            for kind, those in Source(file).mutants(name).items():
                kinds[kind] += those
        for kind in kinds:
            kinds[kind].sort(key=lambda m: (m.file, m.line, m.column, m.after))
        for _ in range(per_room):
            kind = generator.choice(sorted(kind for kind in kinds if kinds[kind]))
            mutants.append(kinds[kind].pop(generator.randrange(len(kinds[kind]))))
    return sorted(mutants, key=lambda m: (m.file, m.line, m.column))


def stored() -> tuple[list[Mutant], int]:
    """Return the list, and its seed."""
    content = json.loads(LIST.read_text("utf-8"))
    return [Mutant(**fields) for fields in content["mutants"]], content["seed"]


def store(mutants: Sequence[Mutant], seed: int) -> None:
    """Write the list, one mutant per line."""
    lines = ",\n".join(json.dumps(asdict(m), ensure_ascii=False) for m in mutants)
    LIST.write_text(f'{{"seed": {seed}, "mutants": [\n{lines}\n]}}\n', "utf-8")


class Reporter:
    """A plugin of pytest that writes which tests begin, and which fail."""

    def __init__(self, file: Path) -> None:
        self.file = file.open("a", encoding="utf-8", buffering=1)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Write that a test begins."""
        self.file.write(f"begins\t{nodeid}\n")

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Write that a test fails."""
        if report.failed:
            self.file.write(f"fails\t{report.nodeid}\n")

    pytest_collectreport = pytest_runtest_logreport


def failing(tests: Sequence[str], events: Path) -> str | None:
    """Run tests in a fork of this process; return the first that fails or does not end.

    CONFTEST is returned if no test began, because it failed.
    """
    events.write_text("")
    child = os.fork()
    if not child:
        os.setpgid(0, 0)
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        signal.alarm(WAIT)
        for stream in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
        options = ["-x", "-p", "no:cacheprovider", "-p", "no:xdist", "--hypothesis-seed=0"]
        code = import_module("pytest").main([*options, *tests], plugins=[Reporter(events)])
        os._exit(int(code))
    _, status = os.waitpid(child, 0)
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # what its tests left
    lines = [line.partition("\t") for line in events.read_text("utf-8").splitlines()]
    failed = [name for word, _, name in lines if word == "fails"]
    unfinished = [lines[-1][2]] if lines and not os.WIFEXITED(status) else []
    refused = os.WIFEXITED(status) and os.WEXITSTATUS(status) == USAGE_ERROR
    return next(iter(failed + unfinished + [CONFTEST] * refused), None)


def catching(mutant: Mutant, others: Sequence[str], scratch: Path) -> str | None:
    """Return a test that fails with the mutant and passes without it."""
    file = Path(mutant.file)
    source, stat = file.read_text("utf-8"), file.stat()
    changed = mutant.applied(source)
    if changed is None:
        return "gone"
    for tests in ([mutant.caught_by] if mutant.caught_by else [], list(others)):
        while tests:
            file.write_text(changed, "utf-8")
            test = failing(tests, scratch)
            if (
                test is not None and test not in tests
            ):  # alone, because all may have run out of time
                test = failing([test], scratch)
            file.write_text(source, "utf-8")
            os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # its compiled form is right
            if test is None:
                break
            if failing([test], scratch) is None:
                return test
            tests = [name for name in tests if name != test and name in others and "::" in name]
    return None


def check(numbers: Sequence[int], named: dict[str, list[str]]) -> None:
    """Look for tests that catch some mutants, and write them into the list."""
    for name in HEAVY.split():
        import_module(name)
    with tempfile.TemporaryDirectory() as scratch:
        packed = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, check=True, stdout=-1).stdout
        subprocess.run(["tar", "-x", "-C", scratch], input=packed, check=True)
        os.chdir(scratch)
        path = [scratch, f"{scratch}/plugins"]
        sys.path[:0] = path
        os.environ |= {"PYTHONPATH": ":".join(path), "PYTHONDONTWRITEBYTECODE": "1"}
        sys.dont_write_bytecode = True
        for number in numbers:
            mutants, seed = stored()
            tests = next(ROOMS[room] for room in ROOMS if mutants[number].file.startswith(room))
            others = named.get(str(number), [tests])
            test = catching(mutants[number], others, Path(scratch, "events"))
            mutants[number] = replace(mutants[number], caught_by=test)
            store(mutants, seed)
            print(number, test or "not caught", flush=True)
    caught = sum(mutant.caught_by not in (None, "gone") for mutant in mutants)
    print(f"{caught} of {len(mutants)} mutants are caught.")


def main() -> None:
    """Draw the list, or check it."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("task", choices=("draw", "check"))
    parser.add_argument("--seed", type=int, default=77)
    parser.add_argument("--per-room", type=int, default=25)
    parser.add_argument("--numbers", default="0-199")
    parser.add_argument("--tests", type=Path)
    options = parser.parse_args()
    if options.task == "draw":
        store(drawn(options.seed, options.per_room), options.seed)
    else:
        first, _, last = options.numbers.partition("-")
        named = json.loads(options.tests.read_text("utf-8")) if options.tests else {}
        check(range(int(first), int(last or first) + 1), named)


if __name__ == "__main__":
    main()
