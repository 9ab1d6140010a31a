"""`--until`: runs that end when their question is answered."""

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.command import bench
from helpers.refusals import refused
from helpers.scripted import Scripted

from bench import api
from bench.inputs.subsets import shuffle_samples
from bench.running import until as until_module
from bench.running.execute import Finished, execute
from bench.running.parts.settings import make_config
from bench.running.prepare import prepare
from bench.store.folder import read_manifest, read_records
from bench.store.questions import read_questions

WORSE = "differs from digits-random-full-3bae6f72"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    assert bench("run", "digits", "--backbone", "random", "--results", folder, "--json").code == 0
    return folder


def scored(results: Path, until: str | None, limit: int | None = None, **workers: Any) -> Finished:
    settings = {"dataset": "digits", "backbone": "nearest-mean", "results": str(results)}
    prepared = prepare(make_config({**settings, "until": until, "limit": limit}))
    return execute(prepared.task(lambda run: Scripted(run, **workers)))


@pytest.fixture
def fresh(results: Path, tmp_path: Path) -> Path:
    """A results folder with the other run alone."""
    (tmp_path / "digits-random-full-3bae6f72").symlink_to(
        results / "digits-random-full-3bae6f72", target_is_directory=True
    )
    return tmp_path


def test_the_run_ends_and_counts_the_deciding_images(fresh: Path) -> None:
    finished = scored(fresh, WORSE)
    answer, manifest = finished.answer, read_manifest(finished.folder)
    assert answer is not None and answer.verdict == "better" and not answer.post_hoc
    order = shuffle_samples(
        [
            line["sample_id"]
            for line in read_records(fresh / "digits-random-full-3bae6f72").values()
        ],
        manifest.identity.dataset.fingerprint,
    )
    assert set(manifest.samples) == set(order[: answer.n]) and answer.n < 30
    assert finished.summary.dataset.n_samples == answer.n == len(read_records(finished.folder))
    assert read_questions(finished.folder, finished.manifest)[0].answer == answer

    again = scored(fresh, WORSE, ends_after=0)
    assert again.resumed and again.answer == answer and again.summary == finished.summary


def test_the_order_in_which_workers_finish_changes_nothing(fresh: Path, tmp_path: Path) -> None:
    first = scored(fresh, WORSE)
    records = read_records(first.folder)
    first.folder.rename(tmp_path / "kept")
    second = scored(fresh, WORSE, block=7)
    assert second.answer == first.answer and second.manifest.samples == first.manifest.samples
    assert len(read_records(second.folder)) >= len(records), "later images stay stored"


def test_a_stopped_run_resumes_to_the_same_answer(fresh: Path, tmp_path: Path) -> None:
    first = scored(fresh, WORSE)
    first.folder.rename(tmp_path / "kept")
    with pytest.raises(KeyboardInterrupt):
        scored(fresh, WORSE, block=5, ends_after=4)
    question = read_questions(first.folder, first.manifest)[0]
    assert question.decided_before == 0 and question.answer is None
    resumed = scored(fresh, WORSE, block=5)
    assert resumed.answer == first.answer and resumed.manifest.samples == first.manifest.samples
    assert read_manifest(resumed.folder).samples == resumed.manifest.samples


@pytest.mark.parametrize("limited", [False, True])
def test_a_manifest_that_was_deleted_changes_no_answer(limited: bool, fresh: Path) -> None:
    """Its decisions count, and those of as many other images are not taken for them."""
    first = scored(fresh, "width 0.2")
    assert first.answer is not None
    (scored(fresh, None).folder / "manifest.json").unlink()
    if limited:
        assert scored(fresh, None, limit=first.answer.n, ends_after=0).manifest != first.manifest
    again = scored(fresh, "width 0.2", ends_after=0)
    assert again.answer is not None and again.answer.interval == first.answer.interval
    assert again.summary.metrics == first.summary.metrics
    assert again.manifest.samples == first.manifest.samples


def test_a_later_question_is_post_hoc_and_the_run_goes_on_without_one(fresh: Path) -> None:
    first = scored(fresh, WORSE).answer
    second = scored(fresh, "width 0.2")
    assert first and second.answer and second.answer.verdict == "narrow"
    assert second.answer.post_hoc and second.answer.n > first.n
    low, high = second.answer.interval
    assert high - low <= 0.2 and low < second.summary.metrics.accuracy <= high
    whole = scored(fresh, None)
    assert whole.answer is None and whole.summary.dataset.n_samples == 360
    assert len(read_manifest(whole.folder).samples) == 360
    earlier = scored(fresh, WORSE)
    assert earlier.resumed and earlier.answer == first


def test_another_margin_is_no_later_choice(fresh: Path) -> None:
    """All verdicts on a pair share one confidence sequence; another rival or metric has its own."""
    other = WORSE.removeprefix("differs from ")
    assert scored(fresh, WORSE).answer
    for question, post_hoc in (
        (f"better than {other} by 0.5", False),
        (f"within 0.05 of {other}", False),
        (f"better than {other} by 0.5 in balanced accuracy", True),
        (f"better than {other} by 0.5 on this split", True),
    ):
        answer = scored(fresh, question).answer
        assert answer and answer.post_hoc == post_hoc


