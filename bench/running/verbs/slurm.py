"""Writes a script that makes a run in shards on a Slurm cluster."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from string import Template

from bench.errors import BenchError, UserError
from bench.machine.files import write_atomically
from bench.machine.offline import as_settings_say
from bench.running.checks import check
from bench.running.command import run_command
from bench.running.prepare import prepare
from bench.running.settings import RunConfig

SCRIPT_FOLDER, SCRIPT_FILE = "slurm", "run.sh"
MAX_SHARDS = 100_000  # shards; an array of Slurm has 1,000 tasks by default

TEMPLATE = Path(__file__).with_name("slurm.sh")


@as_settings_say
def write_script(config: RunConfig, shards: int) -> Path:
    """Write the script of a run in shards below the run's folder, and return its file."""
    if config.shard is not None or config.fresh:
        option = "--fresh" if config.fresh else "--shard"
        raise UserError(f"--slurm and {option} do not go together: --slurm sets the shards itself.")
    if config.executor != "local":
        raise UserError(
            "--slurm and --executor ray do not go together: --slurm makes shards, each of one"
            " process. docs/machines.md says how Ray is started under Slurm."
        )
    prepared = prepare(config)
    manifest = prepared.manifest
    check(prepared)
    if not 1 <= shards <= min(len(manifest.samples), MAX_SHARDS):
        most = min(len(manifest.samples), MAX_SHARDS)
        raise UserError(
            f"--slurm {shards}: write how many shards, from 1 to {most:,}: the run has"
            f" {len(manifest.samples):,} images."
        )
    folder = prepared.folder / SCRIPT_FOLDER
    device = config.device or "cuda"
    job = "--cpus-per-task=4 --time=24:00:00"
    text = Template(TEMPLATE.read_text()).substitute(
        run_id=manifest.run_id,
        shards=shards,
        each=job if device == "cpu" else f"--gres=gpu:1 {job}",
        folder=shlex.quote(str(Path.cwd())),
        logs=shlex.quote(str(folder)),
        bench=shlex.join([sys.executable, "-m", "bench"]),
        run=shlex.join(run_command(config)),
        results=shlex.quote(config.results),
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / SCRIPT_FILE, text)
    except OSError as error:
        raise UserError(f"The results folder {folder} cannot be written: {error}.") from None
    return folder / SCRIPT_FILE


def check_slurm() -> None:
    """Refuse to submit where there is no `sbatch` (UserError)."""
    if shutil.which("sbatch") is None:
        raise UserError(
            "--submit: there is no `sbatch` on this machine. Leave --submit out, and run the script"
            " where there is one."
        )


def submit(script: Path) -> str:
    """Submit the jobs of a script and return their ids in words; a BenchError if Slurm refuses."""
    done = subprocess.run(["bash", str(script), "submit"], capture_output=True, text=True)
    if done.returncode:
        reason = done.stderr.strip() or f"exit code {done.returncode}"
        raise BenchError(f"Slurm refused the jobs: {reason}")
    return done.stdout.strip()
