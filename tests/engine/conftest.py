"""What the engine decides by its usual settings, to compare with."""

import pytest
from helpers.engines import outcomes, prepared

from bench.contracts.decision import Decided


@pytest.fixture(scope="session")
def wanted() -> dict[str, Decided]:
    return outcomes(*prepared())
