"""Records the study: a plan of its cost, a check of what it needs, and then step after step.

    python studies/how-many-draws/record.py night --dry-run
    python studies/how-many-draws/record.py night --results runs --device cuda --hours 7.5
    python studies/how-many-draws/record.py rehearsal --results runs --device cpu

A step is one file of `bench study`. Before the first image, weights and data of every step are
fetched or found, and what is missing ends the command with what to do. A step that does not fit
into the hours that are left is dropped, and so are those after it; a step that takes longer than
that is interrupted. The same command resumes.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.cli.fetch import fetch
from bench.errors import BenchError, UserError
from bench.machine.environment import PEAK_UTILISATION, PEAKS, assumed_speed
from bench.machine.files import write_atomically
from bench.running.study.file import DeclaredStudy, read_study_file
from bench.running.study.plan import plan_study

HERE = Path(__file__).resolve().parent
BYTES_PER_CELL = 8.5  # as recorded: 8.2 with 640 cells per image, and less with more
STOPPED = 130  # exit code of an interrupted step, which the same command resumes
STATE = "record.json"


@dataclass
class Step:
    """One step, and what is left of it.

    Attributes:
        images, evaluations, tflop: what is left to score; tflop is None where it is not known.
        dtype: of the largest part, for the time on devices that are not here.
        bytes: size of its recorded errors, at the most.
        runs_left: number of runs that are not complete.
    """

    name: str
    file: Path
    images: int
    evaluations: int
    tflop: float | None
    dtype: str
    bytes: float
    runs_left: int

    def hours_on(self, device: str) -> float:
        """Return the hours that the step takes on a device of `PEAKS`; 0 where that is unknown."""
        speed = assumed_speed(device, self.dtype) or 0
        return (self.tflop or 0) * 1e12 / speed / 3600


def step_files(study: str) -> list[Path]:
    """Return the files of a study, in their order. UserError: there are none."""
    folder = HERE / study
    files = sorted(folder.glob("*.toml")) if folder.is_dir() else [HERE / f"{study}.toml"]
    if not files or not files[0].is_file():
        raise UserError(f"There is no study {study!r} in {HERE}: night or rehearsal.")
    return files


def plan(file: Path, results: Path, device: str | None = None) -> tuple[Step, DeclaredStudy]:
    """Return the cost of what is left of a file, without weights. UserError: a run is refused."""
    machine = {"results": str(results)} | ({"device": device} if device else {})
    declared = read_study_file(file, machine)
    planned = plan_study(declared)
    if refused := [cell for cell in planned.cells if cell.error]:
        raise UserError(f"{file.name}: {refused[0].axes}: {refused[0].error}")
    left = [cell for cell in planned.cells if not cell.there]
    recorded = [
        cell for cell, own in zip(planned.cells, declared.cells, strict=True)
        if own.config.save_errors and not cell.there
    ]  # fmt: skip
    cells = sum(cell.evaluation_equivalents or 0 for cell in recorded)
    step = Step(
        name=file.stem,
        file=file,
        images=planned.images_to_score,
        evaluations=planned.evaluation_equivalents,
        tflop=sum(cell.tflop or 0 for cell in left),
        dtype=declared.cells[-1].config.dtype or "float32",
        bytes=cells * BYTES_PER_CELL,
        runs_left=len(left),
    )
    return step, declared


def print_plan(steps: Sequence[Step], hours: float, device: str) -> None:
    """Print what each step takes on published devices, and which fit into the hours."""
    names = list(PEAKS)
    heads = [f"{name}, h" for name in names]
    print(f"{'step':<18} {'images':>7} {'evaluations':>12} {'TFLOP':>11}", end="")
    print("".join(f"{head:>13}" for head in heads), f"{'disk, MB':>10}")
    total = dict.fromkeys(names, 0.0)
    fits: list[str] = []
    for step in steps:
        for name in names:
            total[name] += step.hours_on(name)
        fits += [step.name] if total[device] <= hours else []
        spent = "".join(f"{step.hours_on(name):>13.2f}" for name in names)
        row = f"{step.name:<18} {step.images:>7,} {step.evaluations:>12,} {step.tflop or 0:>11,.0f}"
        print(row + spent, f"{step.bytes / 1e6:>10,.0f}")
    summed = "".join(f"{value:>13.2f}" for value in total.values())
    images, evaluations = (sum(getattr(s, n) for s in steps) for n in ("images", "evaluations"))
    tflop, size = sum(s.tflop or 0 for s in steps), sum(s.bytes for s in steps)
    print(
        f"{'all':<18} {images:>7,} {evaluations:>12,} {tflop:>11,.0f}{summed} {size / 1e6:>10,.0f}"
    )
    print(
        "\nHours: the published dense peak in the step's dtype, of which"
        f" {100 * PEAK_UTILISATION:.0f} % is assumed."
        " Classifiers are not in them: minutes, with the reading of data."
    )
    dropped = [step.name for step in steps if step.name not in fits]
    print(
        f"In {hours:g} hours of one {device}: {', '.join(fits) or 'nothing'};"
        f" dropped: {', '.join(dropped) or 'nothing'}."
    )


def check(declared: Sequence[DeclaredStudy], results: Path, size: float) -> list[str]:
    """Fetch or find the weights and the data of every run; return what is wrong, with advice."""
    import bench

    problems: list[str] = []
    configs = [cell.config for study in declared for cell in study.cells]
    # Copies on this machine were checked by the plan.
    fetched = (str(config.backbone) for config in configs if not config.weights)
    for name in dict.fromkeys(fetched):
        try:
            list(fetch(name))
        except BenchError as error:
            problems.append(f"{name}: {error} (bench fetch {name})")
    for name, split, folder in dict.fromkeys((c.dataset, c.split, c.data_dir) for c in configs):
        try:
            bench.load_dataset(name, split=split, data_dir=folder)
        except BenchError as error:
            problems.append(f"{name}: {error} (bench check-data {name})")
    results.mkdir(parents=True, exist_ok=True)
    if (free := shutil.disk_usage(results).free) < 1.2 * size:
        problems.append(
            f"{results} has {free / 1e9:.1f} GB free, and the recordings take up to"
            f" {size / 1e9:.1f} GB: make room, or name another --results."
        )
    return problems


def missing_message(problems: Sequence[str]) -> str:
    """Return what is missing, and how copies on this machine are named."""
    return (
        "nothing was scored, since something is missing:\n- "
        + "\n- ".join(problems)
        + "\nCopies that"
        " lie on this machine are named in the files of the study, as"
        ' {name = "ucmerced", data_dir = "FOLDER"} and {name = "sd15", weights = "FOLDER"}.'
    )


def record(
    steps: Sequence[Step], results: Path, device: str | None, hours: float, usual: str
) -> list[dict[str, object]]:
    """Make the steps within the hours, and return what became of each."""
    started, reached = time.monotonic(), None  # TFLOP per second of the steps so far
    outcomes: list[dict[str, object]] = []

    def left() -> float:
        return hours * 3600 - (time.monotonic() - started)

    for step in steps:
        row: dict[str, object] = {**asdict(step), "file": step.file.name}
        speed = reached or (assumed_speed(usual, step.dtype) or 1) / 1e12
        expected = (step.tflop or 0) / speed
        outcomes.append(row)
        if step.runs_left == 0:
            row["status"] = "complete before"
        elif outcomes[:-1] and any(o["status"] in ("dropped", "stopped") for o in outcomes[:-1]):
            row["status"] = "dropped"
        elif left() <= 0 or (len(outcomes) > 1 and expected > left()):
            row |= {"status": "dropped", "expected_seconds": expected, "seconds_left": left()}
        else:
            began = time.monotonic()
            code = _run(step, results, device, left())
            seconds = time.monotonic() - began
            row |= {"seconds": seconds, "exit_code": code}
            row["status"] = {0: "complete", STOPPED: "stopped", 3: "some failed"}.get(
                code, "failed"
            )
            if code == 0 and step.tflop and device != "cpu" and seconds > 60:
                reached = step.tflop / seconds
        print(f"{step.name}: {row['status']}", flush=True)
        write_atomically(results / STATE, json.dumps(outcomes, indent=1) + "\n")
        if row["status"] == "failed":
            break
    return outcomes


def _run(step: Step, results: Path, device: str | None, seconds: float) -> int:
    """Run one study in a process of its own; interrupt it when the time is over."""
    command = [sys.executable, "-m", "bench", "study", str(step.file), "--results", str(results)]
    child = subprocess.Popen(command + (["--device", device] if device else []))
    try:
        return child.wait(max(1.0, seconds))
    except subprocess.TimeoutExpired:
        child.send_signal(signal.SIGINT)  # what is decided is on disk
        child.wait()
        return STOPPED
    except BaseException:
        child.send_signal(signal.SIGINT)
        child.wait()
        raise


def main() -> int:
    """Plan, check and record; 2: something is missing, 3: a step is not complete."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", choices=["night", "rehearsal"])
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--device", help="as `bench run --device`")
    parser.add_argument("--hours", type=float, default=7.5, help="for this call")
    parser.add_argument("--on", choices=list(PEAKS), default="H100", help="whose hours are planned")
    parser.add_argument("--dry-run", action="store_true", help="the cost; nothing is fetched")
    options = parser.parse_args()
    try:
        planned = [plan(f, options.results, options.device) for f in step_files(options.study)]
        steps = [step for step, _ in planned]
        print_plan(steps, options.hours, options.on)
        if options.dry_run:
            return 0
        needed = [declared for step, declared in planned if step.runs_left]
        if problems := check(needed, options.results, sum(step.bytes for step in steps)):
            raise UserError(missing_message(problems))
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    outcomes = record(steps, options.results, options.device, options.hours, options.on)
    return 0 if all(str(row["status"]).startswith("complete") for row in outcomes) else 3


if __name__ == "__main__":
    sys.exit(main())