def test_a_split_that_is_complete_is_counted(fresh: Path, tmp_path: Path) -> None:
    """The answer of a test that ended the run gives way to the exact one."""
    question = f"{WORSE} on this split"
    tested = scored(fresh, question)
    assert tested.answer and tested.answer.n < 360 and tested.answer.p is not None
    whole = scored(fresh, None)
    counted = scored(fresh, question)
    other = api.load_run(fresh / WORSE.split()[-1]).metrics.accuracy
    answer = counted.answer
    assert answer and (answer.verdict, answer.n, answer.post_hoc) == ("better", 360, False)
    assert answer.difference == pytest.approx(whole.summary.metrics.accuracy - other)
    assert not {"p", "anytime_ci95", "difference_anytime_ci95"} & answer.plain().keys()
    assert read_questions(whole.folder, whole.manifest)[0].answer == answer
    shown = " ".join(bench("show", whole.folder).out.split())
    assert "better after all 360 images; the difference is +" in shown
    assert "counted, not tested" in shown
    page = tmp_path / "page.html"
    assert bench("report", whole.folder, "--images", 0, "--out", page).code == 0
    assert (
        "counted, not tested" in page.read_text()
        and "interval of the accuracy by" not in page.read_text()
    )


def test_a_run_that_ended_by_a_question_can_be_compared_as_far_as_it_goes(fresh: Path) -> None:
    shorter = scored(fresh, WORSE)
    settings = {"dataset": "digits", "backbone": "majority", "results": str(fresh)}
    prepared = prepare(make_config({**settings, "until": f"within 0.01 of {shorter.folder.name}"}))
    finished = execute(prepared.task(Scripted))
    assert finished.answer and finished.answer.n == shorter.summary.dataset.n_samples
    assert finished.answer.total == 360 and finished.answer.verdict == "open"


@pytest.mark.parametrize(
    ("until", "problem"),
    [
        ("differs from nothing-there", "nothing-there"),
        ("differs from digits-nearest-mean-full-03931baf", ""),
        ("better", "better"),
        ("width 0.05 in f1_macro", "f1_macro"),
    ],
)
def test_wrong_questions_are_refused(fresh: Path, until: str, problem: str) -> None:
    with refused(problem):
        scored(fresh, until)
    assert not list(fresh.glob("digits-nearest*"))


def test_a_stratified_part_of_the_other_run_is_refused(tmp_path: Path) -> None:
    run = ("run", "digits", "--backbone", "random", "--limit", 20, "--results", tmp_path)
    assert bench(*run, "--json").code == 0
    with refused("random order"):
        scored(tmp_path, WORSE)


def test_an_open_question_is_an_event(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[dict[str, Any]] = []

    def record(manager: Any, event: str, **content: Any) -> None:
        if event == "question_checked":
            events.append(content)

    monkeypatch.setattr(until_module, "notify_plugins", record)
    monkeypatch.setattr(until_module, "CHECK_SECONDS", 0.0)
    answer = scored(fresh, WORSE).answer
    assert answer and [event["images"] for event in events] == list(range(1, answer.n))
    assert events[-1]["question"] == WORSE and 0.05 < events[-1]["p"] < 0.5


def test_the_command_prints_and_shows_the_answer(fresh: Path) -> None:
    run = ("run", "digits", "--backbone", "nearest-mean", "--until", WORSE, "--results", fresh)
    document = bench(*run, "--json").json
    answer = document["answer"]
    assert answer["verdict"] == "better" and document["dataset"]["n_samples"] == answer["n"]
    folder = Path(document["results_dir"])
    assert f"better after {answer['n']} of 360 images" in bench("show", folder).out
    assert "although the result ended the run" in bench("show", folder).out
    [asked, answered] = map(json.loads, (folder / "questions.jsonl").read_text().splitlines())
    assert "answer" not in asked and answered["answer"] == answer
    [stored] = bench("show", folder, "--json").json["questions"]
    assert {**stored, "seal": answered["seal"]} == answered


def test_python_returns_the_answer(fresh: Path) -> None:
    run = api.run("digits", backbone="nearest-mean", until=WORSE, results=str(fresh))
    assert run.answer.verdict == "better" and run.answer.n == run.dataset.n_samples < 360
    assert run["answer"]["anytime_ci95"] == run["metrics"]["anytime_ci95"]
    assert run["metrics"]["anytime_ci95"] != run["metrics"]["accuracy_ci95"]
    assert bench("show", run.folder, "--json").json["metrics"] == run["metrics"]
    assert len(run.samples) == run.answer.n
    assert api.load_run(run.run_id, str(fresh))["answer"] == run["answer"]
    assert "valid at any number of images" in run._repr_html_()
    whole = api.run("digits", backbone="nearest-mean", results=str(fresh))
    assert whole.dataset.n_samples == 360 and "answer" not in whole
    assert "anytime_ci95" not in whole["metrics"]
    assert "answer" not in api.load_run(run.run_id, str(fresh))


def test_a_question_does_not_end_a_run_with_a_risk_to_be_swept_for(fresh: Path) -> None:
    risk = ("--risk", "0.05", "--set", "draws=8")
    ended = bench("run", "digits", *risk, "--until", "width 0.1", "--results", fresh / "new")
    assert ended.refuses("--until")
    assert not (fresh / "new").exists()
