"""`vote` counts the votes of draws as by hand."""

from collections import Counter
from dataclasses import replace

import numpy as np
from helpers.refusals import refused
from helpers.tables import concluded, make, make_problem, make_table, prediction, run


def errors_of(*rows: tuple[float, ...]) -> np.ndarray:
    return np.array(rows, np.float32)


def test_votes_are_those_counted_by_hand() -> None:
    """On tables of close classes: the order is that of a count, then of the means."""
    for seed in range(20):
        errors = make_table(5, 31, seed=seed, gap=0.002)
        votes, means = Counter(errors.argmin(axis=0).tolist()), errors.mean(axis=1)
        expected = sorted(range(5), key=lambda c: (-votes[c], means[c]))
        assert concluded(run(make("vote", 31), errors)).ranking.tolist() == expected


def test_a_tie_of_votes_goes_to_the_lower_mean_and_is_reported() -> None:
    errors = errors_of((0.1, 0.1, 0.9, 0.9), (0.2, 0.2, 0.2, 0.2), (5.0, 5.0, 5.0, 5.0))
    outcome = concluded(run(make("vote", 4), errors))
    assert outcome.ranking.tolist() == [1, 0, 2] and outcome.decided_by == "tie"
    clear = concluded(run(make("vote", 3), errors[:, :3]))
    assert clear.ranking.tolist() == [0, 1, 2] and clear.decided_by == "exhausted"


def test_a_draw_without_a_single_best_class_shares_its_vote() -> None:
    """Three thirds are one vote, so all four classes have one, and the means decide."""
    thirds = (0.1, 0.1, 0.1)
    errors = errors_of((*thirds, 0.5), (0.3, 0.3, 0.3, 0.1), (*thirds, 0.4), (*thirds, 0.6))
    outcome = concluded(run(make("vote", 4), errors))
    assert outcome.decided_by == "tie" and outcome.ranking.tolist() == [2, 0, 3, 1]


def test_prompts_of_a_class_vote_together_and_weights_count() -> None:
    errors = errors_of((0.1, 0.9, 0.9), (0.9, 0.1, 0.9), (0.5, 0.5, 0.1), (0.8, 0.8, 0.8))
    assert prediction(make("vote", 3), errors, per_class=2) == 0
    heavy = replace(make_problem(errors, per_class=2), weights=np.array([0.1, 0.1, 2.8]))
    assert concluded(run(make("vote", 3), errors, problem=heavy)).ranking[0] == 1


def test_few_draws_vote_at_the_cost_of_uniform() -> None:
    errors = make_table(6, 40)
    assert run(make("vote", 40, samples=8), errors).evaluations == 48
    assert make("vote", 40, samples=8).at_most(make_problem(errors)) == 48
    with refused("samples", "41", kind=Exception):
        make("vote", 40, samples=41)
