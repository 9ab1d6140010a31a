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
    assert not plan["at_most"]


def test_a_cost_that_is_a_bound_says_so(tmp_path: Path) -> None:
    file = tmp_path / "mixed.toml"
    file.write_text(
        'datasets = ["digits"]\nbackbones = ["tiny-digits"]\nlimit = 4\n'
        'strategies = ["race", {name = "uniform", samples = 2}]\n'
    )
    planned = ("study", file, "--results", tmp_path / "r", "--dry-run")
    plan = bench(*planned, "--json").json
    assert plan["at_most"] and [cell["at_most"] for cell in plan["cells"]] == [True, False]
    assert [cell["evaluation_equivalents"] for cell in plan["cells"]][1] == 4 * 10 * 2
    shown = bench(*planned).out
    assert shown.count("≤ ") == 3 and "at the most" in shown  # equivalents, TFLOP, hours
    file.write_text(file.read_text().replace('"race", ', ""))
    assert "at the most" not in bench(*planned).out
