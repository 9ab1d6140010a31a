"""Decisions that another run makes otherwise: by simulation, by hand, and what audits find."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.runs import a_record, store
from scipy.stats import norm

from bench.stats.calibration.agreement import (
    EM_STEPS,
    FEWEST_IMAGES,
    GAPS,
    audit_of,
    flip_probability,
    prior_factor,
    repeatability,
    sweepable_rows,
)
from bench.stats.sequential.betting import count_interval
from bench.store.folder import read_manifest
from bench.store.formats.decisions import as_decisions, read_decisions
from bench.store.formats.identity import digest
from bench.store.summary import AUDIT, Swept, permuted, read_swept
from bench.store.writing import RunFolder


def test_flips_as_often_as_two_seeds_differ() -> None:
    """Decisions drawn twice from known margins: the first run predicts how the second differs."""
    rng = np.random.default_rng(0)
    expectation = rng.normal(0, 0.05, 40_000)  # a flat prior, nearly: much wider than the error
    error = 0.01
    one, other = (expectation + rng.normal(0, error, 40_000) for _ in range(2))
    flips = flip_probability(np.abs(one), np.full(40_000, error))
    assert flips.mean() == pytest.approx((np.sign(one) != np.sign(other)).mean(), rel=0.05)


def test_every_rival_counts_and_not_the_runner_up_alone() -> None:
    """Ten classes: the runner-up alone gives 0.66 of what two runs differ in."""
    rng = np.random.default_rng(1)
    n, error = 20_000, 0.01
    expected = rng.normal(0, 0.05, (n, 10))
    one, other = (expected + rng.normal(0, error / np.sqrt(2), (n, 10)) for _ in range(2))
    gaps = np.diff(np.sort(one, axis=1), prepend=0)[:, 1:].cumsum(axis=1)
    differ = (one.argmin(axis=1) != other.argmin(axis=1)).mean()
    stderr = np.full(n, error)
    assert flip_probability(gaps[:, 0], stderr, gaps).mean() == pytest.approx(differ, rel=0.05)
    assert flip_probability(gaps[:, 0], stderr).mean() < 0.9 * differ


@pytest.mark.parametrize("rivals", [1, 2, 9])
def test_a_tie_of_all_is_drawn_by_lot(rivals: int) -> None:
    found = flip_probability(np.zeros(1), np.ones(1), np.zeros((1, rivals)))
    assert found[0] == pytest.approx(rivals / (rivals + 1), abs=1e-4)


def on_draws(name: str, label: int, prediction: int, draws: int = 16, **changes: Any) -> Any:
    other = 0 if prediction else 1
    return a_record(
        name, label, prediction, top=[[prediction, 0.1, draws], [other, 0.12, draws]], **changes
    )


def test_by_hand() -> None:
    records: Any = [
        on_draws("sure", 0, 0, margin=1.0, margin_stderr=0.0),
        on_draws("tie", 0, 0, margin=0.0, margin_stderr=0.1),  # p = 1/2
        on_draws("wrong, and so is its runner-up", 2, 1, margin=0.0, margin_stderr=0.1),
        a_record("failed", 1, None),
    ]
    found = repeatability(as_decisions(records), own_noise=True)
    assert found is not None and found.n == 3 and found.doubtful == 2
    assert found.expected_flips == pytest.approx(1.0)
    assert found.accuracy_stderr == pytest.approx(0.5 / 3)  # one decision of three, p = 1/2


def test_images_without_a_standard_error_are_counted_as_unknown() -> None:
    records: Any = [on_draws("a", 0, 0), on_draws("b", 0, 0, margin_stderr=None)]
    found = repeatability(as_decisions(records))
    assert found is not None and (found.n, found.unknown) == (1, 1)


def test_few_draws_have_no_estimate() -> None:
    """The standard error of eight draws of the digits was 1.2 times what seeds differ by."""
    assert repeatability(as_decisions([on_draws("a", 0, 0, draws=15)])) is None
    assert repeatability(as_decisions([on_draws("a", 0, 0, draws=16)])) is not None


def test_gaps_that_are_rare_near_zero_change_fewer_answers() -> None:
    """Of a model that tells its classes apart: a flat prior expects twice what differs."""
    rng = np.random.default_rng(3)
    gaps = rng.uniform(3.0, 12.0, 4000)
    one, other = (gaps + rng.normal(0, 1, 4000) for _ in range(2))
    differ = (one * other < 0).sum()
    records: Any = []
    for i, lead in enumerate(np.abs(one).tolist()):
        top = [[0, 0.0, 16], [1, lead, 16]]
        records.append(a_record(str(i), 0, 0, margin=lead, margin_stderr=1.0, top=top))
    found = repeatability(as_decisions(records))
    flat = flip_probability(np.abs(one), np.ones(4000)).sum()
    assert found is not None and flat > 2 * differ
    assert found.expected_flips < 0.6 * flat and found.expected_flips > 0.5 * differ


@pytest.mark.parametrize("n", [FEWEST_IMAGES - 1, FEWEST_IMAGES, 200])
def test_the_prior_is_fitted_by_expectation_and_maximisation(n: int) -> None:
    """A lead is normal about the gap, or about minus the gap if the winner is the wrong one."""
    lead = np.abs(np.random.default_rng(n).normal(1.0, 1.5, n)).round(2)
    right, wrong = (norm.pdf(lead[:, None], place) for place in (GAPS, -GAPS))
    wrong[:, 0] = 0  # without a gap, neither is wrong
    prior = np.full(len(GAPS), 1 / len(GAPS))
    for _ in range(EM_STEPS):
        shares = prior * (right + wrong)
        prior = (shares / shares.sum(axis=1, keepdims=True)).mean(axis=0)
    swapped = right * norm.cdf(-GAPS) + wrong * norm.cdf(GAPS)
    fitted = (swapped @ prior) / ((right + wrong) @ prior)
    factor = fitted / norm.cdf(-lead / np.sqrt(2)) if n >= FEWEST_IMAGES else np.ones(n)
    np.testing.assert_allclose(prior_factor(lead), factor, rtol=1e-9)


def test_images_that_share_their_noise_give_no_standard_error_of_the_accuracy() -> None:
    """All margins move together: the accuracy moves by 1/2 in all, and not by 1/2 over sqrt(n)."""
    records: Any = [on_draws(str(i), 0, 0, margin=0.0, margin_stderr=0.1) for i in range(100)]
    shared, own = (
        repeatability(as_decisions(records)),
        repeatability(as_decisions(records), own_noise=True),
    )
    assert shared is not None and shared.accuracy_stderr is None
    assert own is not None and own.accuracy_stderr == pytest.approx(0.05)


N = 40


def missed(population: int, count: int) -> float:
    """Return the probability that some prefix of the random order shows a wrong interval, exactly.

    Over the lattice of (images drawn, of which agree), whose steps have hypergeometric odds.
    """
    alive = {0: 1.0}  # number of agreeing images → probability, of paths that never missed
    lost = 0.0
    for n in range(1, population + 1):
        after: dict[int, float] = {}
        for same, probability in alive.items():
            agrees = (count - same) / (population - n + 1)
            for more, odds in ((1, agrees), (0, 1 - agrees)):
                if odds > 0:
                    after[same + more] = after.get(same + more, 0) + probability * odds
        alive = {}
        for same, probability in after.items():
            low, high = count_interval(same, n, population)
            if low <= count <= high:
                alive[same] = probability
            else:
                lost += probability
    return lost


@pytest.mark.parametrize("population", [1, 7, N])
def test_it_misses_at_any_time_with_five_percent_at_most(population: int) -> None:
    """Exact, for every true count: looking after each image is no peeking."""
    losses = [missed(population, count) for count in range(population + 1)]
    assert max(losses) <= 0.05
    assert population < N or max(losses) > 0.01, "an interval that never misses says nothing"


def test_thirty_of_thirty_show_ninety_percent() -> None:
    assert count_interval(30, 30, 360) == (324, 360)
    assert count_interval(300, 300, 10_000)[0] >= 9850
    assert count_interval(60, 60, 60) == (60, 60)
    assert count_interval(0, 1, 1) == (0, 0)
    low, high = count_interval(15, 30, 360)
    assert low < 180 < high


def audited(tmp_path: Path, swept: Mapping[str, int | None], **more: Any) -> tuple[Path, Any]:
    """Store a run of 20 images with class 0, some of them swept, and return its audit."""
    cheap = {"evaluations": 6, "decided_by": "bound"}
    path = store(tmp_path, [0] * 20, [0] * 20, cheap, draws=10, scoring={"loss": "l2"}, **more)
    manifest = read_manifest(path)
    with RunFolder(path, manifest) as folder:
        for name, prediction in swept.items():
            regret = None if prediction is None else 0.01 * prediction
            cost = {"evaluations": 30, "equivalents": 30.0, "seconds": 0.5}
            line = {"sample_id": name, "prediction": prediction, "regret": regret, **cost}
            folder.append_swept(Swept(**line))  # type: ignore[typeddict-item]
    return path, audit_of(read_swept(path, manifest), manifest, read_decisions(path, manifest))


def order(tmp_path: Path) -> list[str]:
    manifest = read_manifest(audited(tmp_path / "order", {})[0])
    return permuted(manifest.samples, digest(manifest.identity))


def test_only_the_beginning_of_the_random_order_counts(tmp_path: Path) -> None:
    """Images that were chosen otherwise, for a reason that nobody knows, show nothing."""
    names = order(tmp_path)
    _, audit = audited(tmp_path / "a", dict.fromkeys([*names[:4], names[7]], 0))
    assert (audit.of, audit.images, audit.same, audit.evaluations) == (20, 4, 4, 120)
    assert audit.agreement_ci95 == (count_interval(4, 4, 20)[0] / 20, 1.0)
    assert audited(tmp_path / "b", {names[1]: 0})[1] is None
    assert audited(tmp_path / "c", {})[1] is None


def test_the_order_of_an_image_does_not_depend_on_the_others() -> None:
    names = [f"s{i}" for i in range(200)]
    whole = permuted(names, "x")
    assert permuted(names[::3], "x") == [name for name in whole if int(name[1:]) % 3 == 0]
    assert whole != names and whole != permuted(names, "y")


def test_a_sweep_that_failed_counts_as_another_decision(tmp_path: Path) -> None:
    names = order(tmp_path)
    _, audit = audited(tmp_path / "a", {names[0]: 0, names[1]: None, names[2]: 1})
    assert (audit.images, audit.same) == (3, 1)


def test_what_is_worse_by_a_tie_is_counted_apart(tmp_path: Path) -> None:
    """A tie is never left out: both agreements are of the same images."""
    names = order(tmp_path)
    path, plain = audited(tmp_path / "a", dict(zip(names[:6], [1, 2, 0, 0, 0, 0], strict=True)))
    assert plain.same_or_tied is None
    manifest = read_manifest(path)
    params = {**manifest.strategy.params, "tie": 0.01}
    strategy = manifest.strategy.model_copy(update={"params": params})
    tied = manifest.model_copy(update={"strategy": strategy})
    audit = audit_of(read_swept(path, tied), tied, read_decisions(path, tied))
    assert audit is not None and (audit.images, audit.same, audit.same_or_tied) == (6, 4, 5)
    assert audit.same_or_tied_ci95 is not None
    assert audit.agreement_ci95 == plain.agreement_ci95 < audit.same_or_tied_ci95


def test_draws_that_ran_out_are_no_full_sweep(tmp_path: Path) -> None:
    """A race may have dropped the winner before: only an image with every cell agrees for sure."""
    records = [
        a_record("a", 0, 0, evaluations=29, decided_by="exhausted"),
        a_record("b", 0, 0, evaluations=30, decided_by="exhausted"),
        a_record("c", 0, None, evaluations=3),
    ]
    manifest = read_manifest(audited(tmp_path, {})[0])
    rows = sweepable_rows(as_decisions(records), manifest, 30)
    assert np.array_equal(rows, [True, False, False])
    tree = manifest.model_copy(update={"parents": [3, 3, 3, -1]})
    rows = sweepable_rows(as_decisions(records), tree, 30)
    assert np.array_equal(rows, [True, True, False]), "30 may be those of inner nodes too"


def test_a_torn_line_counts_as_not_swept(tmp_path: Path) -> None:
    names = order(tmp_path)
    path, _ = audited(tmp_path / "a", dict.fromkeys(names[:3], 0))
    file = path / AUDIT.name
    file.write_bytes(file.read_bytes()[:-20])
    assert set(read_swept(path, read_manifest(path))) == set(names[:2])
    with RunFolder(path, read_manifest(path)) as folder:
        cost = {"evaluations": 30, "equivalents": 30.0, "seconds": 0.5}
        line = {"sample_id": names[2], "prediction": 0, "regret": 0.0, **cost}
        folder.append_swept(Swept(**line))  # type: ignore[typeddict-item]
    assert set(read_swept(path, read_manifest(path))) == set(names[:3])
