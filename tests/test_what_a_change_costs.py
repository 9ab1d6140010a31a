"""A setting, a loss, a command and a metric are written down once, and everything else follows.

They are added to a copy of the toolkit, whose commands one process then runs.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from helpers.command import PATIENCE, Finished
from helpers.places import ROOT
from sklearn.metrics import fbeta_score

pytestmark = pytest.mark.long  # a copy, whose parts have other tests
SETTING = """
    tilt: float = setting("score", default=0.0, scorers=DENOISERS, identity="scoring")
    \"\"\"How far the error is tilted.\"\"\"

    @field_validator("guidance")
"""
LOSS = '        case "l4":\n            return difference.pow(4).flatten(1).mean(dim=1)\n'
COMMAND = '''"""`bench say-hello`. Greet.

Group: Make it yours, 3.
"""
import click

@click.command()
def say_hello_command() -> None:
    click.echo("hello")
'''
METRIC = """
from bench import hookimpl
from bench.contracts.metric_spec import ClassRatio

@hookimpl
def register_metrics(register):
    register(
        "f2_macro",
        words="macro F2",
        summary="The mean F2 over classes: recall counts more than precision.",
        ratio=ClassRatio(hits=5, support=4, predicted=1),
        column=True,
        hub=("f2", "F2, macro"),
    )
"""
METADATA = "Metadata-Version: 2.1\nName: bench-f2\nVersion: 0.1.0\n"
LABELS, PREDICTIONS = [0, 0, 0, 1, 1, 2], {"a": [0, 0, 1, 1, 0, 2], "b": [0, 1, 1, 1, 2, 2]}
F2 = {n: fbeta_score(LABELS, said, beta=2, average="macro") for n, said in PREDICTIONS.items()}

RUN = ("run", "digits", "--limit", "1", "--strategy", "full", "--set", "draws=2", "--json")
CLASSIFIER = ("run", "digits", "--limit", "1", "--backbone", "random")
COMMANDS = {
    "help": ("--help",),
    "help of run": ("run", "--help-all"),
    "help of classify": ("classify", "--help-all"),
    "say-hello": ("say-hello",),
    **{
        f"plan, tilt {tilt}": (*RUN, "--tilt", tilt, "--dry-run", "--results", "plans")
        for tilt in ("0", "0.5")
    },
    "tilt of a classifier": (*CLASSIFIER, "--tilt", "0.5"),
    "l5": (*RUN, "--loss", "l5"),
    "board": ("leaderboard", "--json"),
    "board csv": ("leaderboard", "--format", "csv"),
    "board markdown": ("leaderboard", "--wide", "--format", "markdown"),
    "board html": ("leaderboard", "--wide", "--format", "html"),
    "latex": ("export", "runs/a", "--format", "latex"),
    "model-index": ("export", "runs/a", "--format", "model-index"),
    "report": ("report", "--out", "page.html", "--images", "0"),
    "compare": ("compare", "runs/a", "runs/b", "--metric", "f2_macro", "--json"),
}
DRIVER = """
import json, sys
from pathlib import Path
from helpers.command import bench
from helpers.runs import store
labels, predictions, commands = map(json.loads, sys.argv[1:])
for seed, (name, decided) in enumerate(predictions.items()):
    store(Path("runs"), labels, decided, seed=seed).rename(Path("runs", name))
