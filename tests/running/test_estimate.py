"""`bench run --dry-run`: everything is checked, and the plan says what will really run."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.blocks import unknown
from helpers.command import bench
from helpers.refusals import refused
from helpers.runs import a_record
from safetensors.torch import save_file

from bench.discovery.loading import load_plugins
from bench.inputs.data import slugify
from bench.machine import speeds
from bench.reports.terminal.plan import print_plan
from bench.running.estimate import make_plan
from bench.running.parts.settings import make_config
from bench.running.prepare import prepare
from bench.store.writing import RunFolder


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--backbone", "./nothing"], "nothing"),
        (["--levels", "0-2000"], "1000 levels"),
        (["--set", "draws=100000000"], "draws"),
        (["--set", "span=nan"], "'span'"),
        (["--template", "word " * 90 + "{class}"], "tokens"),
    ],
)
def test_what_would_stop_the_run_stops_the_plan(
    arguments: list[object], said: str, tmp_path: Path
) -> None:
    done = bench("run", "digits", *arguments, "--dry-run", "--results", tmp_path / "r")
    assert done.refuses(said), done.err
    assert not (tmp_path / "r").exists()


def test_noise_of_a_wrong_shape_is_found_by_the_plan(tmp_path: Path) -> None:
    save_file({"noise": torch.randn(3, 4, 9, 8)}, tmp_path / "noise.safetensors")
    settings = {"dataset": "digits", "params": {"draws": 3}, "strategy": "full"}
    config = make_config({**settings, "noise": tmp_path / "noise.safetensors"})
    with refused("(3, 4, 9, 8)"):
        make_plan(config)


def test_a_classifier_looks_once_at_each_image() -> None:
    said = bench("run", "digits", "--backbone", "random", "--dry-run").out
    assert "1 pass per image" in said and "evaluations" not in said
    assert "evaluations per image" in bench("run", "digits", "--dry-run").out


def test_the_cost_of_a_classifier_is_one_pass_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_CACHE_DIR", str(tmp_path / "cache"))  # nobody timed it before
    words = ("digits", "--backbone", "random", "--limit", 12, "--results", tmp_path / "r")
    planned = bench("run", *words, "--dry-run", "--json").json
    assert (planned["evaluations_per_image"], planned["evaluations"]) == (1, 12)
    assert planned["classifier"] and planned["estimate"].startswith("unknown until a run")
    file = tmp_path / "both.toml"
    file.write_text(
        'dataset = "digits"\nbackbones = ["random", "tiny-digits"]\nlimit = 12\n'
        'strategy = "full"\n[params]\ndraws = 2\n'
    )
    study = ("study", file, "--results", tmp_path / "r")
    plan = bench(*study, "--dry-run", "--json").json
    assert (plan["passes"], plan["evaluation_equivalents"]) == (12, 12 * 10 * 2)
    shown = bench(*study, "--dry-run", COLUMNS="150").out
    assert "12 passes" in shown and "240 evaluation equivalents, 12 passes of class" in shown

    monkeypatch.setattr(speeds, "MEASURED_SECONDS", 0.0)
    path = bench("run", *words, "--json").json["results_dir"]
    [row] = bench("leaderboard", "--results", tmp_path / "r", "--json").json
    assert row["cost"] == row["evaluations_per_image"] == 1
    assert "1 pass per image" in bench("show", path).out
    card = bench("export", path, "--format", "model-index").out
    assert "evaluations_per_image: 1.0" in card
    assert "evaluation_equivalents_per_image: 1.0" in card

    again = bench("run", *words, "--dry-run", "--fresh", "--json").json
    assert "passes per second" in again["estimate"] and again["seconds"] is not None


def test_what_is_not_here_is_said_and_planned_for() -> None:
    settings = {"dataset": "ucmerced", "backbone": "sd2", "device": "cuda:97"}
    plan = make_plan(make_config(settings))
    assert plan.images == 420 and plan.device == "cuda"
    weights, data, device = plan.missing
    assert "stable-diffusion-2-1-base' are not on this machine" in weights
    assert "blanchon/UC_Merced is not on this machine" in data and "cuda:97" in device
    assert set(plan.missing) <= set(plan.warnings)


def test_a_plan_ends_as_its_run_would(image_folder: Path, tmp_path: Path) -> None:
    absent: list[object] = ["run", "imagenet", "--backbone", "sd15", "--offline"]
    plan = bench(*absent, "--dry-run", "--results", tmp_path)
    run = bench(*absent, "--results", tmp_path)
    assert plan.code == run.code == 2
    for text in ("stable-diffusion-v1-5' are not on", "hf:ILSVRC/imagenet-1k is not on this"):
        assert text in plan.out
    assert "score it" not in plan.out and "once nothing is missing" in plan.out
    as_json = bench(*absent, "--dry-run", "--json", "--results", tmp_path)
    assert as_json.code == 2 and len(as_json.json["missing"]) == 2
    possible = bench(
        *("run", image_folder, "--backbone", "tiny-digits", "--dry-run", "--results", tmp_path)
    )
    assert possible.code == 0 and "score it: the same" in possible.out
    assert f" {slugify(str(image_folder))}/all " in possible.out  # as in the run, not "folder/all"


def test_a_plan_of_nothing_left_takes_no_time(capsys: pytest.CaptureFixture[str]) -> None:
    plan = make_plan(make_config({"dataset": "digits", "backbone": "random"})).plain()
    print_plan({**plan, "classifier": False, "evaluations": 0, "tflop": 0.0, "seconds": 0.0})
    shown = capsys.readouterr().out
    assert "second" not in shown and "tflop" not in shown and "evaluations  " in shown


def test_the_plan_is_of_the_images_that_are_left(tmp_path: Path) -> None:
    settings = {"dataset": "digits", "strategy": "uniform", "params": {"samples": 4}, "limit": 9}
    config = make_config({**settings, "results": tmp_path})
    plan = make_plan(config)
    assert (plan.images, plan.images_to_score, plan.run_id) == (9, 9, None)
    manifest = prepare(config).manifest
    with RunFolder(tmp_path / manifest.run_id, manifest) as folder:
        for sample_id in manifest.samples[:5]:
            line: Any = a_record(sample_id, 0, 0)
            folder.append(line, None, np.zeros(0, np.int64))
    plan = make_plan(config)
    assert (plan.images, plan.images_to_score, plan.run_id) == (9, 4, manifest.run_id)
    assert plan.evaluations == 4 * 4 * 10
    assert make_plan(config.model_copy(update={"fresh": True})).images_to_score == 9


def test_a_backbone_far_from_its_training_says_so(image_folder: Path) -> None:
    config = make_config({"dataset": image_folder, "backbone": "tiny-digits"})
    [warning] = prepare(config).content.warnings
    assert "trained only on digits/train" in warning and "no better than guessing" in warning
    for backbone in (None, "tiny-digits"):
        assert not prepare(
            make_config({"dataset": "digits", "backbone": backbone})
        ).content.warnings


@pytest.mark.parametrize("options", [["--dry-run"], [], ["--limit", "5"]], ids=str)
def test_images_need_a_backbone_that_knows_more_than_others(
    options: list[str], image_folder: Path, tmp_path: Path
) -> None:
    """Without --backbone, nothing is scored, and three commands are named that exist."""
    done = bench("run", image_folder, *options, "--results", tmp_path / "results")
    assert done.refuses("digits/train")
    commands = [line.split()[1:] for line in done.err.splitlines() if line.startswith("  bench ")]
    assert len(commands) == 3 and not (tmp_path / "results").exists()
    for command in commands:
        assert not unknown(command)
        assert command[command.index("--backbone") + 1] in load_plugins().backbones
    slow = not torch.cuda.is_available() and "--limit" not in options
    assert sum("20" in command for command in commands) == slow
