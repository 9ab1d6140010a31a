"""The weights that the package includes."""

from __future__ import annotations

import pytest
from helpers.places import ROOT

WEIGHTS = ROOT / "plugins" / "bench_plugins" / "backbones" / "weights"


@pytest.mark.parametrize(("name", "largest"), [("tiny_digits", 6e6), ("tiny_landuse", 21e6)])
def test_included_weights_are_small_and_without_code(name: str, largest: float) -> None:
    files = [path for path in (WEIGHTS / name).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < largest
    assert not [path for path in files if path.suffix in (".bin", ".pt", ".ckpt", ".pkl", ".py")]
    assert "not zero-shot" in (WEIGHTS / name / "README.md").read_text("utf-8")
