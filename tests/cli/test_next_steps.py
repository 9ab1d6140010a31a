"""What a command says at its end: the next steps are commands that exist, and JSON has none."""

import shlex
from pathlib import Path
from unittest import mock

import pytest
from helpers.blocks import unknown
from helpers.command import bench
from helpers.given import make_folder
from helpers.recorded import record
from helpers.runs import a_manifest, store

from bench.cli.output import run_name
from bench.recordings.learn import calibrate
from bench.store.writing import RunFolder

LABELS = [i % 3 for i in range(30)]


def commands(out: str) -> list[list[str]]:
    """Return the arguments of the `bench` commands that stand below "Next:"."""
    _, heading, steps = out.rpartition("\nNext:\n")
    assert heading, out
    lines = [line.rpartition("bench ")[2] for line in steps.splitlines() if "bench " in line]
    return [shlex.split(line) for line in lines]


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    wrong = [0] * 6 + LABELS[6:]
    results = tmp_path / "my results"
    return [store(results, LABELS, said, seed=i) for i, said in enumerate((LABELS, wrong))]


@pytest.mark.long
def test_what_was_learned_is_used_on_other_images(tmp_path: Path) -> None:
    run = record(tmp_path, informative=(40, 60))
    # The command recommends what was learned; these images are too few to recommend any.
    with mock.patch("bench.recordings.learn.choose_recommended", lambda trials: trials[0]):
        (race,) = commands(bench("learn", run, "deviation").out)
    assert race[:2] == ["run", "toy"] and not unknown(race)
    assert "deviation=" in " ".join(race) and "ceiling=published" in race  # as the run without it
    calibration = calibrate(run, "race", settings=({"delta": 1e-5, "first": 8},))
    with mock.patch("bench.recordings.learn.calibrate", return_value=calibration):
        score, *_ = commands(bench("learn", run, "calibration", "--strategy", "race").out)
    assert score[score.index("--risk") + 1] == "0.1" and not unknown(score)
    assert score[score.index("--strategy") + 1] == "race"


def test_options_of_the_command_before_are_carried(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "my photos", "1.png", "2.png")
    labels, words = tmp_path / "labels.csv", tmp_path / "words.csv"
    labels.write_text("file_name,label\n1.png,cat\n2.png,dog\n")
    words.write_text("name,words\ncat,a cat\ndog,a dog\n")
    told = ["--labels", str(labels), "--class-names", str(words)]
    checked = commands(bench("check-data", folder, *told).out)[-1]
    assert set(told) <= set(checked) and "NAME" in checked
    asked = commands(bench("prompts", folder, *told, "--backbone", "random").out)[-1]
    assert set(told) <= set(asked) and bench(*asked).code == 0


def test_of_a_run_without_a_decided_image_only_what_works(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run", a_manifest(["1"])):
        pass
    (only,) = commands(bench("show", tmp_path / "run").out)
    assert only[0] == "run" and not unknown(only)


def test_a_run_in_the_usual_folder_is_called_by_its_id(monkeypatch: pytest.MonkeyPatch) -> None:
    usual, other = Path("results", "a-run"), Path("elsewhere", "a-run")
    monkeypatch.delenv("BENCH_RESULTS", raising=False)
    assert run_name(usual, "results") == "a-run" and run_name(other, "elsewhere") == str(other)
    monkeypatch.setenv("BENCH_RESULTS", "elsewhere")
    assert run_name(usual, "results") == str(usual) and run_name(other, "elsewhere") == "a-run"
