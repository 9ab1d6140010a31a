"""Runs with settings that were removed are shown, compared, ranked and replayed, not resumed."""

import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers.command import bench
from helpers.refusals import refused

import bench as toolkit
from bench.running.command import reproducing_command
from bench.store.calibrations import read_calibration
from bench.store.folder import read_manifest
from bench.store.formats.identity import digest

REMOVED = Path(__file__).parent / "removed"
OPTIONS = {  # example → what was removed
    "template-rule-spread": "--template-rule spread",
    "guidance-null-cell": "--guidance-null",
}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A folder of all examples."""
    for example in REMOVED.iterdir():
        shutil.copytree(example, tmp_path / "results" / read_manifest(example).run_id)
    return tmp_path / "results"


def runs(results: Path) -> dict[str, Path]:
    """Return the stored run of each example."""
    return {name: results / read_manifest(REMOVED / name).run_id for name in OPTIONS}


def test_every_example_is_known(results: Path) -> None:
    assert {example.name for example in REMOVED.iterdir()} == set(OPTIONS)
    for path in runs(results).values():
        manifest = read_manifest(path)
        assert digest(manifest.identity)[:8] == manifest.run_id[-8:]


def test_they_are_ranked_together(results: Path) -> None:
    rows = bench("leaderboard", "--results", results, "--json").json
    assert {row["run_id"]: row["rank"] for row in rows} == {
        path.name: [1, 2] for path in runs(results).values()
    }


@pytest.mark.parametrize("example", OPTIONS)
def test_they_are_shown_compared_and_reported(example: str, results: Path) -> None:
    paths = runs(results)
    path, other = paths.pop(example), next(iter(paths.values()))
    shown = bench("show", path)
    assert shown.code == 0 and "100.0 (" in shown.out
    assert f"{OPTIONS[example]} was removed" in shown.out and "repeat it" not in shown.out
    compared = bench("compare", path, other, "--json")
    assert compared.code == 0 and compared.json["difference"]["n"] == 6
    page = results.parent / "page.html"
    assert bench("report", path, "--out", page, "--images", 0).code == 0


@pytest.mark.parametrize(
    ("example", "evaluations"), [("template-rule-spread", 6), ("guidance-null-cell", 12)]
)
def test_their_errors_are_replayed_at_the_price_they_were_made_at(
    example: str, evaluations: int, results: Path
) -> None:
    """Three columns on two draws; with a null for every cell, each at the price of two."""
    path = runs(results)[example]
    half = ("--strategy", "uniform", "--set", "samples=2", "--results", results, "--json")
    again = bench("replay", path.name, *half)
    assert again.code == 0, again.err
    assert again.json["cost"]["evaluations_per_image"] == evaluations


@pytest.mark.parametrize("example", OPTIONS)
def test_they_are_not_resumed(example: str, results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(results.parent)
    Path("three-digits").mkdir()  # the images are not looked at
    path = runs(results)[example]
    (path / "summary.json").unlink()
    journal = path / "samples.jsonl"
    kept = journal.read_text("utf-8").splitlines(keepends=True)[:3]
    journal.write_text("".join(kept), "utf-8")
    shown = bench("show", path)
    assert shown.code == 0 and "3 of 6 images are decided" in shown.out
    command = shlex.split(reproducing_command(read_manifest(path)))
    resumed = bench(*command[1:], "--results", results)
    assert resumed.refuses(OPTIONS[example])
    assert len(resumed.err.strip().splitlines()) == 1
    assert journal.read_text("utf-8") == "".join(kept)


@pytest.mark.parametrize("example", OPTIONS)
def test_they_are_not_audited_with_the_model(example: str, results: Path) -> None:
    audited = bench("results", "audit", runs(results)[example], 2)
    assert audited.refuses(OPTIONS[example])


@pytest.mark.parametrize(
    ("name", "value", "option"),
    [
        ("template_rule", "spread", "--template-rule spread"),
        ("guidance_null", "cell", "--guidance-null"),
        ("guidance_null", "draw", "--guidance-null"),
    ],
)
def test_every_way_to_set_it_says_that_it_was_removed(
    name: str, value: str, option: str, tmp_path: Path
) -> None:
    line = f'{name} = "{value}"'
    config, study = tmp_path / "c.toml", tmp_path / "study.toml"
    config.write_text(line)
    study.write_text(f'datasets = ["digits"]\nbackbones = ["majority"]\n{line}')
    for command in (
        ("run", "digits", f"--{name.replace('_', '-')}", value),
        ("run", "digits", "--config", config),
        ("study", study, "--dry-run"),
    ):
        ended = bench(*command)
        assert ended.refuses(option), command
    setting: dict[str, Any] = {name: value}
    with refused(option):
        toolkit.run("digits", **setting)


# Runs and calibrations with `odds`, which `race` no longer has.

WITH_ODDS = Path(__file__).parent / "odds"
ODDS = [-1.0, -0.5, 0.1, -0.1, -0.2, 0.1, 0.05]


def stored_odds(example: str, results: Path) -> Path:
    """Return a copy of an example in a folder of results."""
    folder = results / read_manifest(WITH_ODDS / example).run_id
    shutil.copytree(WITH_ODDS / example, folder)
    return folder


def test_it_is_not_resumed(tmp_path: Path) -> None:
    run = stored_odds("race", tmp_path)
    shown = bench("show", run)
    assert shown.code == 0 and "odds=" in shown.out
    words = shlex.split(reproducing_command(read_manifest(run)))[1:]
    assert "odds=-1,-0.5,0.1,-0.1,-0.2,0.1,0.05" in words
    refused = bench(*words, "--results", run.parent)
    assert refused.refuses("'odds'"), refused.err
    assert len(refused.err.strip().splitlines()) == 1


def test_its_calibration_is_read_and_not_used(tmp_path: Path) -> None:
    path = stored_odds("calibration", tmp_path)
    calibration = read_calibration(path).calibration
    assert calibration.images == 40 and len(calibration.settings) == 11
    assert all(setting.strategy.params["odds"] == ODDS for setting in calibration.settings)
    assert bench("show", path).code == 0
    race = ("--strategy", "race", "--risk", 0.1, "--set", "draws=20", "--dtype", "float32")
    planned = bench("run", "digits", *race, "--results", tmp_path, "--dry-run")
    # It is as if nothing was calibrated: some of the run's own images are to be swept.
    assert planned.code == 0 and "swept" in planned.out + planned.err, planned.err
