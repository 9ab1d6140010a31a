"""Python and notebooks: what `bench.run` and its neighbours take and give."""

import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.command import bench as command
from helpers.refusals import refused, warned
from helpers.runs import a_manifest
from helpers.sketch import sketched as sketched
from PIL import Image

import bench
from bench.errors import BenchWarning
from bench.reports.facts import percent_text
from bench.store.runs import read_runs
from bench.store.writing import RunFolder

FULL: dict[str, Any] = {"strategy": "full", "params": {"draws": 4}, "batch_size": 16}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def run(results: Path) -> Any:
    return bench.run("digits", limit=12, results=results, **FULL)


def test_a_run_is_the_json_object_with_attributes(run: Any, results: Path) -> None:
    stored = json.loads((results / run["run_id"] / "summary.json").read_text())
    assert json.loads(json.dumps(run))["metrics"] == stored["metrics"]
    assert run.metrics.accuracy == run["metrics"]["accuracy"]
    assert run.dataset.n_samples == 12 and run.folder == results / run.run_id
    assert "metrics" in dir(run)
    with refused("metrics", kind=AttributeError):
        _ = run.metric


def test_its_samples_are_a_table(run: Any) -> None:
    table = run.samples
    assert len(table) == 12 and table["correct"].mean() == run.metrics.accuracy
    assert set(table["label"]) <= {
        *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    }
    assert table["stability"].between(0, 1).all()


@pytest.mark.long
def test_a_notebook_shows_it(run: Any) -> None:
    accuracy = percent_text(run.metrics.accuracy, run.metrics.accuracy_ci95)
    assert repr(run).startswith(f"RunResult({run.run_id}: accuracy, % {accuracy}")
    shown = run._repr_html_()
    assert run.run_id in shown and "guessing: 10.0" in shown and "12 of 360" in shown
    assert run.confusion_figure().axes and run.examples_figure().axes


def test_a_stored_run_is_loaded(run: Any, results: Path) -> None:
    again = bench.load_run(run.run_id, results=str(results))
    assert again["metrics"] == run["metrics"] and again.samples.equals(run.samples)
    assert bench.load_run(run.folder)["metrics"] == run["metrics"]
    with refused("no run"):
        bench.load_run("nothing", results=str(results))


def test_the_folder_of_results_is_that_of_the_command_line_and_no_number_follows_a_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in {"SEED": "7", "LIMIT": "3", "SET": "draws=2", "STRATEGY": "race"}.items():
        monkeypatch.setenv(f"BENCH_{name}", value)
    plain = bench.run("digits", "random", limit=20)
    assert plain.folder == Path("results", plain.run_id) and plain.manifest.identity.seed == 0
    monkeypatch.setenv("BENCH_RESULTS", "mine")
    mine = bench.run("digits", "random", limit=10)
    assert (
        mine.folder == Path("mine", plain.run_id)
        and mine.manifest.identity == plain.manifest.identity
    )
    assert (
        command("show", plain.run_id, "--json", BENCH_RESULTS="mine").json["dataset"]
        == mine.dataset
    )
    for results, images in ((None, 10), ("results", 20)):
        assert bench.load_run(plain.run_id, results).dataset.n_samples == images
        assert bench.compare(plain.run_id, plain, results).difference.n == min(images, 20)
        assert bench.leaderboard(results)["n_samples"].tolist() == [images]
        assert bench.tradeoff_figure([plain.run_id], results) == []  # of a run without a cost
    study = bench.run("digits", ["random", "majority"], limit=10)
    assert Path("mine/studies").is_dir() and not Path("results/studies").exists()
    assert bench.load_study(study.name).name == study.name
    bench.run("digits", "random", limit=10, results="named")
    bench.run("digits", "majority", limit=10, results=None)
    assert [p.name for p in Path("named").glob("digits-*")] == [plain.run_id]
    assert len([*Path("mine").glob("digits-majority-*")]) == 1
    monkeypatch.setenv("BENCH_RESULTS", "")
    assert bench.load_run(plain.run_id).folder == plain.folder


def test_a_function_hears_of_the_progress(results: Path) -> None:
    heard: list[tuple[int, int, float]] = []

    def listen(done: int, total: int, accuracy: float) -> None:
        heard.append((done, total, accuracy))

    run = bench.run("digits", limit=5, results=results, progress=listen, seed=1, **FULL)
    assert [said[:2] for said in heard] == [(n, 5) for n in range(1, 6)]
    assert heard[-1][2] == run.metrics.accuracy


@pytest.mark.long
def test_a_dataset_and_a_backbone_in_memory(run: Any, results: Path) -> None:
    rows, backbone = bench.load_dataset("digits"), bench.load_backbone("tiny-digits", device="cpu")
    own: dict[str, Any] = {"results": results, "template": "a handwritten digit {class}", **FULL}
    mine = bench.run(rows.select(range(30)), backbone, limit=3, **own)
    assert mine.run_id.startswith("data-tiny-digits-full-") and mine.dataset.n_total == 30
    shown = [axes for axes in mine.examples_figure().axes if axes.images]
    assert len(shown) == 3
    with refused("in memory"):
        bench.load_run(mine.folder).examples_figure()
    by_name = bench.run("digits", backbone, results=results, limit=12, **FULL)
    assert by_name.run_id == run.run_id and by_name["resumed"] == "complete"
    with refused("bench.load_backbone"):
        bench.run("digits", object(), results=results)
    with refused("dtype='float32'"):
        bench.run("digits", backbone, dtype="bfloat16", results=results)
    with refused("datasets.Dataset"):
        bench.run(object(), results=results)