Path("plans", "digits-").mkdir(parents=True, exist_ok=True)  # so that plans read the images
done = {name: bench(*command, BENCH_RESULTS="runs") for name, command in commands.items()}
Path("done.json").write_text(json.dumps({name: vars(of) for name, of in done.items()}))
"""


def replaced(file: Path, old: str, new: str) -> None:
    text = file.read_text("utf-8")
    assert text.count(old) == 1, f"{old!r} is {text.count(old)} times in {file}"
    file.write_text(text.replace(old, new), "utf-8")


@pytest.fixture(scope="module")
def toolkit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the changed copy."""
    folder = tmp_path_factory.mktemp("copy")
    copy = folder / "bench"
    shutil.copytree(ROOT / "bench", copy, ignore=shutil.ignore_patterns("__pycache__"))
    fields = copy / "running" / "parts" / "measure.py"
    replaced(fields, '\n    @field_validator("guidance")\n', SETTING)
    losses = copy / "inputs" / "estimand.py"
    replaced(losses, 'Loss = Literal["l2", ', 'Loss = Literal["l4", "l2", ')
    replaced(losses, "        case _:\n", f"{LOSS}        case _:\n")
    (copy / "cli" / "say_hello.py").write_text(COMMAND, "utf-8")
    (folder / "bench_f2.py").write_text(METRIC, "utf-8")
    installed = folder / "bench_f2-0.1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text(METADATA, "utf-8")
    (installed / "entry_points.txt").write_text("[bench]\nf2 = bench_f2\n", "utf-8")
    return folder


@pytest.fixture(scope="module")
def done(toolkit: Path) -> dict[str, Finished]:
    return printed(toolkit, PREDICTIONS, COMMANDS)


def printed(
    toolkit: Path, predictions: Mapping[str, list[int]], commands: Mapping[str, tuple[str, ...]]
) -> dict[str, Finished]:
    """Return what each of the commands prints, with the copy in place of the installed toolkit."""
    inputs = [json.dumps(value) for value in (LABELS, predictions, commands)]
    ended = subprocess.run(
        [sys.executable, "-c", DRIVER, *inputs],
        cwd=toolkit,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env={
            **os.environ,
            "BENCH_LOAD_PLUGINS": "f2",
            "PYTHONPATH": f"{toolkit}:{ROOT / 'tests'}",
        },
    )
    assert ended.returncode == 0, ended.stderr
    stored = json.loads((toolkit / "done.json").read_text("utf-8"))
    return {name: Finished(**fields) for name, fields in stored.items()}


@pytest.mark.long
def test_a_setting_is_one_field_of_its_part(done: dict[str, Finished]) -> None:
    for command in ("run", "classify"):
        shown = " ".join(done[f"help of {command}"].out.split())
        assert "--tilt FLOAT How far the error is tilted. [for denoisers]" in shown
    refused = done["tilt of a classifier"]
    assert refused.code == 2
    assert "--tilt is for denoisers. Backbone 'random' is a classifier" in refused.err


def test_a_setting_enters_the_identity_by_its_field(done: dict[str, Finished]) -> None:
    usual, tilted = (done[f"plan, tilt {tilt}"].json["run_id"] for tilt in ("0", "0.5"))
    assert usual.startswith("digits-tiny-digits-full-") and usual != tilted


def test_a_loss_is_one_name_and_one_case(done: dict[str, Finished]) -> None:
    assert done["l5"].code == 2 and "l4" in done["l5"].err


def test_a_command_is_one_file(done: dict[str, Finished]) -> None:
    _, _, section = done["help"].out.partition("Make it yours:\n")  # the last one
    assert section.splitlines()[-1].split() == ["say-hello", "Greet."]
    assert done["say-hello"].out == "hello\n"


def test_a_metric_with_its_column_is_one_declaration(done: dict[str, Finished]) -> None:
    assert [row["f2_macro"] for row in done["board"].json] == pytest.approx(list(F2.values()))
    assert "f2_macro" in done["board csv"].out.split("\n")[0]
    for form in ("markdown", "html"):
        board = done[f"board {form}"].out
        assert "macro F2" in board and f"{100 * F2['a']:.1f}" in board
    assert "macro F2, \\%" in done["latex"].out
    assert "F2, macro" in done["model-index"].out
    assert done["report"].code == 0, done["report"].err
    assert done["compare"].json["tested"]["a"] == pytest.approx(F2["a"])
    assert done["compare"].json["tested"]["b"] == pytest.approx(F2["b"])
