"""One recording for all."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.recorded import record


@pytest.fixture(scope="session")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(tmp_path_factory.mktemp("recorded"))