def test_images_of_ones_own() -> None:
    picture = Image.fromarray(np.full((9, 9), 200, np.uint8))
    [answer] = bench.classify(picture, dataset="digits", **FULL)
    assert answer.image == "image 0" and len(answer.ranking) == 10
    assert answer.stability == answer.confidence and answer.stability is not None
    assert len(repr(answer)) < 200 and "stability=" in repr(answer) and "confid" not in repr(answer)
    [raced] = answers = bench.classify([picture], dataset="digits", params={"draws": 8})
    assert raced.confidence is not None and raced.stability is None  # it stops where that is large
    assert list(answers.to_pandas()["prediction"]) == [raced.prediction]
    assert str(raced.prediction) in answers._repr_html_()
    with refused("classes="):
        bench.classify(picture)


def test_classes_are_a_list_or_the_text_of_the_command_line(tmp_path: Path) -> None:
    Image.new("L", (9, 9)).save(file := tmp_path / "a.png")
    own = bench.classify(file, classes=["cat", "dog"], backbone="random")
    assert {place.name for place in own[0].ranking} == {"cat", "dog"}
    assert bench.classify(file, classes="cat, dog", backbone="random") == own
    told = command("classify", file, "--classes", "cat, dog", "--backbone", "random", "--json")
    assert told.json == [answer.model_dump(mode="json", by_alias=True) for answer in own]
    for classes in ("cat", "cat,Cat", ["cat", ""], "", []):
        with refused("classes"):
            bench.classify(file, classes=classes, backbone="random")
        if isinstance(classes, str):
            ended = command("classify", file, "--classes", classes)
            assert ended.refuses("classes")


def test_runs_are_compared_and_ranked(run: Any, results: Path) -> None:
    other = bench.run("digits", limit=12, results=results, loss="l1", **FULL)
    compared = bench.compare(run, other)
    plain: Any = compared.plain()
    assert plain["difference"]["estimate"] == compared.difference.estimate
    for shown in (repr(compared), str(compared), compared._repr_html_()):
        assert f"{100 * compared.difference.estimate:+.1f} (" in shown and run.run_id in shown
    assert len(compared.to_pandas()) == len(compared.per_class)
    assert run.run_id in set(bench.leaderboard(results)["run_id"])


def test_a_study_is_an_object(tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    file, results = tmp_path / "small.toml", str(tmp_path / "r")
    file.write_text('datasets = ["digits"]\nbackbones = ["random", "majority"]\nlimit = 20\n')
    with refused("small"):
        bench.load_study(file, results)
    assert command("study", file, "--results", results).code == 0
    study = bench.load_study(file, results)
    runs = study.to_pandas()
    assert list(runs["backbone"]) == ["random", "majority"] and (runs["n_samples"] == 20).all()
    assert list(study.to_pandas("methods")["images"]) == [20, 20]
    assert list(study.to_pandas("differences")["board"]) == ["digits/test"]
    assert "majority" in study._repr_html_() and isinstance(study.forest_figure(), Figure)
    (figure,) = bench.tradeoff_figure(results=results)
    assert figure.axes[0].get_ylabel() == "accuracy, %"
    with RunFolder(tmp_path / "r" / "begun", a_manifest(["1"])):
        pass
    with warned("begun"):
        assert len(bench.tradeoff_figure(results=results)) == 1
    again = bench.load_study("small", results)
    assert again.methods == study.methods
    assert str(study) == repr(study)
    assert repr(study).startswith("StudyResult('small', 2 of 2 runs; digits/test ")
    assert "; digits/test majority: accuracy, % 1" in repr(study)


def test_a_warning_is_about_the_line_that_called_the_toolkit() -> None:
    with pytest.warns(BenchWarning) as caught:
        list(read_runs([Path("nowhere")]))
    assert [warning.filename for warning in caught] == [__file__]


VALID: dict[str, Any] = {  # an argument of the right type for each required parameter
    **{"name": "digits", "dataset": "digits", "images": "a.png", "run": "r", "study": "s"},
    **{"one": "r", "other": "s", "register": print, "package": "bench"},
}
FUNCTIONS = [f for f in (getattr(bench, name) for name in bench.__all__) if inspect.isfunction(f)]


@pytest.mark.parametrize(
    ("function", "parameter"),
    [
        pytest.param(function, declared, id=f"{function.__name__}-{declared.name}")
        for function in FUNCTIONS
        for declared in inspect.signature(function).parameters.values()
        if declared.kind is not inspect.Parameter.VAR_KEYWORD
    ],
)
def test_an_argument_of_another_type_is_named(function: Any, parameter: Any) -> None:
    required = {
        name: VALID[name]
        for name, declared in inspect.signature(function).parameters.items()
        if declared.default is inspect.Parameter.empty and name in VALID
    }
    for value in (3, object(), [1], {"a": 1}, b"abc"):
        if parameter.name == "params" and isinstance(value, dict):
            continue
        words = {"name": "backbone"} if function is bench.load_backbone else {}
        with refused(words.get(parameter.name, parameter.name)):
            function(**{**required, parameter.name: value})


def test_a_text_is_no_list() -> None:
    with refused("tags"):
        bench.leaderboard(tags="abc")
    with refused("runs"):
        bench.tradeoff_figure("abc")
    with refused("cost"):
        bench.tradeoff_figure(cost="x")  # type: ignore[arg-type]
