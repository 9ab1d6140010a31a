"""The estimand's settings from the command line to the record, on a few digits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.command import bench

from bench.store.draw_table import read_draws

FULL = ("--strategy", "full", "--set", "draws=8")


def run(results: Path, *options: object) -> Any:
    done = bench("run", "digits", "--limit", 4, "--results", results, "--json", *FULL, *options)
    assert done.code == 0, done.err
    return done.json


@pytest.mark.parametrize(
    ("options", "each"),
    [
        (("--guidance", "2"), 2),
        (("--template", "a {class}", "--template", "digit {class}", "--template-rule", "mean"), 2),
        (
            ("--template", "a {class}", "--template", "digit {class}", "--template-rule", "spread"),
            1,
        ),
        (("--noise-per", "image", "--latent", "sample", "--loss", "norm"), 1),
    ],
)
def test_what_a_cell_costs(options: tuple[str, ...], each: int, tmp_path: Path) -> None:
    found = run(tmp_path, *options)
    assert found["cost"]["evaluations_per_image"] == 80 * each
    plan = bench("run", "digits", "--dry-run", "--json", *FULL, *options).json
    assert plan["evaluations_per_image"] == 80 * each


def test_weights_live_and_replayed_decide_alike(tmp_path: Path) -> None:
    recorded = run(tmp_path, "--save-errors")
    live = run(tmp_path, "--weighting", "exp:-7")
    again = bench(
        *("replay", recorded["run_id"], "--strategy", "full", "--weighting", "exp:-7"),
        *("--results", tmp_path, "--json"),
    ).json
    assert again["metrics"] == live["metrics"] and again["run_id"] != recorded["run_id"]
    draws = read_draws(tmp_path / recorded["run_id"])
    assert draws is not None and draws.n_levels == 1000
    np.testing.assert_array_equal(draws.weights, 1)


def test_weights_are_learned_from_another_split(tmp_path: Path) -> None:
    there = run(tmp_path, "--split", "train", "--save-errors")
    here = run(tmp_path, "--save-errors")
    learned = ("--weighting", f"learned:{there['run_id']}")
    assert run(tmp_path, *learned)["backbone"]["trained_on"] == "digits/train"
    same = ("--weighting", f"learned:{here['run_id']}")
    for options, said in ((same, "another split"), ((*learned, "--loss", "l1"), "another --loss")):
        done = bench("run", "digits", "--limit", 4, "--results", tmp_path, *FULL, *options)
        assert done.code == 2 and said in done.err


def test_what_cannot_be_meant_is_refused(tmp_path: Path) -> None:
    (tmp_path / "weights.csv").write_text("level,weight\n1,1\n2000,1\n")
    (tmp_path / "templates.txt").write_text("a {class}\nnothing\n")
    cases = (
        (("--weighting", tmp_path / "weights.csv"), "names level 2000"),
        (("--template", tmp_path / "templates.txt"), "templates.txt:2"),
        (("--loss", "l1", "--weighting", "snr"), "--space sample"),
        (("--weighting", "exp"), "--weighting"),
        (("--levels", "3,2"), "--levels"),
    )
    for options, said in cases:
        done = bench("run", "digits", "--results", tmp_path / "results", *FULL, *options)
        assert done.code == 2 and said in done.err, done.err
    assert not (tmp_path / "results").exists()
