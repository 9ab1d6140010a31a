"""Draw plans: which timesteps, and whose noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.command import bench

from bench.errors import UserError
from bench.inputs.draws import noise_bank, parse_plan
from bench.running.resolve import resolve
from bench.running.settings import RunConfig, make_config

SHAPE = (4, 8, 8)


def test_the_grid_is_the_references() -> None:
    timesteps = parse_plan("grid").timesteps(500, 1000)
    assert timesteps[0] == 1
    assert timesteps[-1] == 999
    assert (np.diff(timesteps) == 2).all()


def test_a_range_is_a_grid_of_its_own() -> None:
    timesteps = parse_plan("grid:100-700").timesteps(6, 1000)
    assert timesteps.tolist() == [150, 250, 350, 450, 550, 650]


def test_pairs_share_a_timestep_and_antithetic_ones_their_noise() -> None:
    repeated, antithetic = parse_plan("repeated"), parse_plan("antithetic:0-500")
    assert repeated.timesteps(5, 1000).tolist() == [166, 166, 500, 500, 833]
    assert antithetic.timesteps(4, 1000).tolist() == [125, 125, 375, 375]
    plain = noise_bank(3, 5, SHAPE)
    assert np.array_equal(repeated.noise(3, 5, SHAPE), plain)
    bank = antithetic.noise(3, 5, SHAPE)
    assert np.array_equal(bank[0::2], plain[0::2])
    assert np.array_equal(bank[1::2], -plain[0:4:2])


def test_a_backbone_has_a_plan_of_its_own() -> None:
    own = resolve(RunConfig(dataset="ucmerced", backbone="tiny-landuse"))
    assert own.draw_plan == own.backbone.plan != "grid"
    other = RunConfig(dataset="ucmerced", backbone="tiny-landuse", plan="grid:0-700")
    assert resolve(other).draw_plan == "grid:0-700"
    assert resolve(RunConfig(dataset="digits", backbone="tiny-digits")).draw_plan == "grid"


@pytest.mark.parametrize("text", ["", "gird", "grid:5", "grid:700-100", "grid:1-1", "grid 1-2"])
def test_what_is_no_plan(text: str) -> None:
    with pytest.raises(ValueError, match="draw plan"):
        parse_plan(text)


def test_a_range_must_fit_the_model(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="1000 timesteps"):
        parse_plan("grid:0-1001").timesteps(10, 1000)
    done = bench("run", "digits", "--limit", "2", "--plan", "grid:0-2000", "--results", tmp_path)
    assert done.code == 2
    assert "0-2000" in done.err


def test_a_run_on_some_timesteps(tmp_path: Path) -> None:
    done = bench("run", "digits", "--limit", "10", "--plan", "grid:500-700", "--results", tmp_path)
    assert done.code == 0


def test_a_noise_file_cannot_be_antithetic() -> None:
    with pytest.raises(UserError, match=r"^--plan: antithetic.*--noise"):
        make_config({"dataset": "digits", "noise": "bank.safetensors", "plan": "antithetic"})
