"""What the tests of studies share."""

from pathlib import Path

import pytest
from helpers.studies import GRID


@pytest.fixture
def study(tmp_path: Path) -> Path:
    file = tmp_path / "small.toml"
    file.write_text(GRID)
    return file
