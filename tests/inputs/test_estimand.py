"""Weights and spaces against their definitions; what has no meaning is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from helpers.flows import edm_sigmas
from helpers.refusals import refused

from bench.contracts.levels import (
    Levels,
    answer_of,
    diffusion_levels,
    edm_levels,
    flow_levels,
)
from bench.inputs.estimand import (
    Weighting,
    cell_loss,
    check_estimand,
    draw_weights,
    parse_weighting,
    read_weights,
    space_factor,
)
from bench.running.parts.settings import make_config

ABAR = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)
FLOW = {"num_train_timesteps": 1000, "shift": 3.0}
TABLES = {
    "epsilon": diffusion_levels(ABAR, "epsilon"),
    "sample": diffusion_levels(ABAR, "sample"),
    "v_prediction": diffusion_levels(ABAR, "v_prediction"),
    "flow": flow_levels(FLOW),
    "negated": flow_levels(FLOW).answering(np.full(1000, 2.0), np.full(1000, -2.0)),
    "edm": edm_levels(edm_sigmas(1000)),
}
ROWS = np.array([3, 200, 500, 997])


def weights_of(weighting: Weighting, levels: Levels, space: str, rows: np.ndarray) -> np.ndarray:
    return draw_weights(weighting, levels.rows(rows), space, rows, len(levels))


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("space", ["prediction", "epsilon", "sample", "v"])
@pytest.mark.parametrize("text", ["snr", "exp:-7", "min-snr:5"])
def test_named_weights_weigh_the_squared_x_0_error(name: str, space: str, text: str) -> None:
    levels = TABLES[name]
    if text.startswith("exp") and levels.progress is None:
        with refused("time"):
            weights_of(parse_weighting(text), levels, space, ROWS)
        return
    snr = levels.snr[ROWS]
    t = ROWS / 1000 if name in ("epsilon", "sample", "v_prediction") else levels.sigma[ROWS]
    of_x_0 = {"snr": snr, "exp:-7": np.exp(-7 * t), "min-snr:5": np.minimum(snr, 5)}[text]
    error = np.array([0.3, 1.0, 2.0, 0.1])  # squared, of the model's answer
    x_0_error = error * space_factor(levels, "sample")[ROWS] ** 2
    space_error = error * space_factor(levels, space)[ROWS] ** 2
    weights = weights_of(parse_weighting(text), levels, space, ROWS)
    assert weights.mean() == pytest.approx(1)
    ratio = (weights * space_error) / (of_x_0 * x_0_error)
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-9)
    if (space, text) == ("epsilon", "snr"):
        np.testing.assert_allclose(weights, 1)


def test_factors_of_before_are_the_same_float32() -> None:
    """What `--space` multiplied with before level tables, bit for bit."""
    alpha, sigma = np.sqrt(ABAR), np.sqrt(1 - ABAR)
    per_v = {"epsilon": alpha, "sample": -sigma, "v": np.ones(1000)}
    for own, of in (("epsilon", "epsilon"), ("sample", "sample"), ("v_prediction", "v")):
        levels = diffusion_levels(ABAR, own)
        for space, change in per_v.items():
            wanted = (change / per_v[of]).astype(np.float32)
            found = space_factor(levels, space).astype(np.float32)
            np.testing.assert_array_equal(found, wanted)


def write(path: Path, *rows: str) -> Path:
    path.write_text("\n".join(["level,weight", *rows]) + "\n")
    return path


def test_a_file_weighs_the_error_in_use(tmp_path: Path) -> None:
    file = write(tmp_path / "w.csv", "3,1", "200,2", "500,4", "997,1")
    weighting = parse_weighting(str(file))
    assert str(weighting) == str(file)
    weights = weights_of(weighting, TABLES["flow"], "v", ROWS)
    np.testing.assert_allclose(weights, [0.5, 1, 2, 0.5])
    with refused("level 4"):
        weights_of(weighting, TABLES["flow"], "v", np.array([3, 4]))
    other = parse_weighting(str(write(tmp_path / "other.csv", "3,1", "1000,1")))
    with refused("other.csv: level 1000"):
        weights_of(other, TABLES["flow"], "v", ROWS[:1])


@pytest.mark.parametrize(
    ("rows", "named"),
    [
        (["1,nan"], "w.csv:2"),
        (["1,1", "2,-3"], "w.csv:3"),
        (["1,0"], "--levels"),
        (["1,inf"], "w.csv:2"),
        (["1,1", "1,2"], "w.csv:3"),
        (["one,1"], "'one'"),
        (["1"], "w.csv:2"),
        ([], "w.csv"),
    ],
)
def test_a_file_that_is_none(tmp_path: Path, rows: list[str], named: str) -> None:
    with refused(named):
        read_weights(write(tmp_path / "w.csv", *rows))


def test_another_header_and_another_encoding(tmp_path: Path) -> None:
    file = tmp_path / "w.csv"
    file.write_text("timestep,weight\n1,1\n")
    with refused("w.csv:1", "'level'"):
        read_weights(file)
    file.write_text("weight,level\n2,1\n")
    assert read_weights(file) == {1: 2.0}
    file.write_bytes(b"level,weight\n\xff,1\n")
    with refused("UTF-8"):
        read_weights(file)


@pytest.mark.parametrize(
    "text", ["", "exp", "exp:", "exp:x", "exp:nan", "min-snr:0", "learned:", "./no"]
)
def test_what_is_no_weighting(text: str) -> None:
    with refused(kind=ValueError):
        parse_weighting(text)


def test_a_learned_weighting_needs_its_weights() -> None:
    with refused("learned:RUN", kind=ValueError):
        weights_of(parse_weighting("learned:RUN"), TABLES["flow"], "v", ROWS)


def test_losses_and_named_weights() -> None:
    for loss in ("l1", "huber", "norm"):
        check_estimand(loss, "sample", parse_weighting("exp:-7"))
        check_estimand(loss, "epsilon", Weighting())
        with refused("--space sample", kind=ValueError):
            check_estimand(loss, "prediction", parse_weighting("snr"))
    check_estimand("l2", "prediction", parse_weighting("min-snr:5"))


def test_a_level_whose_weight_is_not_finite_is_named() -> None:
    alpha = np.array([1.0, 0.5, 0.0])
    sigma = 1 - alpha
    levels = Levels(alpha, sigma, alpha, *answer_of("flow", alpha, sigma), sigma)
    for text, space, rows in (("snr", "sample", [0, 1]), ("exp:-7", "epsilon", [2, 1])):
        with refused(f"level {rows[0]} "):
            weights_of(parse_weighting(text), levels, space, np.array(rows))


def test_the_elements_of_huber_are_torchs_to_the_last_bit() -> None:
    d = torch.cat([torch.linspace(-3, 3, 4001), torch.tensor([1.0, -1.0, 0.0])])
    each = cell_loss(d[:, None, None, None], "huber")
    assert torch.equal(each, F.huber_loss(d, torch.zeros_like(d), reduction="none"))


def test_an_unknown_loss_is_an_error_and_not_huber() -> None:
    unknown: Any = "l9"
    with refused("l9", kind=AssertionError):
        cell_loss(torch.zeros(1, 1, 1, 1), unknown)
    with refused("'l2'", "'l1'", "'huber'", "'norm'"):
        make_config({"dataset": "digits", "loss": "l9"})
