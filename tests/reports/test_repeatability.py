"""What is said of other noise and what a run was worth: numbers where they are right."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.at_once import again_of
from helpers.command import bench
from helpers.runs import a_manifest, a_record, store

from bench.recordings.learn import calibrate
from bench.reports.run_view import read_view
from bench.reports.sentences import estimate_repeatability, noise_sentence
from bench.stats.metrics.summarise import summarize
from bench.store.folder import read_manifest, requested_records
from bench.store.formats.decisions import Decisions, as_decisions, read_decisions
from bench.store.formats.documents import Manifest
from bench.store.summary import read_again, write_again
from bench.store.writing import RunFolder

RACE = {"delta": 0.02, "first": 4, "growth": 8, "order": "even", "draws": 40}
STOPPED: dict[str, dict[str, Any]] = {
    "race": RACE,
    "screen-race": {**RACE, "reach": 1.5, "samples": 4, "screens": 1},
    "paired-ttest": {"min_scores": 20, "cutoff": 0.002, "draws": 40},
    "adaptive": {"samples": [4, 40], "keep": [5, 1], "draws": 40},
    "halving": {"budget": 8, "draws": 40},
}


def stored_run(
    results: Path, strategy: str, params: dict[str, Any], **more: Any
) -> tuple[Path, Manifest, Decisions]:
    top = [[0, 0.1, 20], [1, 0.12, 20]]
    record = {"top": top, **more}
    path = store(results, [0, 1, 2] * 20, [0, 1, 2] * 20, record, scoring={"loss": "l2"})
    manifest = read_manifest(path)
    described = {"name": strategy, "version": 1, "params": params}
    manifest = Manifest.model_validate({**manifest.plain(), "strategy": described})
    (path / "manifest.json").write_text(manifest.model_dump_json(by_alias=True, exclude_unset=True))
    return path, manifest, read_decisions(path, manifest, top=True)


@pytest.mark.parametrize("strategy", STOPPED)
def test_no_number_is_made_of_the_margins_of_a_strategy_that_stops(
    tmp_path: Path, strategy: str
) -> None:
    path, manifest, decided = stored_run(tmp_path, strategy, STOPPED[strategy])
    assert estimate_repeatability(manifest, decided) is None
    sentence = noise_sentence(manifest, decided, None, audited=False)
    assert sentence is not None and "is not known" in sentence and "--again 60" in sentence
    level = STOPPED[strategy].get("delta") or STOPPED[strategy].get("cutoff")
    assert (f"{100 * (level or 0):g} % of comparisons" in sentence) == (level is not None)
    shown = " ".join(bench("show", path, "--statistics").out.split())
    assert sentence in shown and "would change about" not in shown and "flip" not in shown
    statistics = bench("show", path, "--statistics", "--json").json["statistics"]
    assert statistics["repeatability"] is None


@pytest.mark.parametrize(
    ("strategy", "stability"),
    [("full", [0.9, 0.9]), ("race", [None, None]), ("not-installed", [None, None])],
)
def test_margins_of_a_strategy_that_stops_make_no_probability(
    strategy: str, stability: list[float | None], tmp_path: Path
) -> None:
    path = store(tmp_path, [0, 1], [0, 1], strategy=strategy)
    assert [row["stability"] for row in read_view(path).samples] == stability


def test_a_fixed_sweep_says_how_many_and_which_are_not_known(tmp_path: Path) -> None:
    path, manifest, decided = stored_run(tmp_path, "full", {"draws": 20})
    estimate = estimate_repeatability(manifest, decided)
    assert estimate is not None and 0 < estimate.expected_flips < 10
    number = f"{estimate.expected_flips:.1f}"
    sentence = noise_sentence(manifest, decided, None)
    assert sentence == f"Other random noise would change about {number} of 60 answers."
    statistics = bench("show", path, "--statistics", "--json").json["statistics"]
    assert statistics["repeatability"] == estimate.plain()
    assert "share the noise" in " ".join(bench("show", path, "--statistics").out.split())
    records = requested_records(path, manifest)
    unknown = as_decisions([{**records[0], "margin_stderr": None}] * 3 + records)
    assert "; of the other 3 nothing is known" in str(noise_sentence(manifest, unknown, None))


def test_many_changes_are_a_lower_end(tmp_path: Path) -> None:
    """Where most classes are tied, the estimate is known to be too low."""
    tied = {"margin_stderr": 9.0, "top": [[c % 3, 0.1, 20] for c in range(10)]}
    _, manifest, decided = stored_run(tmp_path, "full", {"draws": 20}, **tied)
    assert "would change at least about" in str(noise_sentence(manifest, decided, None))


def test_a_measurement_replaces_the_estimate(tmp_path: Path) -> None:
    path, manifest, decided = stored_run(tmp_path, "race", RACE)
    measured = {"changed": ["s0001"], "expected": 3.0, "expected_ci95": (0.08, 14.9)}
    again = again_of(20, 60).model_copy(update={**measured, "evaluation_equivalents": 100.0})
    assert write_again(path, manifest, again, decided) == again
    smaller = again.model_copy(update={"images": 10})
    assert write_again(path, manifest, smaller, decided) == again
    shown = " ".join(bench("show", path).out.split())
    assert "1 changed: about 3.0 of 60 answers would (95 % interval 0 to 15)" in shown
    assert "20 images decided again: 100 more evaluation equivalents" in shown
    assert bench("show", path, "--json").json["again"]["changed"] == ["s0001"]
    fewer = as_decisions(requested_records(path, manifest)[:30])
    assert read_again(path, manifest, decided) == again
    assert read_again(path, manifest, fewer) is None


def stored(results: Path, split: str, n: int = 120) -> str:
    """Store a run whose decisions are right the more often, the larger their margin is."""
    rng = np.random.default_rng(n)
    manifest = a_manifest(
        [f"{split}-{i}" for i in range(n)],
        3,
        split=split,
        scoring={"loss": "l2"},
        fingerprint=split,
    )
    with RunFolder(results / manifest.run_id, manifest) as folder:
        for sample_id in manifest.samples:
            margin = float(rng.exponential(0.01))
            wrong = rng.random() > margin / (margin + 0.004)
            line = a_record(sample_id, 0, int(wrong), margin=margin)
            folder.append(line, None, np.zeros(0, np.int64))
        decided = read_decisions(folder.path, manifest, top=True)
        folder.finish(summarize(manifest, decided, 1.0, None))
    return manifest.run_id


def test_probabilities_are_scored_on_images_that_were_not_fitted(tmp_path: Path) -> None:
    known, new = stored(tmp_path, "validation", 150), stored(tmp_path, "test")
    asked = ("show", new, "--statistics", "--results", tmp_path)
    assert bench(*asked, "--json").json["statistics"].get("probability") is None
    assert "decision is right: not known. `bench learn" in " ".join(bench(*asked).out.split())
    calibrate(tmp_path / known)
    found = bench(*asked, "--json").json["statistics"]["probability"]
    assert found["calibrated_on"] == known and found["calibrated_images"] == 150
    assert found["n"] == 120 and found["brier_skill"] > 0.02
    said = bench(*asked).out
    assert "skill over the base rate" in said and "onfidence" not in said
    itself = bench("show", known, "--statistics", "--results", tmp_path, "--json").json
    assert itself["statistics"].get("probability") is None
    page = tmp_path / "page.html"
    assert bench("report", new, "--results", tmp_path, "--out", page, "--images", 0).code == 0
    html = page.read_text("utf-8")
    assert "Reliability diagram" in html and f"({known})" in html
