"""The probability of a run's decisions, from the calibration of another to table and page."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from helpers.command import bench
from helpers.runs import a_manifest, a_record

from bench.recordings.calibrate import calibrate
from bench.stats.metrics import summarize
from bench.store.decisions import read_decisions
from bench.store.writing import RunFolder
from bench.view.pages import Pages
from bench.view.stored import Stored


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


def test_the_browser_shows_the_probability_of_each_image(tmp_path: Path) -> None:
    known, new = stored(tmp_path, "validation", 150), stored(tmp_path, "test")
    pages = Pages(Stored(tmp_path, {}))

    def shown(run: str) -> str:
        return pages.answer("/run", {"run": run, "show": "all"}).content.decode()

    assert "Reliability diagram" not in shown(new)
    calibrate(tmp_path / known)
    page = shown(new)
    assert "Reliability diagram" in page
    values = [float(v) for v in re.findall(r"<span>probability (0\.\d\d)</span>", page)]
    margins = [float(v) for v in re.findall(r"<span>margin ([\de.-]+)", page)]
    assert len(values) == len(margins) > 10
    widest, closest = np.argmax(margins), np.argmin(margins)
    assert values[widest] > values[closest]
    assert "<span>probability" not in shown(known)  # it was fitted on these images
