"""Cases of the oracle; `PYTHONPATH=tests python -m oracle 1000` draws others."""

import pytest
from helpers.matrix import matrix
from oracle.cases import draw
from oracle.comparison import Comparison
from oracle.routes import ROUTES
from oracle.session import Session


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    return Comparison(Session(tmp_path_factory.mktemp("oracle")))


@pytest.mark.parametrize("seed", matrix(range(40), [0, 16]))
def test_every_route_leads_to_the_numbers_of_the_reference(
    seed: int, comparison: Comparison
) -> None:
    name = list(ROUTES)[seed % len(ROUTES)]
    case = draw(seed, name, ROUTES[name].terms)
    found = comparison.check(case, ROUTES[name].go)
    assert not found, "\n".join(
        [f'{case}: python -m oracle 1 --route "{name}" --seed {seed}', *found]
    )
