"""Draw plans: which timesteps, and whose noise."""

from pathlib import Path

import numpy as np
import pytest
from helpers.refusals import refused
from safetensors.numpy import save_file

from bench.inputs.draws import (
    DrawPlan,
    combine_plan,
    generate_noise,
    parse_levels,
    parse_plan,
    read_noise,
)
from bench.running.parts.settings import RunConfig
from bench.running.prepare import resolve

SHAPE = (4, 8, 8)


def test_a_range_is_a_grid_of_its_own() -> None:
    timesteps = parse_plan("grid:100-700").assign_levels(6, 1000)
    assert timesteps.tolist() == [150, 250, 350, 450, 550, 650]


def test_pairs_share_a_timestep_and_antithetic_ones_their_noise() -> None:
    repeated, antithetic = parse_plan("repeated"), parse_plan("antithetic:0-500")
    assert repeated.assign_levels(5, 1000).tolist() == [166, 166, 500, 500, 833]
    assert antithetic.assign_levels(4, 1000).tolist() == [125, 125, 375, 375]
    plain = DrawPlan().make_noise(3, 5, SHAPE)
    assert np.array_equal(repeated.make_noise(3, 5, SHAPE), plain)
    bank = antithetic.make_noise(3, 5, SHAPE)
    assert np.array_equal(bank[0::2], plain[0::2])
    assert np.array_equal(bank[1::2], -plain[0:4:2])


def test_a_list_of_levels_is_a_grid_of_its_own() -> None:
    published = ",".join(str(32 + 33 * i) for i in range(30))  # SELF-BENCH's, 32 … 989
    plan = parse_levels(published)
    assert plan.assign_levels(30, 1000).tolist() == list(range(32, 990, 33))
    assert plan.assign_levels(60, 1000).tolist() == [
        t for t in range(32, 990, 33) for _ in range(2)
    ]
    assert parse_levels("1,5,9,13").assign_levels(2, 20).tolist() == [5, 13]
    assert parse_plan(str(plan)) == plan


@pytest.mark.parametrize(
    ("plan", "levels", "usual", "wanted"),
    [
        (None, None, "grid:0-200", "grid:0-200"),
        ("grid", None, "grid:0-200", "grid"),
        ("antithetic", None, "grid:0-200", "antithetic:0-200"),  # pairing keeps the levels
        ("antithetic", "grid", "grid:0-200", "antithetic"),
        (None, "grid:100-700", "grid", "grid:100-700"),
        (None, "grid", "grid:0-200", "grid"),
        ("repeated", "3,9", "grid:0-200", "repeated:3,9"),
        ("antithetic:0-500", None, "grid:0-200", "antithetic:0-500"),
    ],
)
def test_levels_and_pairing_are_two_settings(
    plan: str | None, levels: str | None, usual: str, wanted: str
) -> None:
    pairs = None if plan is None else parse_plan(plan)
    chosen = None if levels is None else parse_levels(levels)
    assert str(combine_plan(pairs, chosen, parse_plan(usual))) == wanted


def test_levels_are_said_once() -> None:
    with refused("levels"):
        combine_plan(parse_plan("grid:0-5"), parse_levels("0-9"), parse_plan("grid"))
    for text in ("gird", "5-3", "grid:a", "", "7,3"):
        with refused("levels", kind=ValueError):
            parse_levels(text)


def test_noise_of_an_image_depends_on_seed_draw_and_id_alone() -> None:
    one = generate_noise(3, 5, SHAPE, "cat/1.png")
    assert np.array_equal(one, generate_noise(3, 5, SHAPE, "cat/1.png"))
    others = [
        generate_noise(3, 5, SHAPE),
        generate_noise(3, 5, SHAPE, "cat/2.png"),
        generate_noise(3, 6, SHAPE, "cat/1.png"),
    ]
    others += [generate_noise(4, 5, SHAPE, "cat/1.png"), generate_noise(3, 5, SHAPE, "")]
    for other in others:
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.2
    many = generate_noise(3, 5, (100, *SHAPE), "cat/1.png")
    assert abs(many.mean()) < 0.02 and abs(many.std() - 1) < 0.02
    antithetic = parse_plan("antithetic")
    first, second = (antithetic.make_draw_noise(3, k, SHAPE, "cat/1.png") for k in (2, 3))
    assert np.array_equal(second, -first)
    assert np.array_equal(first, generate_noise(3, 2, SHAPE, "cat/1.png"))


def test_a_backbone_has_a_plan_of_its_own() -> None:
    own = resolve(RunConfig(dataset="ucmerced", backbone="tiny-landuse"))
    assert str(own.plan) == own.backbone.plan == "grid:0-200"
    other = RunConfig(dataset="ucmerced", backbone="tiny-landuse", plan=parse_plan("antithetic"))
    assert str(resolve(other).plan) == "antithetic:0-200"
    other = RunConfig(dataset="ucmerced", backbone="tiny-landuse", levels=parse_levels("0-700"))
    assert str(resolve(other).plan) == "grid:0-700"
    assert str(resolve(RunConfig(dataset="digits", backbone="tiny-digits")).plan) == "grid"


@pytest.mark.parametrize(
    "text",
    ["", "gird", "grid:-5", "grid:700-100", "grid:1-1", "grid 1-2", "grid:3,2", "grid:2,2"],
)
def test_what_is_no_plan(text: str) -> None:
    with refused("draw plan", kind=ValueError):
        parse_plan(text)


def test_a_range_must_fit_the_model() -> None:
    with refused("1000 levels"):
        parse_plan("grid:0-1001").assign_levels(10, 1000)
    with refused("level 1000"):
        parse_levels("3,1000").assign_levels(10, 1000)


def test_noise_that_would_not_fit_is_not_made() -> None:
    with refused("draws=100000", "6,250.0 GiB"):
        parse_plan("grid").make_noise(0, 100_000, (16, 1024, 1024))


def test_a_bank_without_noise_is_refused(tmp_path: Path) -> None:
    bank = parse_plan("grid").make_noise(0, 3, SHAPE)
    bank[1] = 0.0
    save_file({"noise": bank}, tmp_path / "noise.safetensors")
    with refused("draw 1"):
        read_noise(tmp_path / "noise.safetensors", 3)


def test_the_grid_is_the_references() -> None:
    timesteps = parse_plan("grid").assign_levels(500, 1000)
    assert timesteps[0] == 1
    assert timesteps[-1] == 999
    assert (np.diff(timesteps) == 2).all()
