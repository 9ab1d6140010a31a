"""Shards of a run: write the Slurm script that makes them, and merge them into one run."""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from string import Template
from typing import Any

from bench.discovery.finding import PLUGIN_VARIABLES
from bench.errors import BenchError, UserError, quoted, warn_user
from bench.machine.files import write_atomically, writing
from bench.machine.offline import offline_if_set
from bench.machine.precision import assumed_capability_notes
from bench.running.command import run_command
from bench.running.execute import Finished
from bench.running.parts.settings import RunConfig
from bench.running.prepare import prepare
from bench.running.risk import first_run
from bench.stats.metrics.comparison import differing_identity
from bench.stats.metrics.summarise import summarize, summary_so_far
from bench.store.folder import MANIFEST
from bench.store.formats.decisions import read_decisions
from bench.store.formats.documents import mixed_code_warning
from bench.store.formats.identity import digest
from bench.store.formats.journal import prefix_hash
from bench.store.merging import Merge, find_parts, missing_parts, plan_merge
from bench.store.runs import StoredRun, read_run
from bench.store.summary import Summary, read_swept
from bench.store.writing import RunFolder

SCRIPT_FOLDER, SCRIPT_FILE = "slurm", "run.sh"
MAX_SHARDS = 100_000  # a Slurm array is limited to 1,000 tasks by default
# Variables to copy from the submitting environment, because --export=NONE would lose them.
KEPT_VARIABLES = ("BENCH_CACHE_DIR", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", *PLUGIN_VARIABLES)

TEMPLATE = Path(__file__).with_name("slurm.sh")


@offline_if_set
def write_script(config: RunConfig, shards: int) -> Path:
    """Write the Slurm script of a sharded run into its folder, and return the path (UserError)."""
    config.check_mode("slurm", "--slurm")
    device = config.device or "cuda"
    run = first_run(prepare(config.model_copy(update={"device": device})))
    for note in assumed_capability_notes(run.names.precision.network, device):
        warn_user(note)
    config = config.model_copy(update=run.names.precision.settings())
    manifest, sweeps = run.manifest, run.config.risk != config.risk
    run.check()
    if not 1 <= shards <= min(len(manifest.samples), MAX_SHARDS):
        most = min(len(manifest.samples), MAX_SHARDS)
        part = "sweep" if sweeps else "run"
        raise UserError(
            f"--slurm {shards}: expected a number of shards from 1 to {most:,}; the {part} has"
            f" {len(manifest.samples):,} images."
        )
    folder = run.folder / SCRIPT_FOLDER
    gpu = "" if device == "cpu" else "--gres=gpu:1 "
    # Prepare on a CPU only if the network's settings do not need the GPU.
    on_cpu = not (config.compile or config.tf32)
    on_cpu = on_cpu and config.layout == config.attention == "auto"
    text = Template(TEMPLATE.read_text()).substitute(
        run_id=manifest.run_id,
        sweep=manifest.run_id if sweeps else "",
        shards=shards,
        prepare=f"{'' if on_cpu else gpu}--cpus-per-task=4 --time=2:00:00",
        each=f"{gpu}--cpus-per-task=4 --time=24:00:00",
        on_cpu=f"--device cpu{' --encoding float32' if run.names.precision.encoding else ''}"
        if on_cpu
        else "",
        variables="\n".join(
            f"export {name}={shlex.quote(value)}"
            for name, value in sorted(os.environ.items())
            if name in KEPT_VARIABLES
        ),
        folder=shlex.quote(str(Path.cwd())),
        logs=shlex.quote(str(folder)),
        bench=shlex.join([sys.executable, "-m", "bench"]),
        python=shlex.quote(sys.executable),
        run=shlex.join(run_command(config)),
        results=shlex.quote(config.results),
    )
    with writing(f"The results folder {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / SCRIPT_FILE, text)
    return folder / SCRIPT_FILE


def check_slurm() -> None:
    """Raise UserError if this machine has no `sbatch`."""
    if shutil.which("sbatch") is None:
        raise UserError(
            "--submit: there is no `sbatch` on this machine. Leave --submit out, and run the script"
            " on a machine that has one."
        )


def submit(script: Path) -> str:
    """Submit the jobs of a script; return the script's output with their ids (BenchError)."""
    done = subprocess.run(["bash", str(script), "submit"], capture_output=True, text=True)
    if done.returncode:
        reason = done.stderr.strip() or f"exit code {done.returncode}"
        raise BenchError(f"Slurm refused the jobs: {reason}")
    return done.stdout.strip()


MAX_MISSING_SHOWN = 5  # parts in a message
SAME_FIELDS = ("classes", "prompts", "dataset", "strategy", "items")  # equal in all manifests


def merge(runs: Sequence[str], results: str = "results", partial: bool = False) -> Finished:
    """Merge the shards of a run into one run below `results`. Repeating it changes nothing.

    `runs` are the run, by id or folder, or the folders of its shards. With `partial`, shards may be
    missing or incomplete, and so is the merged run. Raises UserError if shards belong to different
    runs, and StoreError if the disk is full.
    """
    parts = find_parts(runs, results)
    target = Path(results, parts[0].manifest.run_id)
    before, place = prefix_hash(target), os.path.realpath(target)
    parts = [part for part in parts if os.path.realpath(part.path) != place]
    if os.path.lexists(target / MANIFEST):
        parts.insert(0, read_run(target))  # first, because its lines are kept
    _check_same_run(parts)
    planned = plan_merge(parts)
    if not planned.decided:
        raise UserError(f"{parts[0].name}: no image is decided yet, so there is nothing to merge.")
    if not (planned.complete or partial):
        raise UserError(_missing_shards_message(planned))
    manifest = planned.manifest()
    mixed = mixed_code_warning([part.manifest for part in parts], "is not the same in all parts")
    if mixed:
        warn_user(mixed)
    shards = [part.summary for part in parts if part.path != target]
    costs = _total_cost(shards or [parts[0].summary])
    with RunFolder(target, manifest) as folder:
        if before != prefix_hash(target):
            raise UserError(f"{target} changed while it was read. Merge again.")
        swept = (read_swept(part.path, part.manifest) for part in parts)
        folder.replace(planned, {k: v for of_part in swept for k, v in of_part.items()})
        decided = read_decisions(target, manifest, top=True)
        if not planned.complete:
            return Finished(manifest, summary_so_far(manifest, None, decided), target)
        summary = summarize(manifest, decided, *costs)
        fits = [part.manifest.fitted for part in parts] + [s.fitted for s in shards if s]
        summary = summary.with_folder_and_fit(target, next(filter(None, fits), None))
        folder.finish(summary)
    return Finished(manifest, summary, target)


def _check_same_run(parts: Sequence[StoredRun]) -> None:
    first = parts[0]
    for other in parts[1:]:
        if digest(first.manifest.identity) != digest(other.manifest.identity):
            differs = differing_identity(first.manifest, other.manifest)
            what = "; ".join(f"{name}: {a} and {b}" for name, (a, b) in differs.items())
            raise UserError(
                f"{first.name} and {other.name} are parts of different runs"
                f" ({what or 'other versions'}). Merge the shards of one command."
            )
        for name in SAME_FIELDS:
            a, b = (part.manifest.plain().get(name) for part in (first, other))
            if a != b:  # records refer to classes by index; the hashes alone could be forged
                raise UserError(
                    f"The {name} of {first.name} and {other.name} differ: {_first_difference(a, b)}"
                    ". Shards of one command have the same, in the same order."
                )


def _first_difference(a: Any, b: Any) -> str:
    if isinstance(a, list) and isinstance(b, list):
        pairs = zip_longest(a, b)
        place, (a, b) = next((i, pair) for i, pair in enumerate(pairs) if pair[0] != pair[1])
        return f"number {place} is {quoted(a)} and {quoted(b)}"
    return f"{quoted(a)} and {quoted(b)}"


def _missing_shards_message(planned: Merge) -> str:
    missing = missing_parts(planned)
    left_out = len(missing) - MAX_MISSING_SHOWN
    more = f" and {left_out} more" if left_out > 0 else ""
    why = f": {', '.join(missing[:MAX_MISSING_SHOWN])}{more}" if missing else ""
    return (
        f"{planned.decided:,} of {planned.total:,} images are decided{why}. Run what is missing;"
        " --partial merges without it."
    )


def _total_cost(summaries: Sequence[Summary | None]) -> tuple[float | None, int | None]:
    """Return the total seconds, None if a part's are unknown, and the largest peak memory."""
    costs = [summary.cost for summary in summaries if summary]
    seconds = [cost.total_seconds for cost in costs if cost.total_seconds is not None]
    memory = [cost.peak_memory_bytes for cost in costs if cost.peak_memory_bytes is not None]
    total = sum(seconds) if len(seconds) == len(summaries) else None
    return total, max(memory, default=None)
