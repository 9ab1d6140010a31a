"""The GPU night: each step must show what it should before the next one starts.

    python studies/how-many-draws/night.py --out night                    # a GPU, the Hub
    python studies/how-many-draws/night.py --out night --random           # a GPU without a network
    python studies/how-many-draws/night.py --out small --random --device cpu --side 128

Steps: what is needed is here; the device computes what a CPU does, and how fast; a pilot; bfloat16
against float32; the recordings, in the hours that are left; what to send back. A step that does not
show what it should ends the night, and says why. The same command resumes. night.md explains each
of them.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import record
from analyse import analyse
from measuring import read_results

import bench
from bench.errors import UserError
from bench.machine.files import write_atomically
from bench.machine.speeds import PEAKS
from bench.reports.run_view import read_view
from bench.running.estimate import make_plan
from bench.running.parts.settings import RunConfig
from bench.running.study.file import DeclaredStudy
from bench.store.folder import MANIFEST
from bench.store.runs import read_run
from bench_plugins.exporters.errors import ErrorDataset

ROOT = record.HERE.parents[1]
PARTS = (
    *("machine", "families", "digits", "rates of sd21", "engine over bare", "real cells"),
    "out of memory",
)
CHECK_SECONDS = 1800  # for the device's check
LEAST_ENGINE = 0.8  # of the bare network's evaluations per second
LEAST_SAME = 0.85  # of decisions in bfloat16 that equal those in float32
PRECISION_IMAGES, PRECISION_DRAWS = 21, 32
RANDOM_DRAWS, RANDOM_CLASSES = 4, ("cat", "dog")


@dataclass(frozen=True)
class Verdict:
    """What one step shows, and whether the next may start."""

    step: str
    shown: str
    needed: str
    passed: bool


def device_verdicts(report: Mapping[str, Any]) -> Iterator[Verdict]:
    """Yield what the report of `benchmarks/gpu_check.py` shows."""
    parts = report["parts"]
    missing = [name for name in PARTS if parts.get(name, {}).get("status") != "done"]
    yield Verdict("device", f"not measured: {', '.join(missing) or 'nothing'}", "all", not missing)
    rows = {name: part["rows"] for name, part in parts.items()}
    for name in ("families", "digits", "real cells", "out of memory"):
        wrong = [row for row in rows.get(name, []) if not row.get("ok", True)]
        shown = f"{len(wrong)} of {len(rows.get(name, []))} rows differ from the CPU"
        yield Verdict(name, shown, "0, in float32 within 0.1 %", not wrong)
    half = [r for r in rows.get("real cells", []) if r.get("dtype") == "bfloat16"]
    same = all(row["same_decisions"] for row in half)
    yield Verdict(
        "real cells in bfloat16", "the same decisions" if same else "others", "the same", same
    )
    share = max((r["engine_over_bare"] for r in rows.get("engine over bare", [])), default=0.0)
    shown = f"{share:.2f} of the bare network's speed"
    small = bool(report["settings"]["small"])  # too small to be timed
    yield Verdict("engine", shown, f"{LEAST_ENGINE:g}", small or share >= LEAST_ENGINE)


def pilot_verdicts(
    step: record.Step, declared: DeclaredStudy, results: Path, seconds: float, hours: float
) -> Iterator[Verdict]:
    """Yield what the pilot of a step shows: speed, memory, and accuracy above chance.

    Args:
        step: what was left before the pilot.
        declared: its study.
        results: folder of the runs.
        seconds: that the pilot took, with loading.
        hours: that are left.
    """
    left, _ = record.plan(step.file, results)
    done = step.evaluations - left.evaluations
    if done:
        expected = left.evaluations / (done / seconds) / 3600
        shown = f"{done / seconds:.1f} evaluations per second: {expected:.2f} hours for {step.name}"
        yield Verdict("pilot", shown, f"{hours:.2f} hours", expected <= hours)
    for cell in declared.cells:
        plan = make_plan(cell.config)
        folder = results / str(plan.run_id)
        if not (folder / MANIFEST).exists() or (summary := read_run(folder).summary) is None:
            continue
        chance, low = 1 / plan.prompts, summary.metrics.accuracy_ci95[0]
        shown = f"accuracy {summary.metrics.accuracy:.1%}, at least {low:.1%}"
        yield Verdict(f"{plan.backbone} on {plan.dataset}", shown, f"> {chance:.1%}", low > chance)
        if (peak := summary.cost.peak_memory_bytes) and plan.memory_needed:
            shown = f"{peak / 2**30:.1f} GiB at the peak; dry run: {plan.memory_needed}"
            yield Verdict(f"memory of {plan.backbone}", shown, "nothing: for the report", True)


def precision_verdict(config: RunConfig, results: Path) -> Verdict:
    """Return how many decisions in bfloat16 equal those in float32, on the same draws."""
    guesses = []
    for dtype in ("float32", "bfloat16"):
        made = bench.run(
            config.dataset, config.backbone, "full", {"draws": PRECISION_DRAWS},
            split=config.split, data_dir=config.data_dir, dtype=dtype, limit=PRECISION_IMAGES,
            device=config.device, results=str(results), tf32=dtype == "float32",
        )  # fmt: skip
        rows = made.samples.sort_values("sample_id")
        guesses.append(rows["prediction"].tolist())
    same = sum(a == b for a, b in zip(*guesses, strict=True)) / len(guesses[0])
    shown = f"{same:.0%} of {len(guesses[0])} decisions are those of float32"
    return Verdict("bfloat16", shown, f"{LEAST_SAME:.0%}", same >= LEAST_SAME)


class Night:
    """The steps done so far, each on disk before the next."""

    def __init__(self, out: Path) -> None:
        self.file = out / "night.json"
        self.verdicts: list[Verdict] = []

    def show(self, verdicts: Sequence[Verdict]) -> None:
        """Print and store verdicts. UserError: one of them ends the night."""
        self.verdicts += verdicts
        for verdict in verdicts:
            mark = "ok  " if verdict.passed else "STOP"
            print(f"{mark} {verdict.step}: {verdict.shown} (needed: {verdict.needed})", flush=True)
        content = json.dumps([asdict(verdict) for verdict in self.verdicts], indent=1)
        write_atomically(self.file, content + "\n")
        if wrong := [verdict.step for verdict in verdicts if not verdict.passed]:
            raise UserError(
                f"the night ends here, because of: {', '.join(wrong)}. Nothing after it was"
                f" started; send {self.file} and gpu.json beside it."
            )


def check_device(out: Path, device: str) -> Mapping[str, Any]:
    """Measure the device, and return the report."""
    command = [
        sys.executable,
        str(ROOT / "benchmarks/gpu_check.py"),
        "--out",
        str(out / "gpu.json"),
    ]
    command += ["--device", device, "--only", ",".join(PARTS), "--budget", str(CHECK_SECONDS)]
    subprocess.run(
        command + ["--small"] * (device == "cpu"), check=False, stdout=subprocess.DEVNULL
    )
    report: Mapping[str, Any] = json.loads((out / "gpu.json").read_text("utf-8"))
    return report


def random_study(out: Path, side: int) -> Path:
    """Write a study of a network with random weights of the real shape, on made-up pictures."""
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    from benchmarks.published import save_published
    from benchmarks.timing import pictures

    folder = out / "sd21"
    if not (folder / "scheduler" / "scheduler_config.json").exists():  # the last that is saved
        shutil.rmtree(folder, ignore_errors=True)
        save_published("sd21", folder)
    for number, (name, sample) in enumerate(zip(RANDOM_CLASSES, pictures(side, 2), strict=True)):
        (out / "pictures" / name).mkdir(parents=True, exist_ok=True)
        (out / "pictures" / name / f"{number}.png").write_bytes(sample.image["bytes"] or b"")
    file = out / "random.toml"
    dtype = "float32" if side < 512 else "bfloat16"  # a CPU is slow in bfloat16
    file.write_text(
        f'name = "how-many-draws-random"\npilot = 0\nsave_errors = true\nseed = 0\n'
        f'dtype = "{dtype}"\nresolution = {side}\ndatasets = ["{out}/pictures/"]\n'
        f'backbones = ["{out}/sd21/"]\nstrategies = ["full"]\n[params]\ndraws = {RANDOM_DRAWS}\n'
    )
    return file


def send_back(out: Path, results: Path, rehearsal: bool) -> Path:
    """Fill the folder that is sent back: recordings, page, and what each step showed."""
    folder = out / "send"
    shutil.rmtree(folder, ignore_errors=True)
    stored = read_results(results)
    for recording in stored.recordings:
        target = folder / "recordings" / recording.manifest.run_id
        target.mkdir(parents=True)
        ErrorDataset("CC-BY-4.0").write(read_view(recording.path), target)
    for run in stored.others:
        wanted = folder / "runs" / run.manifest.run_id
        wanted.mkdir(parents=True)
        for name in ("manifest.json", "samples.jsonl", "summary.json"):
            if (run.path / name).is_file():
                shutil.copyfile(run.path / name, wanted / name)
    analyse(stored, folder / "page", rehearsal)
    for file in (out / "night.json", out / "gpu.json", out / "gpu.md", results / record.STATE):
        if file.is_file():
            shutil.copyfile(file, folder / file.name)
    return folder


def night(options: argparse.Namespace) -> Path:
    """Make the steps, and return the folder to send back. UserError: one of them ended it."""
    out, results, started = options.out.resolve(), options.out.resolve() / "runs", time.monotonic()
    out.mkdir(parents=True, exist_ok=True)

    def left() -> float:
        return float(options.hours - (time.monotonic() - started) / 3600)

    files = [random_study(out, options.side)] if options.random else record.step_files("night")
    planned = [record.plan(file, results, options.device) for file in files]
    steps = [step for step, _ in planned]
    log = Night(out)
    if not options.random:
        record.fetch_all([step.file for step in steps if step.runs_left])
        log.show([Verdict("needed", "weights, data and room are here", "all", True)])
    log.show(list(device_verdicts(check_device(out, options.device))))
    first, declared = planned[0]
    if not options.random and first.runs_left:
        log.show([precision_verdict(declared.cells[0].config, out / "precision")])
        began = time.monotonic()
        command = [sys.executable, "-m", "bench", "study", str(first.file), "--pilot"]
        command += ["--results", str(results), "--device", options.device]
        if subprocess.run(command, check=False).returncode not in (0, 3):
            raise UserError("the pilot failed; the lines above say why.")
        seconds = time.monotonic() - began
        log.show(list(pilot_verdicts(first, declared, results, seconds, left())))
    outcomes = record.record(steps, results, options.device, left(), options.on)
    made = [row for row in outcomes if str(row["status"]).startswith("complete")]
    shown = ", ".join(f"{row['name']} {row['status']}" for row in outcomes)
    log.show([Verdict("recordings", shown, "one step at the least", bool(made))])
    return send_back(out, results, options.random)


def main() -> int:
    """Make the night; 2: something is missing, or a step did not show what it should."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of all that is made")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--hours", type=float, default=8.0, help="for this call, checks included")
    parser.add_argument("--on", choices=list(PEAKS), default="H100", help="whose hours are planned")
    parser.add_argument("--random", action="store_true", help="random weights; no network is asked")
    parser.add_argument("--side", type=int, default=512, help="pixels of the pictures of --random")
    options = parser.parse_args()
    try:
        folder = night(options)
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    print(f"Send back {folder} ({size / 1e6:.1f} MB); it holds no image and no path of yours.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
