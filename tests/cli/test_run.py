"""`bench run`, from the plan to the table and the pictures at its end."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from helpers.command import bench

from bench.cli import run
from bench.cli.output import say


def test_dry_run_knows_the_published_cost() -> None:
    plan = bench(
        "run", "ucmerced", "--backbone", "sd2", "--strategy", "adaptive", "--dry-run", "--json"
    ).json
    assert plan["evaluations_per_image"] == 21 * 50 + 5 * 450 == 3300
    assert plan["images"] == 420 and plan["evaluations"] == 420 * 3300
    assert plan["tflop"] == pytest.approx(420 * 3300 * 0.804)
    assert plan["params"]["samples"] == [50, 500]


def test_a_backbone_that_nothing_was_recorded_with_keeps_to_the_published_schedule() -> None:
    arguments = ("run", "ucmerced", "--backbone", "sd2", "--device", "cuda", "--dry-run")
    plan = bench(*arguments, "--json").json
    assert plan["strategy"] == "race"  # the toolkit's default
    assert plan["params"]["ceiling"] == "published"
    assert plan["evaluations_per_image"] == 21 * 50 + 5 * 450
    assert plan["evaluations_per_image_at_least"] == 21 * 2
    assert "42 to 3,300" in bench(*arguments).out


def test_dry_run_of_a_race_without_a_ceiling_is_a_range() -> None:
    arguments = ("run", "ucmerced", "--backbone", "sd2", "--strategy", "race", "--dry-run")
    plan = bench(*arguments, "--json").json
    assert plan["evaluations_per_image"] == 21 * 500
    assert plan["evaluations_per_image_at_least"] == 21 * 4
    assert "84 to 10,500" in bench(*arguments).out


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
    for text in ("accuracy", "95 % interval", "evaluations per image", "trained on digits/train"):
        assert text in done.out
    assert "20 of 20 images" in done.err
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


def test_pictures_are_drawn_after_the_result_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def draw(folder: Path, manifest: Any) -> None:
        say("drawn")

    monkeypatch.setattr(run, "draw_pictures", draw)
    done = bench("run", "digits", "--backbone", "majority", "--limit", 12, "--results", tmp_path)
    assert done.code == 0, done.err
    assert 0 < done.out.index("accuracy") < done.out.index("drawn")
    assert done.out.strip().endswith("drawn")


def test_the_last_lines_say_where_the_pictures_are(tmp_path: Path) -> None:
    done = bench("run", "digits", "--backbone", "majority", "--limit", 12, "--results", tmp_path)
    pictures = sorted(tmp_path.glob("*/*.png"))
    assert len(pictures) == 2
    assert done.out.splitlines()[-2:] == [f"Picture: {picture}" for picture in pictures]


@pytest.mark.long
def test_a_complete_run_gets_pictures_that_are_missing(tmp_path: Path) -> None:
    arguments = ("run", "digits", "--backbone", "majority", "--limit", 12, "--results", tmp_path)
    assert bench(*arguments, "--json").code == 0
    assert not list(tmp_path.rglob("*.png"))  # JSON has no pictures
    bench(*arguments)
    confusion, examples = sorted(tmp_path.glob("*/*.png"))
    examples.unlink()  # as if the command was interrupted after the first picture
    again = bench(*arguments)
    assert f"Picture: {examples}" in again.out and examples.is_file()
    changed = confusion.stat().st_mtime_ns
    bench(*arguments)
    assert confusion.stat().st_mtime_ns == changed  # nothing is missing, nothing is drawn
