"""The Slurm script: its jobs, as a fake `sbatch` sees them, and its tasks, run by hand."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from helpers.command import bench

RECORD = """#!/bin/bash
printf '%s\\n' "$@" > "$RECORDED.$(ls "$RECORDED".* 2>/dev/null | wc -l)"
"""


@pytest.fixture
def recorder(tmp_path: Path) -> Path:
    """A program that notes its arguments; as `sbatch` it also says a job's id and the cluster."""
    (tmp_path / "bin").mkdir()
    for name, more in (("sbatch", "echo '7;cluster'\n"), ("note", "")):
        file = tmp_path / "bin" / name
        file.write_text(RECORD + more)
        file.chmod(0o755)
    return tmp_path / "bin" / "note"


@pytest.fixture
def variables(tmp_path: Path, recorder: Path) -> dict[str, str]:
    """The environment in which the recorder is found, and notes."""
    path = f"{recorder.parent}:{os.environ['PATH']}"
    return {"PATH": path, "RECORDED": str(tmp_path / "noted")}


def calling(recorder: Path, script: Path) -> Path:
    """Let a script call the recorder in the place of `bench`."""
    lines = script.read_text().splitlines()
    bench_line = f"bench=('{recorder}')"
    script.write_text("\n".join(bench_line if x.startswith("bench=") else x for x in lines))
    return script


def noted(tmp_path: Path) -> list[list[str]]:
    return [f.read_text().splitlines() for f in sorted(tmp_path.glob("noted.*"))]


def settings(tmp_path: Path) -> list[object]:
    words = ["run", "digits", "--backbone", "random", "--limit", 6, "--template", "a {class}"]
    return [*words, "--template", "the {class}", "--results", tmp_path / "re sults"]


def test_the_jobs(tmp_path: Path, variables: dict[str, str]) -> None:
    done = bench(*settings(tmp_path), "--slurm", 3, "--submit", "--json", **variables)
    assert done.code == 0, done.err
    script = done.json["script"]
    assert done.json["submitted"] == "prepare 7, shards 7, merge 7"
    prepare, shards, merge = noted(tmp_path)
    assert prepare[-2:] == [script, "prepare"] and "--time=2:00:00" in prepare
    assert not any("gpu" in option for option in prepare) and "--gres=gpu:1" in shards
    assert shards[-2:] == [script, "shard"]
    wanted = {"--array=1-3", "--dependency=afterok:7", "--requeue", "--signal=B:USR1@300"}
    assert wanted < {*shards}
    assert all("--open-mode=append" in job for job in (prepare, shards, merge))
    assert merge[-2:] == [script, "merge"] and "--dependency=afterany:7" in merge


def test_what_only_a_gpu_has_is_prepared_on_a_gpu(tmp_path: Path) -> None:
    done = bench(*settings(tmp_path), "--slurm", 3, "--json")
    assert "on_cpu=(--device cpu)" in Path(done.json["script"]).read_text()
    more = ("--backbone", "tiny-digits", "--dtype", "tf32")
    done = bench(*settings(tmp_path), *more, "--slurm", 3, "--json")
    text = Path(done.json["script"]).read_text()
    assert "on_cpu=()" in text and "prepare=(--gres=gpu:1 " in text


def program(folder: Path, name: str, code: str) -> None:
    (folder / name).write_text(f"#!/bin/bash\n{code}\n")
    (folder / name).chmod(0o755)


def test_a_job_that_is_refused_takes_those_before_it_with_it(
    tmp_path: Path, recorder: Path, variables: dict[str, str]
) -> None:
    """Otherwise `prepare` would run for an array that is not there."""
    refused = 'case "$*" in *--array*) echo "QOSMaxSubmit" >&2; exit 1;; *) echo 7;; esac'
    program(recorder.parent, "sbatch", refused)
    program(recorder.parent, "scancel", f'echo "$@" > {tmp_path}/cancelled')
    done = bench(*settings(tmp_path), "--slurm", 3, "--submit", **variables)
    assert done.refuses("QOSMaxSubmit", code=1)
    assert (tmp_path / "cancelled").read_text() == "7\n"


def test_more_shards_than_the_cluster_takes_are_refused_before_anything_is_submitted(
    tmp_path: Path, recorder: Path, variables: dict[str, str]
) -> None:
    program(recorder.parent, "scontrol", 'echo "MaxArraySize            = 3"')
    done = bench(*settings(tmp_path), "--slurm", 3, "--submit", **variables)
    assert done.refuses("MaxArraySize allows 2", code=1)
    assert noted(tmp_path) == []
    assert bench(*settings(tmp_path), "--slurm", 2, "--submit", **variables).code == 0


