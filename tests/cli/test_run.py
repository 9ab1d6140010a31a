"""`bench run`, from the plan to the table and the pictures at its end."""

import os
from pathlib import Path

import pytest
from helpers.command import bench


def test_dry_run_knows_the_published_cost() -> None:
    plan = bench(
        "run", "ucmerced", "--backbone", "sd2", "--strategy", "adaptive", "--dry-run", "--json"
    ).json
    assert plan["evaluations_per_image"] == 21 * 50 + 5 * 450 == 3300
    assert plan["images"] == 420 and plan["evaluations"] == 420 * 3300
    assert plan["tflop"] == pytest.approx(420 * 3300 * 0.804)
    assert plan["params"]["samples"] == [50, 500]


@pytest.mark.parametrize(
    ("option", "ceiling", "least", "most"),
    [
        # Nothing was recorded with it, so that the default keeps to the published schedule.
        (("--device", "cuda"), "published", 21 * 2, 21 * 50 + 5 * 450),
        (("--strategy", "race"), None, 21 * 4, 21 * 500),
    ],
)
def test_dry_run_of_a_race_is_a_range(
    option: tuple[str, str], ceiling: str | None, least: int, most: int
) -> None:
    arguments = ("run", "ucmerced", "--backbone", "sd2", *option, "--dry-run")
    plan = bench(*arguments, "--json").json
    assert plan["strategy"] == "race" and plan["params"].get("ceiling") == ceiling
    assert (plan["evaluations_per_image_at_least"], plan["evaluations_per_image"]) == (least, most)
    assert f"{least} to {most:,}" in bench(*arguments).out


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


def test_a_complete_run_gets_pictures_that_are_missing(tmp_path: Path) -> None:
    arguments = ("run", "digits", "--backbone", "majority", "--limit", 12, "--results", tmp_path)
    assert bench(*arguments, "--json").code == 0
    assert not list(tmp_path.rglob("*.png"))  # JSON has no pictures
    said = bench(*arguments).out.splitlines()
    confusion, examples = sorted(tmp_path.glob("*/*.png"))
    assert said[-2:] == [f"Picture: {confusion}", f"Picture: {examples}"]
    examples.unlink()  # as if the command was interrupted after the first picture
    again = bench(*arguments)
    assert f"Picture: {examples}" in again.out and examples.is_file()
    changed = confusion.stat().st_mtime_ns
    bench(*arguments)
    assert confusion.stat().st_mtime_ns == changed  # nothing is missing, nothing is drawn
