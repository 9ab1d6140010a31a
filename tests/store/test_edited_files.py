"""Side files that were edited or damaged: none is believed, and none stops what is sound."""

import json
import random
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.at_once import again_of, calibration_of
from helpers.command import bench
from helpers.mutations import as_json, damaged, edited, replaced
from helpers.runs import store
from helpers.scores import store_ended
from helpers.studies import store_study

from bench.errors import UserError
from bench.store.calibrations import calibrations_of, write_calibration
from bench.store.columns import add_columns, read_columns
from bench.store.folder import list_runs
from bench.store.questions import keep_question, read_questions
from bench.store.runs import read_run
from bench.store.sidecar import SIDECAR_FORMAT, _hash
from bench.store.studies import list_studies, read_study
from bench.store.summary import Swept, read_again, read_swept, write_again
from bench.store.writing import RunFolder

LABELS = [number % 3 for number in range(60)]
PREDICTIONS = [label if number % 5 else 0 for number, label in enumerate(LABELS)]
FILES = (
    *("summary.json", "questions.jsonl", "audit.jsonl", "again.json", "columns.json"),
    *("calibration.json", "studies/small/study.json"),
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with a run that has every side file, and a study of it and another run."""
    results = tmp_path_factory.mktemp("made")
    path, _ = store_ended(results, LABELS, PREDICTIONS, scoring={"loss": "l2"})
    path.rename(results / "run")
    run = read_run(results / "run")
    manifest, decided = run.manifest, run.decided()
    keep_question(run.path, manifest, "width 0.2", len(decided))
    add_columns(run.path, manifest, {"shape": dict.fromkeys(manifest.samples, "round")})
    for images in (5, 7):
        write_calibration(run.path, calibration_of(run.path, images))
    write_again(run.path, manifest, again_of(3, len(decided)), decided)
    with RunFolder(run.path, manifest) as folder:
        for name in manifest.samples:
            cost = {"evaluations": 60, "equivalents": 60.0, "seconds": 0.5}
            folder.append_swept(Swept(sample_id=name, prediction=0, regret=0.1, **cost))  # type: ignore[typeddict-item]
    other = next(path for path in list_runs(results) if path != run.path)
    run.path.rename(results / manifest.run_id)
    store_study(results, [results / manifest.run_id, other])
    (results / manifest.run_id).rename(results / "run")
    return results


def read_all(results: Path) -> dict[str, list[Any]]:
    """Return what the readers of side files believe, as lists of documents, by file."""
    run = read_run(results / "run")
    path, manifest = run.path, run.manifest
    believed: dict[str, Callable[[], list[Any]]] = {
        "summary.json": lambda: [run.summary],
        "questions.jsonl": lambda: read_questions(path, manifest),
        "audit.jsonl": lambda: [*read_swept(path, manifest).values()],
        "again.json": lambda: [read_again(path, manifest, run.decided())],
        "columns.json": lambda: [*read_columns(path, manifest).items()],
        "calibration.json": lambda: [c.calibration for c in calibrations_of(path)],
        "studies/small/study.json": lambda: [read_study(s) for s in list_studies(results)],
    }
    contents = {}
    for name, read in believed.items():
        try:
            contents[name] = [content for content in read() if content is not None]
        except UserError as error:
            assert Path(name).name in str(error)
            contents[name] = []
    return contents


def mutate(file: Path, outside: Path, rng: random.Random) -> None:
    """Edit a value, damage bytes, or put something else in the file's place."""
    kind = rng.choice(("value", "value", "value", "bytes", "place"))
    if kind == "place":
        replaced(file, outside, rng)
    elif kind == "bytes":
        file.write_bytes(damaged(file.read_bytes(), rng))
    elif file.suffix == ".json":
        file.write_bytes(as_json(edited(json.loads(file.read_text("utf-8")), rng)))
    else:
        lines = file.read_text("utf-8").splitlines()
        place = rng.randrange(len(lines))
        lines[place] = as_json(edited(json.loads(lines[place]), rng)).decode()
        file.write_text("\n".join(lines) + "\n", "utf-8")


SOUND = ("run_id", "dataset", "metrics")


def shown(results: Path) -> dict[str, Any]:
    done = bench("show", results / "run", "--json")
    assert done.code == 0, done.err
    return {name: done.json[name] for name in SOUND}


@pytest.mark.parametrize("count", [42, pytest.param(1000, marks=pytest.mark.slow)])
def test_an_edited_file_is_not_believed_and_stops_nothing(
    count: int, made: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.write_text("[]")
    before, sound = read_all(made), shown(made)
    assert all(before.values()) and len(before) == len(FILES)
    sound["metrics"].pop("anytime_ci95")  # of the answer that ended the run
    believed = 0
    for seed in range(count):
        rng, results = random.Random(f"edited {seed}"), tmp_path / str(seed)
        shutil.copytree(made, results)
        name = FILES[seed % len(FILES)]
        file = results / name if "/" in name else results / "run" / name
        mutate(file, outside, rng)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            after, now = read_all(results), shown(results)
        now["metrics"].pop("anytime_ci95", None)
        assert now == sound, (seed, name)
        for of_file, contents in before.items():
            is_known = [content in contents for content in after[of_file]]
            assert all(is_known), (seed, name, of_file)
            assert of_file == name or after[of_file] == contents, (seed, name, of_file)
        believed += after[name] == before[name]
        shutil.rmtree(results)
    assert believed < count / 4  # such as a changed space, a repeated line or an added empty one


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".json")])
def test_a_file_of_a_newer_format_or_without_one_is_not_believed(
    name: str, made: Path, tmp_path: Path
) -> None:
    """The newer one with its own seal; without a format, the seal is of another content."""
    results = shutil.copytree(made, tmp_path / "results")
    file = results / name if "/" in name else results / "run" / name
    before, content = read_all(results)[name], json.loads(file.read_text("utf-8"))
    seal, newer = content["seal"], {**content, "format": SIDECAR_FORMAT + 1}
    newer["seal"] = {**seal, "hash": _hash(newer, seal)}
    for changed in (newer, {key: value for key, value in content.items() if key != "format"}):
        file.write_text(json.dumps(changed), "utf-8")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert len(read_all(results)[name]) < len(before)


