"""A run in shards on a Slurm cluster, as one script that can be read, edited and run by hand."""

from __future__ import annotations

import os
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

TEMPLATE = Template("""\
#!/bin/bash
# $run_id in $shards shards, made by `bench run ... --slurm $shards`.
# Edit it as you need.
#   bash run.sh submit      submits everything; again after a failure: what is done is kept
#   bash run.sh prepare     fetches the weights and encodes the prompts, once for all shards
#   bash run.sh shard 3     scores one shard, or resumes it
#   bash run.sh merge       makes one run of all shards
set -euo pipefail
script=$$(realpath "$$0")
cd $folder

shards=$shards
# Options of sbatch, for prepare and each shard, and for the merge: add --partition, --mem, ...
each=($each)
merge=(--time=1:00:00)
logs=$logs
bench=($bench)
run=($run)

case "$${1:-}" in
  submit)
    prepared=$$(sbatch --parsable --job-name=prepare --output="$$logs/prepare.txt" "$${each[@]}" \\
      "$$script" prepare)
    scored=$$(sbatch --parsable --job-name=shards --output="$$logs/shard-%a.txt" "$${each[@]}" \\
      --array="1-$$shards" --requeue --kill-on-invalid-dep=yes \\
      --dependency="afterok:$${prepared%%;*}" "$$script" shard)
    merged=$$(sbatch --parsable --job-name=merge --output="$$logs/merge.txt" "$${merge[@]}" \\
      --dependency="afterany:$${scored%%;*}" "$$script" merge)
    echo "prepare $${prepared%%;*}, shards $${scored%%;*}, merge $${merged%%;*}"
    ;;
  prepare) "$${bench[@]}" "$${run[@]}" --warm-up ;;
  shard)
    index=$${2:-$${SLURM_ARRAY_TASK_ID:?which shard?}}
    "$${bench[@]}" "$${run[@]}" --shard "$$index/$$shards"
    ;;
  merge) "$${bench[@]}" results merge $run_id --results $results ;;
  *) echo "bash run.sh submit, prepare, shard N or merge" >&2; exit 2 ;;
esac
""")


@as_settings_say
def write_script(config: RunConfig, shards: int) -> Path:
    """Write the script of a run in shards below the run's folder, and return its file.

    Raises:
        UserError: the run would be refused, or has fewer images than shards.
    """
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
    each = "--cpus-per-task=4 --time=24:00:00"
    text = TEMPLATE.substitute(
        run_id=manifest.run_id,
        shards=shards,
        each=each if device == "cpu" else f"--gres=gpu:1 {each}",
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
    """Refuse to submit where there is no Slurm.

    Raises:
        UserError: there is no `sbatch`.
    """
    if shutil.which("sbatch") is None:
        raise UserError(
            "--submit: there is no `sbatch` on this machine. Leave --submit out, and run the script"
            " where there is one."
        )


def submit(script: Path) -> str:
    """Submit a script's jobs and return what it says of them.

    Raises:
        BenchError: Slurm refuses them.
    """
    done = subprocess.run(
        ["bash", str(script), "submit"], capture_output=True, text=True, env=dict(os.environ)
    )
    if done.returncode:
        said = done.stderr.strip() or f"exit code {done.returncode}"
        raise BenchError(f"Slurm refused the jobs: {said}")
    return done.stdout.strip()
