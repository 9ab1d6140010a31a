"""What cannot be replayed is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.recorded import record, replay

from bench.errors import UserError
from bench.recordings.recording import open_recording


def test_a_run_without_its_errors_is_refused(recording: Path, tmp_path: Path) -> None:
    without = replay(recording, "race", {}, tmp_path)
    with pytest.raises(UserError, match="--strategy full --save-errors"):
        open_recording(tmp_path / without["run_id"])


def test_a_recording_with_missing_cells_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not hold every cell"):
        open_recording(record(tmp_path, skip=(0,)))
