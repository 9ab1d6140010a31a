"""Two runs compared: the right test on the right pairs, and nothing that does not compare."""

from __future__ import annotations

from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.command import bench
from helpers.runs import store

from bench.errors import UserError
from bench.stats.comparison import compare, mcnemar, paired_test

LABELS = [i % 3 for i in range(60)]


def wrong(*places: int) -> list[int | None]:
    return [(y + 1) % 3 if i in places else y for i, y in enumerate(LABELS)]


def test_by_hand(tmp_path: Path) -> None:
    a = store(tmp_path, LABELS, wrong(*range(10)))
    b = store(tmp_path, LABELS, wrong(8, 9, 10), seed=1)
    found = compare(a, b)
    assert (found["wins"], found["losses"], found["ties"], found["n"]) == (8, 1, 51, 60)
    assert found["difference"] == pytest.approx(7 / 60)
    assert found["mcnemar_p"] == pytest.approx(2 * sum(comb(9, k) for k in (0, 1)) / 2**9)
    assert found["significant"] and not found["regression"]
    assert found["agreement"] == pytest.approx(51 / 60)
    assert found["cost_ratio"] == 1 and found["settings"] == {"seed": [0, 1]}
    assert found["warnings"] == []
    first = found["per_class"][0]
    assert (first["n"], first["wins"], first["losses"]) == (20, 3, 0)


def test_the_interval_equals_a_bootstrap_over_the_pairs() -> None:
    """Drawing counts is resampling pairs: scipy's own bootstrap says the same."""
    from scipy.stats import bootstrap

    rng = np.random.default_rng(5)
    a, b = rng.random(400) < 0.6, rng.random(400) < 0.7
    found = paired_test(a, b, seed=1)
    slow = bootstrap(
        (b.astype(float) - a,), np.mean, n_resamples=10_000, method="percentile", rng=2
    ).confidence_interval
    assert found["difference_ci95"] == pytest.approx([slow.low, slow.high], abs=0.005)
    assert found == paired_test(a, b, seed=1)


def test_the_interval_covers_the_truth() -> None:
    """The true difference is 0.1; of 300 experiments about 95 % must say so."""
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(300):
        draw = rng.random(200)
        low, high = paired_test(draw < 0.6, rng.random(200) < 0.7, seed)["difference_ci95"]
        covered += low <= 0.1 <= high
    assert 0.91 <= covered / 300 <= 0.985


def test_mcnemar_rejects_no_more_often_than_it_says() -> None:
    rng = np.random.default_rng(0)
    wins = rng.binomial(40, 0.5, 4000)
    assert np.mean([mcnemar(int(w), 40 - int(w)) < 0.05 for w in wins]) <= 0.05
    assert mcnemar(0, 0) == 1


def test_mcnemar_equals_scipy_s_sign_test() -> None:
    from scipy.stats import binomtest

    wins, losses = np.array([0, 3, 8, 40, 700]), np.array([1, 3, 1, 61, 800])
    wanted = [binomtest(int(w), int(w + x)).pvalue for w, x in zip(wins, losses, strict=True)]
    assert mcnemar(wins, losses) == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dataset": "e"}, "the dataset differs.*'d'.*'e'"),
        ({"version": 2}, "version of the dataset differs"),
        ({"split": "train"}, "the split differs.*'test'.*'train'"),
        ({"n_classes": 4}, "only one has 'class 3'"),
        ({"sample_ids": [f"t{i}" for i in range(60)]}, "share no decided sample"),
    ],
)
def test_what_does_not_compare_is_refused(
    tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    a = store(tmp_path, LABELS, LABELS)
    b = store(tmp_path, LABELS, LABELS, **{"seed": 1, **change})
    with pytest.raises(UserError, match=words):
        compare(a, b)


def test_other_labels_are_refused(tmp_path: Path) -> None:
    a = store(tmp_path, LABELS, LABELS)
    b = store(tmp_path, LABELS[1:] + LABELS[:1], LABELS, seed=1)
    with pytest.raises(UserError, match="different labels"):
        compare(a, b)


def test_what_compares_with_care_is_warned_of(tmp_path: Path) -> None:
    a = store(tmp_path, LABELS[:40], LABELS[:40], n_total=60, trained_on="d/train")
    b = store(tmp_path, LABELS, [None, *LABELS[1:]], seed=1, fingerprint="0" * 64)
    found = compare(a, b)
    said = " ".join(found["warnings"])
    assert found["n"] == 40
    for words in (
        "fingerprint ffffffff in A, 00000000 in B",
        "20 of",
        "subset: 40 of the split's 60",
        "A is trained on d/train, B is zero-shot",
        "1 images failed",
    ):
        assert words in said


def test_the_command_and_its_gate(tmp_path: Path) -> None:
    a = store(tmp_path, LABELS, LABELS)
    b = store(tmp_path, LABELS, wrong(*range(12)), seed=1)
    shown = bench("compare", a.name, b.name, "--results", tmp_path)
    assert shown.code == 0 and "McNemar" in shown.out and "class 1" in shown.out
    gated = bench("compare", a, b, "--gate", "--json")
    assert gated.code == 4 and gated.json["regression"] and "worse" in gated.err
    assert bench("compare", b, a, "--gate").code == 0
    assert bench("compare", a, b.name + "x").code == 2
