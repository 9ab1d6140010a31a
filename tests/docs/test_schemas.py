"""The schemas of the documents: what is stored and printed fits them, and their tables say all."""

import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from helpers.pages import hook
from helpers.places import ROOT

from bench.reports.comparisons import compare
from bench.reports.leaderboard.ranking import leaderboard
from bench.stats.metrics.summarise import statistics
from bench.store.runs import read_run

PUBLISHED = ROOT / "results" / "published"
RUNS = sorted(file.parent for file in PUBLISHED.rglob("manifest.json"))


@pytest.fixture(scope="module")
def schemas() -> ModuleType:
    pytest.importorskip("griffe", reason="the extra `docs` is not installed")
    return hook("schemas")


@pytest.fixture(scope="module")
def check(schemas: ModuleType) -> Any:
    validators = pytest.importorskip("jsonschema").Draft202012Validator
    made = {name: json.loads(text) for name, text in schemas.schemas()}
    for schema in made.values():
        validators.check_schema(schema)
    known = {name.removesuffix(".schema.json"): validators(one) for name, one in made.items()}

    def problems(name: str, document: Any) -> list[str]:
        plain = json.loads(json.dumps(document))
        return [error.message for error in known[name].iter_errors(plain)]

    return problems


def read(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))


@pytest.mark.parametrize("run", RUNS, ids=lambda run: str(run.name))
def test_a_published_run_fits(check: Any, run: Path) -> None:
    assert not check("manifest", read(run / "manifest.json"))
    assert not check("summary", read(run / "summary.json"))
    lines = (run / "samples.jsonl").read_text("utf-8").splitlines()
    for line in lines[:3]:
        assert not check("sample", json.loads(line))


def test_what_commands_print_fits(check: Any) -> None:
    for row in leaderboard([PUBLISHED]):
        assert not check("leaderboard-row", row.plain())
    one, other, *_ = (run for run in RUNS if run.name.startswith("digits-tiny-digits-race"))
    assert not check("comparison", compare(one, other).plain())
    stored = read_run(one)
    found = statistics(stored.decided(top=True), stored.manifest.classes)
    assert not check("statistics", found.plain())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"accuracy": 1.5}, "maximum"),
        ({"accuracy": "1"}, "number"),
        ({"accuracy_ci95": [0.5]}, "short"),
    ],
)
def test_what_is_wrong_does_not_fit(check: Any, change: dict[str, Any], said: str) -> None:
    summary = read(RUNS[0] / "summary.json")
    summary["metrics"] |= change
    problems = check("summary", summary)
    assert len(problems) == 1 and said in problems[0]


def test_every_field_is_explained(schemas: ModuleType) -> None:
    silent = [line for line in schemas.tables().splitlines() if line.endswith("|  |")]
    assert not silent


def test_links_in_the_tables_lead_to_parts(schemas: ModuleType) -> None:
    page = schemas.tables()
    anchors = re.findall(r"\{#([\w-]+)\}", page)
    assert len(anchors) == len(set(anchors))
    assert set(re.findall(r"\]\(#([\w-]+)\)", page)) <= set(anchors)
    files = {f"schemas/{name}" for name, _ in schemas.schemas()}
    assert set(re.findall(r"\]\((schemas/[^)]+)\)", page)) == files
