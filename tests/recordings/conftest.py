"""One recording for all; what runs on digits costs nothing, and data is read in this process."""

from pathlib import Path

import pytest
from helpers.opened_here import opened_here as opened_here
from helpers.recorded import record
from helpers.sketch import sketched as sketched


@pytest.fixture(scope="session")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(tmp_path_factory.mktemp("recorded"))
