"""The standard error of a margin, against the spread of simulated margins."""

import numpy as np
import pytest

from bench.contracts.strategy import ErrorTable, Evaluate, Floats, Problem, Reply, paired_mean

DRAWS = 40


def pairs_of(rng: np.random.Generator, correlation: float) -> Floats:
    """Return differences on 20 levels, two draws each, with a trend along the levels."""
    first, other = rng.standard_normal((2, DRAWS // 2))
    second = correlation * first + np.sqrt(1 - correlation**2) * other
    return np.stack([first, second], axis=1).ravel() + np.repeat(np.linspace(0, 1, 20), 2)


@pytest.mark.parametrize("correlation", [-0.5, 0.0, 0.5])
def test_an_antithetic_pair_is_one_value(correlation: float) -> None:
    rng, weights, pairs = np.random.default_rng(0), np.ones(DRAWS), np.arange(DRAWS) // 2
    tables = [pairs_of(rng, correlation) for _ in range(3000)]
    wanted = np.std([table.mean() for table in tables])
    errors = np.array([paired_mean(table, weights, pairs)[1] for table in tables])
    assert np.sqrt((errors**2).mean()) == pytest.approx(wanted, rel=0.05)
    if correlation:  # as neighbours, the two draws of a level give another error
        alone = np.array([paired_mean(table, weights)[1] for table in tables])
        assert np.sqrt((alone**2).mean()) != pytest.approx(wanted, rel=0.2)


def test_a_session_on_antithetic_draws_pairs_them_whichever_it_has() -> None:
    """Draws 0 and 1 are a pair, 5 is half of one."""
    errors = np.array([[0, 0, 0], [1.0, 3.0, 8.0]], dtype=np.float32)
    request = Evaluate(np.arange(2), np.array([0, 1, 5]))
    outcomes = {}
    for antithetic in (False, True):
        problem = Problem(
            np.arange(2), np.repeat(np.arange(3), 2), np.ones(6), antithetic=antithetic
        )
        table = ErrorTable(problem)
        table.tell(request, Reply(errors, 6.0))
        outcomes[antithetic] = table.outcome()
    assert outcomes[True].margin == outcomes[False].margin == 4.0
    # two values, 2 and 8, of which the first counts twice: variance 18, times 5, over 3 squared
    assert outcomes[True].margin_stderr == pytest.approx(np.sqrt(18 * 5) / 3)
    assert outcomes[False].margin_stderr == pytest.approx(np.sqrt(3 * (4 + 25) / 4) / 3)


def test_one_pair_says_nothing_of_others() -> None:
    assert paired_mean(np.array([1.0, 2.0]), np.ones(2), np.zeros(2, dtype=int)) == (1.5, np.inf)
