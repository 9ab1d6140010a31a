"""Runs with settings that were removed are shown, compared, ranked and replayed, not resumed."""

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers.command import bench
from helpers.refusals import refused

import bench as toolkit
from bench.running.command import reproducing_command
from bench.store.folder import read_manifest
from bench.store.formats.identity import Identity, digest, run_id

REMOVED = Path(__file__).parent / "removed"
OPTIONS = {  # example → what was removed
    "template-rule-spread": "--template-rule spread",
    "guidance-null-cell": "--guidance-null",
    "growth": "growth",
}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A folder of all examples, with one of a removed parameter made from another."""
    for example in REMOVED.iterdir():
        shutil.copytree(example, tmp_path / "results" / read_manifest(example).run_id)
    raced = shutil.copytree(REMOVED / "guidance-null-cell", tmp_path / "growth")
    content = json.loads((raced / "manifest.json").read_text("utf-8"))
    identity = content["identity"]
    del identity["scoring"]["guidance"], content["config"]["guidance"]
    params = {"delta": 0.02, "bound": "t", "first": 4, "order": "even", "span": 0.0, "draws": 4}
    identity["strategy"] = {"name": "race", "version": 1, "params": {**params, "growth": 16}}
    content["strategy"] = identity["strategy"]
    content["run_id"] = run_id(
        *("three-digits", "tiny-digits", "race"), Identity.model_validate(identity)
    )
    (raced / "manifest.json").write_text(json.dumps(content))
    summary = json.loads((raced / "summary.json").read_text("utf-8"))
    summary |= {"run_id": content["run_id"], "strategy": identity["strategy"]}
    (raced / "summary.json").write_text(json.dumps(summary))
    shutil.move(raced, tmp_path / "results" / content["run_id"])
    return tmp_path / "results"


def runs(results: Path) -> dict[str, Path]:
    """Return the stored run of each example."""
    found = {}
    for path in results.iterdir():
        identity = read_manifest(path).identity
        if identity.strategy.params.get("growth"):
            name = "growth"
        else:
            name = "guidance-null-cell" if identity.scoring.guidance else "template-rule-spread"
        found[name] = path
    return found


def test_every_example_is_known(results: Path) -> None:
    assert {example.name for example in REMOVED.iterdir()} | {"growth"} == set(OPTIONS)
    assert set(runs(results)) == set(OPTIONS)
    for path in runs(results).values():
        manifest = read_manifest(path)
        assert digest(manifest.identity)[:8] == manifest.run_id[-8:]


def test_they_are_ranked_together(results: Path) -> None:
    rows = bench("leaderboard", "--results", results, "--json").json
    assert {row["run_id"]: row["rank"] for row in rows} == {
        path.name: [1, 3] for path in runs(results).values()
    }


@pytest.mark.parametrize("example", OPTIONS)
def test_they_are_shown_compared_and_reported(example: str, results: Path) -> None:
    paths = runs(results)
    path, other = paths.pop(example), next(iter(paths.values()))
    shown = bench("show", path)
    assert shown.code == 0 and "100.0 (" in shown.out
    if example != "growth":
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


@pytest.mark.parametrize("example", ["template-rule-spread", "guidance-null-cell"])
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
