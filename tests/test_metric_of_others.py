"""A metric that a plugin declares once stands in every table, and is compared and exported."""

import json
import os
from pathlib import Path

import pytest
from helpers.command import Finished, python
from helpers.places import ROOT
from helpers.plugins import install
from sklearn.metrics import fbeta_score

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
LABELS, PREDICTIONS = [0, 0, 0, 1, 1, 2], {"a": [0, 0, 1, 1, 0, 2], "b": [0, 1, 1, 1, 2, 2]}
F2 = {n: fbeta_score(LABELS, said, beta=2, average="macro") for n, said in PREDICTIONS.items()}
COMMANDS = {
    "board": ("leaderboard", "--json"),
    "csv": ("leaderboard", "--format", "csv"),
    "markdown": ("leaderboard", "--wide", "--format", "markdown"),
    "html": ("leaderboard", "--wide", "--format", "html"),
    "latex": ("export", "runs/a", "--format", "latex"),
    "model-index": ("export", "runs/a", "--format", "model-index"),
    "compare": ("compare", "runs/a", "runs/b", "--metric", "f2_macro", "--json"),
}
ALL = """
import json, os, sys
from pathlib import Path
from helpers.command import bench
from helpers.runs import store
folder, *inputs = sys.argv[1:]
labels, predictions, commands = map(json.loads, inputs)
os.chdir(folder)
for seed, (name, decided) in enumerate(predictions.items()):
    store(Path("runs"), labels, decided, seed=seed).rename(Path("runs", name))
done = {name: bench(*words, BENCH_RESULTS="runs") for name, words in commands.items()}
print(json.dumps({name: vars(of) for name, of in done.items()}))
"""


@pytest.mark.long
def test_it_is_one_declaration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "f2", METRIC)
    path = os.pathsep.join([str(tmp_path), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", path)
    monkeypatch.setenv("BENCH_LOAD_PLUGINS", "f2")
    ended = python(ALL, tmp_path, *map(json.dumps, (LABELS, PREDICTIONS, COMMANDS)))
    assert ended.code == 0, ended.err
    done = {name: Finished(**of) for name, of in json.loads(ended.out.splitlines()[-1]).items()}
    assert [row["f2_macro"] for row in done["board"].json] == pytest.approx(list(F2.values()))
    assert "f2_macro" in done["csv"].out.split("\n")[0]
    for form in ("markdown", "html"):
        assert "macro F2" in done[form].out and f"{100 * F2['a']:.1f}" in done[form].out
    assert "macro F2, \\%" in done["latex"].out
    assert "F2, macro" in done["model-index"].out
    assert done["compare"].json["tested"]["a"] == pytest.approx(F2["a"])
    assert done["compare"].json["tested"]["b"] == pytest.approx(F2["b"])
