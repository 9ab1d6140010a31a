"""Workers are processes of their own, so runs are scored by `tiny-digits` itself here."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module")
def sketched() -> None:
    """Replace nothing."""
