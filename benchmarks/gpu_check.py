"""What a first hour on a GPU should measure, in order of worth, with a budget in seconds.

    python benchmarks/gpu_check.py --out gpu.json --budget 3600
    python benchmarks/gpu_check.py --out small.json --small --device cpu   # shows that it runs

Parts (benchmarks/gpu/parts.py): is the device right (each family's small pipeline, digits, cells
of a real shape, out of memory), and how fast is it (evaluations per second and TFLOP/s of the
shapes of SD 2.1-base, SDXL and SD 3 by dtype and batch size; switches; engine over bare;
linearised draws; a run of UC Merced)? All weights are random: nothing is downloaded.

A part that is expected to take more than what is left of the budget is skipped and named. The JSON
file, and a Markdown table beside it, are written after every row, and the same command again
measures what is missing: a session that was cut off is still a result. On a GPU each part has a
process of its own, which is stopped when it takes three times as long as expected.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from benchmarks.gpu.parts import PARTS, fitting
from benchmarks.gpu.report import CUT, DONE, FAILED, RUNNING, SKIPPED, Measured, Report, Row

PATIENCE = 3  # times the expected seconds after which a part is stopped
START = 180  # seconds that a process may take to start
BY_NAME = {part.name: part for part in PARTS}


def measure(names: list[str], report: Report, options: argparse.Namespace) -> None:
    """Measure parts in this process; each row is on disk before the next is measured."""
    import torch  # the process that only supervises does without

    from benchmarks.gpu.machine import Machine

    machine = Machine(torch.device(options.device), options.small, options.scratch)
    for name in names:
        part = BY_NAME[name]
        found = report.parts[name] = Measured(RUNNING, _expected(name, machine.small))
        started = time.perf_counter()
        try:
            for row in part.measure(machine):
                found.rows.append(row)
                found.seconds = time.perf_counter() - started
                report.write()
            found.status = DONE
        except Exception as error:
            traceback.print_exc()
            found.status, found.why = FAILED, f"{type(error).__name__}: {error}"
        found.seconds = time.perf_counter() - started
        report.write()
        print(f"{name}: {found.status}, {found.seconds:.0f} s", file=sys.stderr, flush=True)


def supervise(names: list[str], options: argparse.Namespace, settings: Row) -> None:
    """Measure parts in a process of their own, which ends in time."""
    limit = START + PATIENCE * sum(_expected(name, options.small) for name in names)
    command = [sys.executable, __file__, *sys.argv[1:], "--child", ",".join(names)]
    command = [word for word in command if word != "--fresh"]
    here = {"BENCH_CACHE_DIR": str(options.scratch / "cache"), "BENCH_LOAD_PLUGINS": ""}
    here["GOMP_SPINCOUNT"] = "10000"
    child = subprocess.Popen(command, env={**os.environ, **here}, start_new_session=True)
    try:
        code = child.wait(limit)
        ended = f"its process ended with exit code {code}"
    except subprocess.TimeoutExpired:
        ended = f"it was stopped after {limit:.0f} s"
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    report = Report(options.out, settings)
    for name in names:
        found = report.parts.setdefault(name, Measured(RUNNING, _expected(name, options.small)))
        if found.status not in (DONE, FAILED):
            found.status, found.why = CUT, ended
    report.write()


def _expected(name: str, small: bool) -> float:
    return BY_NAME[name].small if small else BY_NAME[name].seconds


def parse() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="the JSON file")
    parser.add_argument("--budget", type=float, default=3600.0, help="seconds for this call")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="small shapes")
    parser.add_argument("--only", help="parts, separated by commas")
    parser.add_argument("--fresh", action="store_true", help="measure all of it again")
    parser.add_argument(
        "--scratch",
        type=Path,
        default=Path(tempfile.gettempdir(), "bench-gpu-check"),
        help="for pipelines with random weights, a few GB; kept for the next call",
    )
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    for name in options.only.split(",") if options.only else ():
        if name not in BY_NAME:
            parser.error(f"--only {name}: there is no such part; {', '.join(BY_NAME)}")
    return options


def main() -> int:
    """Return 0 where all that was measured is right."""
    options, started = parse(), time.perf_counter()
    settings: Row = {"device": options.device, "small": options.small}
    if options.fresh and options.child is None:
        options.out.unlink(missing_ok=True)
    options.scratch.mkdir(parents=True, exist_ok=True)
    report = Report(options.out, settings)
    if options.child:
        measure(options.child.split(","), report, options)
        return 0
    wanted = options.only.split(",") if options.only else list(BY_NAME)
    wanted = [name for name in wanted if not report.ended(name)]
    while wanted:
        left = options.budget - (time.perf_counter() - started)
        fits, _ = fitting([(n, _expected(n, options.small)) for n in wanted], left)
        if not fits:
            break
        several = fits if options.small else fits[:1]
        supervise(several, options, settings)
        wanted = [name for name in wanted if name not in several]
    report = Report(options.out, settings)
    for name in wanted:
        expected = _expected(name, options.small)
        said = f"It is expected to take {expected:.0f} s, more than was left of the budget."
        report.parts[name] = Measured(SKIPPED, expected, why=said)
        print(f"{name}: skipped. {said}", file=sys.stderr)
    report.write()
    print(report.markdown())
    return 0 if report.correct else 1


if __name__ == "__main__":
    sys.exit(main())
