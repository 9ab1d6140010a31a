"""Masked image models: the tokens that a draw hides, and its errors. The oracle has more cases."""

import shutil
from itertools import permutations
from math import comb, cos, pi
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from helpers.command import bench
from helpers.damage import Damage, says
from helpers.masked import CODES, save_amused
from helpers.refusals import refused
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import bench as toolkit
from bench.engine.direct import CheckedLikelihood
from bench.inputs.weights import resolve
from bench.testing import LikelihoodContract
from bench_plugins.backbones.masked import MASKS, Amused, hidden_count, hidden_places

MADE: dict[str, Any] = {"device": "cpu", "dtype": "float32"}
DIGITS = ("run", "digits", "--limit", 3, "--json", "--set", "draws=8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_amused(tmp_path_factory.mktemp("masked") / "amused")


class TestAmused(LikelihoodContract):
    @pytest.fixture
    def backbone(self, folder: Path) -> CheckedLikelihood:
        return CheckedLikelihood(Amused(resolve(str(folder)), **MADE), "amused")


@given(st.integers(1, 40), st.integers(1, 6), st.integers(0, 2**40))
def test_as_many_tokens_are_hidden_as_the_draw_says(tokens: int, each: int, number: int) -> None:
    n_draws = tokens * each
    counts = [hidden_count("elbo", k, n_draws, tokens) for k in range(n_draws)]
    assert [counts.count(m) for m in range(1, tokens + 1)] == [each] * tokens
    learned = [hidden_count("training", k, n_draws, tokens) for k in range(n_draws)]
    expected = [tokens * cos(pi / 2 * (k + 0.5) / n_draws) for k in range(n_draws)]
    assert max(abs(m - e) for m, e in zip(learned, expected, strict=True)) <= 1 <= min(learned)
    places = hidden_places(number, tokens // 2 + 1, tokens).tolist()
    assert len({*places} & {*range(tokens)}) == len(places) == tokens // 2 + 1


def test_the_bound_of_four_tokens_is_the_mean_over_all_their_orders(tmp_path: Path) -> None:
    """D times the mean error over all 15 masks, m by m, is that of −log p over all 24 orders."""
    model = Amused(resolve(str(save_amused(tmp_path / "four", rows=2))), **MADE)
    image, text, n_draws = Image.linear_gradient("L").rotate(30), "a photo of a cat", 1200
    numbers = np.arange(n_draws)
    errors = model.evaluate_of([image] * n_draws, [text] * n_draws, numbers, n_draws)
    hidden = model._hidden(numbers, n_draws).reshape(n_draws, 4)
    by_mask = {tuple(row): error for row, error in zip(hidden.tolist(), errors, strict=True)}
    assert len(by_mask) == 15
    of_count = [sum(e for mask, e in by_mask.items() if sum(mask) == m) for m in range(1, 5)]
    bound = sum(total / comb(4, m) for m, total in enumerate(of_count, start=1))

    codes = model.encode([image])[0].flatten()
    states, pooled = model._encoded([text])
    told = torch.tensor([[8.0, 8.0, 0.0, 0.0, 6.0]])

    def log_p(place: int, known: tuple[int, ...]) -> float:
        seen = torch.full((4,), model.mask_id)
        seen[list(known)] = codes[list(known)]
        logits = model.network(seen.view(1, 2, 2), states, pooled, told).flatten(2)
        return float(logits[0, :, place].log_softmax(0)[codes[place]])

    with torch.no_grad():
        orders = [
            -sum(log_p(place, order[:step]) for step, place in enumerate(order))
            for order in permutations(range(4))
        ]
    assert len(orders) == 24 and bound == pytest.approx(np.mean(orders), rel=1e-5)


@pytest.mark.parametrize("masks", MASKS)
def test_it_is_raced_priced_and_compared_as_noise_is(
    masks: str, folder: Path, tmp_path: Path
) -> None:
    words = (*DIGITS, "--backbone", f"{folder}/", "--set", f"masks={masks}", "--results", tmp_path)
    full = bench(*words, "--strategy", "full", "--save-errors").json
    raced = bench(*words, "--strategy", "race").json
    assert full["cost"]["evaluations"] == 3 * 10 * 8 >= raced["cost"]["evaluations"]
    flop = Amused.evaluation_flops(resolve(str(folder))) or 0.0
    assert full["cost"]["flop_per_image"] == pytest.approx(80 * flop)
    again = ("replay", full["results_dir"], "--strategy", "race", "--set", "draws=8")
    replayed = bench(*again, "--results", tmp_path / "replayed", "--json").json
    assert replayed["cost"]["evaluations"] == raced["cost"]["evaluations"]
    done = bench("compare", full["results_dir"], raced["results_dir"], "--json")
    assert done.json["cost_ratio"] == pytest.approx(
        raced["cost"]["evaluations"] / full["cost"]["evaluations"]
    )


NETWORK, SCHEDULER = "transformer/config.json", "scheduler/scheduler_config.json"
WRONG: dict[str, tuple[Damage, str, str]] = {
    "codes": (says(NETWORK, codebook_size=CODES + 1), NETWORK, "33, but vqvae has 32 codes"),
    "hidden token": (says(SCHEDULER, mask_token_id=3), SCHEDULER, "mask_token_id 3"),
    "no hidden token": (says(SCHEDULER, mask_token_id=None), SCHEDULER, "mask_token_id None"),
    "class": (says("vqvae/config.json", _class_name="AutoencoderKL"), "vqvae", "expected VQModel"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_folder_that_does_not_fit_is_refused(what: str, folder: Path, tmp_path: Path) -> None:
    damage, file, message = WRONG[what]
    damage(copied := shutil.copytree(folder, tmp_path / "copied"))
    done = bench(*DIGITS, "--backbone", f"{copied}/", "--results", tmp_path)
    assert done.refuses(file, message)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--set", "masks=all"), "masks must be one of elbo, training"),
        (("--set", "aesthetic=1e300"), "aesthetic = 1e+300"),
        (("--set", "aesthetic=-70000"), "aesthetic = -70000"),
        (("--resolution", 18), "must be a multiple of 4"),
        (("--template", "a {class} " * 80), "tokens and would be cut at 77"),
        (("--loss", "l1"), "--loss"),
        (("--guidance", 3), "--guidance"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    options: tuple[object, ...], message: str, folder: Path, tmp_path: Path
) -> None:
    done = bench(*DIGITS, "--backbone", f"{folder}/", "--results", tmp_path, *options)
    assert done.refuses(message)


def test_in_memory_it_is_refused_with_the_reason(folder: Path) -> None:
    pipe = diffusers.AmusedPipeline.from_pretrained(folder)
    with refused("AmusedPipeline", "vae"):
        toolkit.run("digits", backbone=pipe, limit=1)
