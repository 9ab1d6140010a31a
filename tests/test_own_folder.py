"""A test that names a target outside its own folder is stopped before anything happens."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.places import ROOT

ELSEWHERE = ROOT / "no-such-folder" / "file"


@pytest.mark.parametrize(
    "act",
    [
        lambda own: own.symlink_to(ELSEWHERE),
        lambda own: os.link(own, ELSEWHERE),
        lambda own: own.rename(ELSEWHERE),
        lambda own: ELSEWHERE.write_text("x"),
        lambda own: ELSEWHERE.unlink(),
        lambda own: ELSEWHERE.mkdir(),
        lambda own: shutil.rmtree(ELSEWHERE),
        lambda own: os.truncate(ELSEWHERE, 0),
    ],
)
def test_a_target_elsewhere_is_refused(act: Callable[[Path], object], tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=str(ELSEWHERE)):
        act(tmp_path / "own")
    (tmp_path / "own").write_text("x")
    (tmp_path / "own").unlink()
