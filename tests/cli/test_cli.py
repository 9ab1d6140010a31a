"""The command line as a person meets it: quick, and clear about what is wrong."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from helpers.command import bench
from safetensors.torch import save_file

HEAVY = ("torch", "diffusers", "transformers", "datasets", "pandas", "sklearn", "scipy")
LIGHT_COMMANDS = (
    ["--help"],
    ["list", "datasets"],
    ["list", "backbones", "--json"],
    ["list", "strategies"],
    ["plugins"],
)


@pytest.mark.parametrize("arguments", LIGHT_COMMANDS, ids=" ".join)
def test_listings_are_quick_and_import_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys, atexit; sys.argv = ['bench', *sys.argv[1:]]\n"
        f"atexit.register(lambda: print([m for m in {HEAVY} if m in sys.modules], file=sys.stderr))"
        "\nfrom bench.cli.main import main; main()"
    )
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True
        )
        seconds.append(time.perf_counter() - started)
        assert done.returncode == 0 and done.stderr.strip() == "[]"
    # A guard against a heavy import, not a measurement: torch alone takes seconds.
    assert min(seconds) < 1.5


def test_every_setting_is_an_option_and_a_variable() -> None:
    from bench.running.settings import RunConfig

    text = bench("run", "--help").out
    for name in RunConfig.model_fields:
        if name not in ("dataset", "params"):
            assert "--" + name.replace("_", "-") in text


def test_precedence_option_variable_file_default(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('strategy = "full"\nlimit = 5\nseed = 3\n[params]\ndraws = 7\n')
    plan = bench("run", "digits", "--config", file, "--dry-run", "--json").json
    assert (plan["images"], plan["params"]["draws"]) == (5, 7)
    plan = bench("run", "digits", "--config", file, "--dry-run", "--json", BENCH_LIMIT="4").json
    assert plan["images"] == 4
    plan = bench(
        *("run", "digits", "--config", file, "--limit", 3, "--set", "draws=9"),
        *("--dry-run", "--json"),
        BENCH_LIMIT="4",
    ).json
    assert (plan["images"], plan["params"]["draws"]) == (3, 9)
    assert bench("run", "digits", "--dry-run", "--json").json["images"] == 360


def test_dry_run_knows_the_published_cost() -> None:
    plan = bench(
        "run", "ucmerced", "--backbone", "sd2", "--strategy", "adaptive", "--dry-run", "--json"
    ).json
    assert plan["evaluations_per_image"] == 21 * 50 + 5 * 450 == 3300
    assert plan["images"] == 420 and plan["evaluations"] == 420 * 3300
    assert plan["tflop"] == pytest.approx(420 * 3300 * 0.804)
    assert plan["params"]["samples"] == [50, 500]


def test_dry_run_of_a_race_is_a_range() -> None:
    arguments = ("run", "ucmerced", "--backbone", "sd2", "--device", "cuda", "--dry-run")
    plan = bench(*arguments, "--json").json
    assert plan["strategy"] == "race"  # the toolkit's default
    assert plan["evaluations_per_image"] == 21 * 500
    assert plan["evaluations_per_image_at_least"] == 21 * 4
    assert "84 to 10,500" in bench(*arguments).out


ADAPTIVE = ["digits", "--strategy", "adaptive", "--set", "samples=5,50", "--set"]
USAGE_ERRORS = {
    "dataset": (["digit"], "Did you mean 'digits'"),
    "backbone": (["digits", "--backbone", "tiny-digit"], "Did you mean 'tiny-digits'"),
    "strategy": (["digits", "--strategy", "adaptve"], "Did you mean 'adaptive'"),
    "parameter": (["digits", "--strategy", "full", "--set", "draw=3"], "Did you mean 'draws'"),
    "value": (["digits", "--strategy", "full", "--set", "draws=many"], "a value like 500"),
    "assignment": (["digits", "--set", "draws"], "KEY=VALUE"),
    "limit": (["digits", "--limit", "-3"], "greater than 0"),
    "loss": (["digits", "--loss", "l3"], "l2"),
    "split": (["digits", "--split", "dev"], "it has: test, train"),
    "template": (["digits", "--template", "a digit"], "{class}"),
    "schedule end": ([*ADAPTIVE, "keep=3,2"], "must end with 1"),
    "schedule stages": ([*ADAPTIVE, "keep=1"], "same number of stages"),
    "folder": (["./no-such-folder"], "does not exist"),
    "no dataset": ([], "bench run digits"),
    "config": (["digits", "--config", "none.toml"], "there is no file"),
    "noise": (["digits", "--noise", "none.pt"], "there is no file"),
    "device": (["digits", "--device", "cuda:7"], "cannot be used here"),
    "backbone folder": (["digits", "--backbone", "./nothing"], "does not exist"),
    "normalize": (["digits", "--normalize", "imagenet"], "cifar10"),
    "option": (["digits", "--sed", "3"], "--seed"),
}


@pytest.mark.parametrize("case", USAGE_ERRORS)
def test_a_mistake_gets_one_clear_message(case: str, tmp_path: Path) -> None:
    arguments, hint = USAGE_ERRORS[case]
    done = bench("run", *arguments, BENCH_RESULTS=str(tmp_path / "results"))
    assert done.code == 2, done.err
    assert hint in done.err and "Traceback" not in done.err
    assert not list(tmp_path.rglob("samples.jsonl")) or case in ("noise", "device", "normalize")


def test_mistyped_commands_and_runs_are_suggested(tmp_path: Path) -> None:
    done = bench("lst", "datasets")
    assert done.code == 2 and "'list'" in done.err
    done = bench("show", "nothing", "--results", tmp_path)
    assert done.code == 2 and "There is no run 'nothing'" in done.err
    assert bench("leaderboard", "--results", tmp_path / "none").code == 2


def test_noise_of_the_wrong_shape(pipelines: dict[str, Path], tmp_path: Path) -> None:
    for shape, wanted in (((3, 4, 8, 8), "N = 2"), ((2, 4, 9, 8), "(2, 4, 8, 8)")):
        save_file({"noise": torch.randn(shape)}, tmp_path / "noise.safetensors")
        done = bench(
            *("run", "digits", "--backbone", pipelines["sd15"], "--strategy", "full"),
            *("--set", "draws=2", "--noise", tmp_path / "noise.safetensors"),
            *("--results", tmp_path / "results"),
        )
        assert done.code == 2 and wanted in done.err and "Traceback" not in done.err


def test_an_unwritable_results_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = bench("run", "digits", "--results", tmp_path / "file" / "results")
    assert done.code == 2 and "cannot be written" in done.err and "Traceback" not in done.err


def test_pickled_noise_is_never_unpickled(tmp_path: Path) -> None:
    import pickle

    class Attack:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(tmp_path / "attacked"),)

    (tmp_path / "noise.pt").write_bytes(pickle.dumps(Attack()))
    done = bench("run", "digits", "--noise", tmp_path / "noise.pt", "--results", tmp_path / "r")
    assert done.code == 2 and not (tmp_path / "attacked").exists()


def test_the_main_job_shows_a_table_and_goes_on(tmp_path: Path) -> None:
    arguments = ["run", "digits", "--limit", 20, "--results", tmp_path]
    done = bench(*arguments)
    assert done.code == 0, done.err
    for text in ("accuracy", "95 % interval", "evaluations an image", "trained on digits/train"):
        assert text in done.out
    assert "20/20 images" in done.err
    again = bench(*arguments)
    assert again.code == 0 and "This run is complete" in again.out and "20/20" not in again.err
    summary = bench(*arguments, "--json").json
    assert summary["metrics"]["accuracy"] >= 0.9
    assert (
        summary["strategy"]["name"] == "race"
    )  # its backbone's own; asked for, it is as published:
    plan = bench("run", "digits", "--strategy", "adaptive", "--dry-run", "--json").json
    assert plan["evaluations_per_image"] == 10 * 25 + 5 * 225
    assert 10 * 4 <= summary["cost"]["evaluations_per_image"] < 10 * 250
    low, high = summary["metrics"]["accuracy_ci95"]
    assert 0 < low < summary["metrics"]["accuracy"] <= high <= 1
    shown = bench("show", summary["run_id"], "--results", tmp_path, "--json").json
    assert shown["metrics"] == summary["metrics"]
    board = bench("leaderboard", "--results", tmp_path, "--json").json
    assert [(row["kind"], row["n_samples"], row["rank"]) for row in board] == [("subset", 20, None)]
    assert "tiny-digits" in bench("leaderboard", "--results", tmp_path).out
    gated = bench("run", "digits", "--limit", 20, "--results", tmp_path, "--min-accuracy", "1.0")
    assert gated.code == (4 if summary["metrics"]["accuracy"] < 1 else 0)