def test_a_throttle_and_the_folders_of_a_job_without_its_environment(
    tmp_path: Path, variables: dict[str, str]
) -> None:
    cache = {"BENCH_CACHE_DIR": str(tmp_path / "ca che")}
    done = bench(*settings(tmp_path), "--slurm", 3, "--json", **cache)
    script = Path(done.json["script"])
    text = script.read_text()
    assert f"export BENCH_CACHE_DIR='{tmp_path}/ca che'\n" in text
    script.write_text(text.replace("at_once= ", "at_once=2 "))
    subprocess.run(["bash", script, "submit"], check=True, env={**os.environ, **variables})
    assert "--array=1-3%2" in noted(tmp_path)[1]


def test_a_shard_near_its_time_limit_stops_and_is_requeued(
    tmp_path: Path, recorder: Path, variables: dict[str, str]
) -> None:
    script = Path(bench(*settings(tmp_path), "--slurm", 3, "--json").json["script"])
    program(recorder.parent, "scontrol", f'echo "$@" > {tmp_path}/requeued')
    stops = f"trap 'echo stopped > {tmp_path}/stopped; exit 143' TERM; touch {tmp_path}/began"
    program(recorder.parent, "note", f"{stops}; while true; do sleep 0.05; done")
    slurm = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "2", **variables}
    command = ["bash", str(calling(recorder, script)), "shard"]
    running = subprocess.Popen(command, env={**os.environ, **slurm})
    try:
        while not (tmp_path / "began").exists():
            assert running.poll() is None
            time.sleep(0.05)
        running.send_signal(signal.SIGUSR1)
        assert running.wait(60) == 143
    finally:
        running.kill()
    assert (tmp_path / "stopped").exists()
    assert (tmp_path / "requeued").read_text() == "requeue 7_2\n"


@pytest.mark.long
def test_the_tasks_by_hand_in_an_edited_script(tmp_path: Path, recorder: Path) -> None:
    done = bench(*settings(tmp_path), "--slurm", 3, "--json", BENCH_TEMPLATE_RULE="mean")
    script = Path(done.json["script"])
    assert done.code == 0 and done.json["submitted"] is None
    calling(recorder, script)
    tasks = [["prepare"], ["shard", "1"], ["shard", "2"], ["shard"], ["merge"]]
    variables = {**os.environ, "RECORDED": str(tmp_path / "noted"), "SLURM_ARRAY_TASK_ID": "3"}
    for task in tasks:
        subprocess.run(["bash", script, *task], check=True, env=variables, cwd="/")
    commands = noted(tmp_path)
    assert commands[0][-1] == "--warm-up" and commands[3][-2:] == ["--shard", "3/3"]
    for command in commands:
        done = bench(*command)
        assert done.code == 0, done.err
    whole = bench(*settings(tmp_path), "--template-rule", "mean", "--json").json
    assert whole["resumed"] == "complete" and whole["dataset"]["n_samples"] == 6


def test_a_risk_is_swept_and_calibrated_between_the_jobs(
    tmp_path: Path, recorder: Path, variables: dict[str, str]
) -> None:
    words = ("run", "digits", "--set", "draws=8", "--risk", 0.1, "--results", tmp_path / "results")
    done = bench(*words, "--slurm", 2, "--submit", "--json", **variables)
    assert done.code == 0, done.err
    script = Path(done.json["script"])
    assert [job[-1] for job in noted(tmp_path)] == [
        *("prepare", "sweep", "calibrate", "shard", "merge")
    ]
    for file in tmp_path.glob("noted.*"):
        file.unlink()
    calling(recorder, script)
    for task in (["sweep", "2"], ["calibrate"], ["shard", "2"]):
        subprocess.run(["bash", script, *task], check=True, env={**os.environ, **variables})
    swept, merged, calibrated, raced = noted(tmp_path)
    assert swept[-3:] == ["--sweep-only", "--shard", "2/2"] and raced[-2:] == ["--shard", "2/2"]
    assert merged[:2] == ["results", "merge"] and "-full-" in merged[2]
    assert calibrated[-1] == "--sweep-only" and "--risk" in calibrated


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--slurm", "0"], "1 to 6"),
        (["--slurm", "7"], "1 to 6"),
        (["--slurm", "2", "--shard", "1/2"], "--shard"),
        (["--slurm", "2", "--fresh"], "--fresh"),
        (["--submit"], "--slurm"),
        (["--submit", "--dry-run"], "--slurm"),
        (["--slurm", "2", "--warm-up"], "--warm-up"),
        (["--slurm", "2", "--sweep-only"], "--sweep-only"),
        (["--warm-up", "--sweep-only"], "--sweep-only"),
        (["--slurm", "2", "--submit"], "`sbatch`"),
    ],
)
def test_what_is_refused(tmp_path: Path, given: list[str], said: str) -> None:
    done = bench(*settings(tmp_path), *given)
    assert done.refuses(said) and len(done.err.splitlines()) == 1
    assert not list(tmp_path.iterdir())
