"""What a study would cost, before it runs."""

from __future__ import annotations

from pathlib import Path

from helpers.command import bench


def test_a_dry_run_says_what_is_there(study: Path, tmp_path: Path) -> None:
    results = ("--results", tmp_path / "r")
    plan = bench("study", study, *results, "--dry-run", "--json").json
    assert (plan["runs"], plan["runs_there"], plan["images_to_score"]) == (3, 0, 120)
    assert not (tmp_path / "r").exists()
    bench("run", "digits", "--backbone", "majority", "--limit", 40, *results)
    plan = bench("study", study, *results, "--dry-run", "--json").json
    assert (plan["runs_there"], plan["images_to_score"]) == (1, 80)