@pytest.mark.parametrize("name", [name for name in FILES if "/" not in name])
def test_a_damaged_file_is_named_and_the_run_is_shown(
    name: str, made: Path, tmp_path: Path
) -> None:
    results = tmp_path / "results"
    shutil.copytree(made, results)
    (results / "run" / name).write_text("{}\n")
    done = bench("show", results / "run", "--statistics", "--results", results)
    assert done.code == 0 and "was right for" in done.out
    assert name in done.err or name == "columns.json", "no command has asked for labels"


def test_records_that_were_changed_after_the_summary_are_named_by_whatever_reads_them(
    tmp_path: Path,
) -> None:
    """A second, other decision of an image counts, and no figure of before is shown beside it."""
    path = store(tmp_path, LABELS, PREDICTIONS)
    other = store(tmp_path, LABELS, LABELS, backbone="other")
    lines = (path / "samples.jsonl").read_text("utf-8").splitlines()
    right = next(number for number, label in enumerate(LABELS) if PREDICTIONS[number] == label)
    before = bench("show", path, "--json").json["metrics"]["accuracy"]
    line = json.loads(lines[right])
    for appended, changed in (({}, False), ({"prediction": (LABELS[right] + 1) % 3}, True)):
        with (path / "samples.jsonl").open("a", encoding="utf-8") as records:
            records.write(json.dumps({**line, **appended}) + "\n")
        for command in (
            ("show", path),
            ("show", path, "--json"),
            ("show", path, "--metric", "accuracy"),
            ("show", path, "--statistics"),
            ("compare", path, other),
            ("leaderboard", "--results", tmp_path),
        ):
            ended = bench(*command)
            assert ended.code == 0 and ("summary.json is stale" in ended.err) == changed
            said = f"has a second, different decision of an image, such as {line['sample_id']}"
            shown = changed and "leaderboard" not in command  # which leaves the run out
            assert (said in " ".join(ended.err.split())) == shown
        shown = bench("show", path, "--json").json["metrics"]["accuracy"]
        assert shown == pytest.approx(before - changed / len(LABELS))


def test_a_folder_in_the_place_of_a_file_of_lines_is_left_out_aloud(tmp_path: Path) -> None:
    run = read_run(store(tmp_path, LABELS, LABELS))
    (run.path / "audit.jsonl").mkdir()
    with pytest.warns(UserWarning, match="Left out: .*audit.jsonl"):
        assert not read_swept(run.path, run.manifest)
