"""Records the study, step after step: `bench fetch` and `bench study` within the hours of a night.

    bench study studies/how-many-draws/night/1-ucmerced.toml --dry-run     # what a step costs
    python studies/how-many-draws/record.py night --results runs --device cuda --hours 7.5
    python studies/how-many-draws/record.py rehearsal --results runs --device cpu

A step is one file of `bench study`. Before the first image, the weights and data of every step are
fetched, and what is missing ends the command with what to do. A step that does not fit into the
hours that are left is dropped, and so are those after it; a step that takes longer than that is
interrupted. The same command resumes.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

from bench.cli.fetch import fetch
from bench.errors import UserError
from bench.machine.files import write_atomically
from bench.machine.precision import Precision
from bench.machine.speeds import PEAKS, assumed_speed
from bench.running.study.file import DeclaredStudy, read_study_file
from bench.running.study.plan import plan_study

HERE = Path(__file__).resolve().parent
STOPPED = 130  # exit code of an interrupted step, which the same command resumes
STATE = "record.json"


@dataclass
class Step:
    """One step, and what is left of it.

    Attributes:
        images, evaluations, tflop: what is left to score; of classifiers, no TFLOP are known.
        dtype: of the largest part, for the time on devices that are not here.
        runs_left: number of runs that are not complete.
    """

    name: str
    file: Path
    images: int
    evaluations: int
    tflop: float
    dtype: Precision
    runs_left: int

    def hours_on(self, device: str) -> float:
        """Return the hours that the step takes on a device of `PEAKS`; 0 where that is unknown."""
        speed = assumed_speed(device, self.dtype) or 0
        return self.tflop * 1e12 / speed / 3600


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
    step = Step(
        name=file.stem,
        file=file,
        images=planned.images_to_score,
        evaluations=planned.evaluation_equivalents,
        tflop=sum(cell.tflop or 0 for cell in left),
        dtype=cast(Precision, declared.cells[-1].config.dtype or "float32"),
        runs_left=len(left),
    )
    return step, declared


def fetch_all(files: Sequence[Path]) -> None:
    """Fetch or find the weights and the data of every run. UserError: what is missing."""
    try:
        for file in files:
            for _ in fetch(str(file)):
                pass
    except UserError as error:
        raise UserError(
            f"nothing was scored, since something is missing: {error}\nCopies that lie on this"
            ' machine are named in the files of the study, as {name = "ucmerced", data_dir ='
            ' "FOLDER"} and {name = "sd15", weights = "FOLDER"}.'
        ) from error


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
        expected = step.tflop / speed
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
    """Plan, fetch and record; 2: something is missing, 3: a step is not complete."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", choices=["night", "rehearsal"])
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--device", help="as `bench run --device`")
    parser.add_argument("--hours", type=float, default=7.5, help="for this call")
    parser.add_argument("--on", choices=list(PEAKS), default="H100", help="whose hours are planned")
    options = parser.parse_args()
    try:
        files = step_files(options.study)
        steps = [plan(file, options.results, options.device)[0] for file in files]
        fetch_all([step.file for step in steps if step.runs_left])
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    outcomes = record(steps, options.results, options.device, options.hours, options.on)
    return 0 if all(str(row["status"]).startswith("complete") for row in outcomes) else 3


if __name__ == "__main__":
    sys.exit(main())
