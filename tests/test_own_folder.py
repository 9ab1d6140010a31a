"""What tests rely on: a target elsewhere is stopped, and a refusal has a kind and a subject."""

import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.places import ROOT
from helpers.refusals import refused, warned

from bench.errors import BenchWarning, UserError

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


@pytest.mark.parametrize("said", ["must be above 0", "--limit", "--limit: 0", "--limit 0 1 2 3 a"])
def test_a_refusal_names_its_subject_and_says_more(said: str) -> None:
    with pytest.raises(AssertionError), refused("--limit"):
        raise UserError(said)
    with pytest.raises(AssertionError), warned("--limit"):
        warnings.warn(said, BenchWarning, stacklevel=1)
