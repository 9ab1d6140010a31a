"""Export to Every Eval Ever, checked against its own schemas (every_eval_ever/, MIT)."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from helpers.command import bench
from helpers.runs import store

from bench_plugins.exporters.every_eval_ever import SCHEMA_VERSION

jsonschema = pytest.importorskip("jsonschema")
SCHEMAS = Path(__file__).with_name("every_eval_ever")


def schema(name: str) -> Any:
    content = json.loads((SCHEMAS / f"{name}.schema.json").read_text("utf-8"))
    jsonschema.Draft7Validator.check_schema(content)
    assert content["version"] == SCHEMA_VERSION
    return content


def exported(run: Path, out: Path) -> tuple[Any, Path, list[Any]]:
    """Return the document and the lines that the command writes, with their files."""
    done = bench("export", run, "--format", "every-eval-ever", "--out", out)
    assert done.code == 0, done.err
    (lines_file,) = out.rglob("*.jsonl")
    document_file = lines_file.with_name(lines_file.name.replace("_samples.jsonl", ".json"))
    lines = [json.loads(line) for line in lines_file.read_text("utf-8").splitlines()]
    return json.loads(document_file.read_text("utf-8")), lines_file, lines


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return store(tmp_path_factory.mktemp("runs"), [0, 1, 2, 0], [0, 1, 1, None], backbone="a b%")


def assert_valid(document: Any, lines: list[Any]) -> None:
    jsonschema.validate(document, schema("eval"), jsonschema.Draft7Validator)
    for line in lines:
        jsonschema.validate(line, schema("instance_level_eval"), jsonschema.Draft7Validator)


def test_they_say_what_the_run_says(run: Path, tmp_path: Path) -> None:
    document, lines_file, lines = exported(run, tmp_path)
    assert_valid(document, lines)
    with pytest.raises(jsonschema.ValidationError):
        assert_valid(document, [{**lines[0], "evaluation": {"score": "high"}}])
    summary = json.loads((run / "summary.json").read_text("utf-8"))
    results = {r["metric_config"]["metric_id"]: r for r in document["evaluation_results"]}
    for name, result in results.items():
        assert result["score_details"]["score"] == summary["metrics"][name]
    interval = results["accuracy"]["score_details"]["uncertainty"]["confidence_interval"]
    assert [interval["lower"], interval["upper"]] == summary["metrics"]["accuracy_ci95"]
    assert [line["sample_id"] for line in lines] == ["s0000", "s0001", "s0002", "s0003"]
    assert [line["evaluation"]["is_correct"] for line in lines] == [True, True, False, False]
    assert lines[2]["output"]["raw"] == ["class 1"] and lines[2]["input"]["reference"] == [
        "class 2"
    ]
    assert (lines[3]["error"], lines[3]["output"]["raw"]) == ("broken", [""])
    detailed = document["detailed_evaluation_results"]
    assert detailed["file_path"] == lines_file.relative_to(tmp_path).as_posix()
    assert detailed["checksum"] == hashlib.sha256(lines_file.read_bytes()).hexdigest()
    assert detailed["total_rows"] == len(lines)
    ids = {line["evaluation_result_id"] for line in lines}
    assert ids == {results["accuracy"]["evaluation_result_id"]}
    assert {line["evaluation_id"] for line in lines} == {document["evaluation_id"]}


def test_a_run_of_a_model_is_valid(tmp_path: Path) -> None:
    done = bench(
        *("run", "digits", "--limit", 4, "--strategy", "uniform", "--set", "samples=1"),
        *("--set", "draws=4", "--results", tmp_path / "r", "--json"),
    )
    document, _, lines = exported(Path(done.json["results_dir"]), tmp_path / "out")
    assert_valid(document, lines)
    details = document["evaluation_results"][0]["generation_config"]
    assert details["generation_args"]["execution_command"].startswith("bench run digits")


def test_a_run_that_is_not_complete_and_a_missing_folder_are_refused(tmp_path: Path) -> None:
    half = store(tmp_path, [0, 1], [0, 1], complete=False)
    arguments = ("export", half, "--format", "every-eval-ever")
    assert bench(*arguments, "--out", tmp_path / "out").refuses(half.name)
    assert bench(*arguments).refuses("--out")
