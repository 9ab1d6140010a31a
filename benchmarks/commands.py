"""Processor time of commands that answer a question, and of the first scored image.

    python benchmarks/commands.py [--repeats 5] [--only WORD] [--before CHECKOUT]

Each command is a process of its own. Its processor time includes that of its children and hardly
depends on what else runs. `first` starts with an empty cache folder, `second` repeats the command
with the cache that `first` has left; both are the minimum of the repeats. Modules are compiled by
the first repeat, also where PYTHONDONTWRITEBYTECODE would prevent it. With `--before`, the commands
of another checkout are measured by turns with these.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[1]
CHEAP = ("--strategy", "full", "--set", "draws=2")  # two complete runs are made to be asked about
GOALS = {
    "--help": 0.35,
    "list datasets": 0.35,
    "leaderboard": 1.2,
    "show latest": 1.2,
    "compare A B": 1.2,
    "run digits --strategy nosuch": 1.5,
    'run digits --until "better than nosuch"': 1.5,
    "run digits, complete": 6.0,
    "run digits --limit 3 --dry-run": 6.0,
    "prompts digits": 6.0,
    "prompts ./folder": 6.0,
    "run digits --limit 1": 8.0,
}


def commands(folder: Path, first: str, second: str) -> dict[str, list[str]]:
    """Return the commands by the names of `GOALS`; `first` and `second` are complete runs."""
    results = ["--results", str(folder / "results")]
    scored = ["--results", str(folder / "scored"), "--fresh", "--json"]
    arguments = (
        ["--help"],
        ["list", "datasets"],
        ["leaderboard", *results],
        ["show", "latest", *results],
        ["compare", first, second, *results],
        ["run", "digits", "--strategy", "nosuch", *results],
        ["run", "digits", "--until", "better than nosuch", *results],
        ["run", "digits", *CHEAP, *results],
        ["run", "digits", "--limit", "3", "--dry-run", *results],
        ["prompts", "digits"],
        ["prompts", str(folder / "images")],
        ["run", "digits", "--limit", "1", *scored],
    )
    return dict(zip(GOALS, arguments, strict=True))


def call(folder: Path, cache: Path, arguments: Sequence[str], checkout: Path = ROOT) -> float:
    """Return the processor time of a command in seconds, with that of its children."""
    path = os.pathsep.join([str(checkout), str(checkout / "plugins")])
    own = {"BENCH_CACHE_DIR": str(cache), "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": ""}
    environment = {**os.environ, **own}
    process = subprocess.Popen(
        [sys.executable, "-m", "bench", *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode in (0, 2), (arguments, process.returncode)
    return usage.ru_utime + usage.ru_stime


def make_runs(folder: Path) -> tuple[str, str]:
    """Write a folder of images and two complete runs of digits; return the names of the runs."""
    for number, name in enumerate(("cat", "dog", "owl")):
        place = folder / "images" / name
        place.mkdir(parents=True)
        Image.new("RGB", (32, 32), (80 * number, 90, 200)).save(place / "1.png")
    results = ["--results", str(folder / "results"), "--json"]
    for more in ((), ("--seed", "1")):
        call(folder, folder / "cache", ["run", "digits", *CHEAP, *more, *results])
    first, second = sorted(path.name for path in (folder / "results").glob("digits-*"))
    return first, second


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", default="", help="commands whose name contains this")
    parser.add_argument("--before", type=Path, help="another checkout, measured by turns")
    options = parser.parse_args()
    checkouts = [ROOT] if options.before is None else [options.before.resolve(), ROOT]
    columns = [f"{c}, s" for c in ("before: first", "before: second", "first", "second")]
    print(f"| command | {' | '.join(columns[-2 * len(checkouts) :])} | goal |")
    print("|---" + "|--:" * (2 * len(checkouts) + 1) + "|")
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for name, arguments in commands(folder, *make_runs(folder)).items():
            times: list[list[float]] = []
            for repeat in range(options.repeats * (options.only in name)):
                row: list[float] = []
                for checkout in checkouts:
                    cache = folder / f"cache {name.replace('/', ' ')} {repeat} {len(row)}"
                    row += [call(folder, cache, arguments, checkout) for _ in range(2)]
                times.append(row)
            if times:
                least = " | ".join(f"{min(column):.2f}" for column in zip(*times, strict=True))
                print(f"| `{name}` | {least} | {GOALS[name]:.1f} |", flush=True)
    print(f"minimum of {options.repeats}; load {load:.1f} to {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
