"""The file of a study: nonsense is refused before scoring; what a changed entry replaces."""

from pathlib import Path

import pytest
from helpers.command import bench

from bench.running.study.file import read_study_file


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("sedes = [1]", "'sedes'|'seeds'"),
        ('backbones = ["randon"]', "'randon'|'random'"),
        ('datasets = ["@nothing"]', "nothing"),
        ("seed = 1\nseeds = [2]", "'seeds'|'seed'"),
        ("seeds = []", "seed"),
        ('loss = ["l2", "l7"]', "--loss"),
        ('[[exclude]]\nbackbone = "randon"', "backbone|'randon'"),
        ("pilot = -1", "pilot = -1"),
        ("margin = 3", "margin = 3"),
        ("published = 0.7", "[[published]]"),
        ("[published]\nvalue = 0.7", "[published]: source"),
        ('[published]\nsource = ""', "[published]: source"),
        ('[published]\nsource = "x"\nvalue = "0.7"', "[published]: value"),
        ('[published]\nsource = "x"\nvalue = 70.0', "[published]: value"),
        ('[published]\nsource = "x"\nimages = 0', "[published]: images"),
        ('[published]\nsource = "x"\nvalu = 0.7', "'valu'|'value'"),
        ('[published]\nsource = "x"\nrehearsal = true', "'rehearsal'"),
        ('[published]\nsource = "x"\nmetric = "acuracy"', "'accuracy'"),
        ('[published]\nsource = "x"\nmetric = "auroc"', "'auroc'"),
        ('[published]\nsource = "x"\nbackbone = "randon"', "[published]: backbone"),
        ('[[published]]\nsource = "x"\n[[published]]\nsource = "y"', "[[published]]"),
        ("summary = 3", "summary = 3"),
        ('stop = "best"\n[[grid]]\nlimit = 4', "stop|limit"),
        ("[[exclude]]", "[[exclude]]"),
        ('whole_groups = "yes"', "whole_groups = 'yes'"),
        ('over = "seed"', "over = 'seed'|seeds"),
        ('over = "seeds"', "seeds|at least 3"),
        ('seeds = [0, 1]\nover = "seeds"', "backbone random has 2"),
        (
            'over = "seeds"\nlimit = 9\n[[grid]]\nseeds = [0, 1, 2]\n'
            '[[grid]]\nbackbone = "majority"\nseed = 0',
            "backbone majority has 1",
        ),
        ('shifts = [["digits", "digit"]]', "'digit'|'digits'"),
        ('strategies = [{name = "full", label = "x"}, {name = "race", label = "x"}]', "'x'"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_before_scoring(
    line: str, said: str, tmp_path: Path
) -> None:
    file = tmp_path / "wrong.toml"
    names = ["datasets", "backbones"]
    usual = [f'{n} = ["{v}"]' for n, v in zip(names, ("digits", "random"), strict=True)]
    file.write_text("\n".join([u for u in usual if not line.startswith(u.split()[0])] + [line]))
    done = bench("study", file, "--results", tmp_path / "r")
    assert done.refuses(*said.split("|")), done.err
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"seeds = {[1] * 20_000}\nlimit = {[5] * 20_000}", "400,000,000"),
        pytest.param(
            f"seeds = {[1] * 4000}\n" + "[[grid]]\nlimit = [1, 2]\n" * 2,
            "10,000",
            marks=pytest.mark.matrix,
        ),
        ("[[exclude]]\nseed = 1\n" * 1001, "1,001"),
    ],
)
def test_what_would_take_hours_is_refused_before_work(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "large.toml"
    file.write_text(f'datasets = ["digits"]\nbackbones = ["random"]\n{text}')
    done = bench("study", file, "--results", tmp_path / "r", "--dry-run")
    assert done.refuses(said), done.err
    assert len(done.err.strip().splitlines()) == 1


GRID = """
datasets = ["digits"]
backbones = ["random", {name = "majority", label = "most frequent"}]
limit = 8
pilot = 0

[[published]]
source = "a paper, Table 1"
backbone = "random"
value = 0.1
images = 360
differs = ["seed: theirs is not known"]

[[published]]
source = "a paper, Table 2"
backbone = "most frequent"
metric = "balanced_accuracy"
"""


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    file = tmp_path / "grid.toml"
    file.write_text(GRID)
    return file


def test_a_users_own_study_has_published_figures(grid: Path, tmp_path: Path) -> None:
    options = (grid, "--results", tmp_path / "r")
    planned = bench("study", *options, "--dry-run", "--json").json["cells"]
    rows = bench("study", *options, "--json").json["rows"]
    for figures in (planned, rows):
        axes = [(row["axes"]["backbone"], row["published"].get("value")) for row in figures]
        assert axes == [("random", 0.1), ("most frequent", None)]
    first, last = (row["published"] for row in rows)
    assert first["differs"] == ["seed: theirs is not known", "images: 8 instead of 360"]
    assert first["difference"] == pytest.approx(rows[0]["accuracy"] - 0.1)
    assert last["metric"] == "balanced_accuracy" and not last["differs"]
    assert "seed: theirs" not in bench("study", *options, "--show", "--format", "markdown").out
    shown = bench("study", *options, "--show", "--format", "markdown", "--wide").out
    assert "Published: a paper, Table 1; a paper, Table 2." in shown
    assert shown.count("random: seed: theirs is not known") == 1
    assert "not read" in shown and "rehearsal" not in shown


def test_variables_change_no_study(grid: Path, tmp_path: Path) -> None:
    variables = {"BENCH_BACKBONE": "tiny-digits", "BENCH_LIMIT": "3", "BENCH_STRATEGY": "full"}
    plan = bench("study", grid, "--dry-run", "--json", "--results", tmp_path / "r", **variables)
    assert plan.json["name"] == "grid" and plan.json["images_to_score"] == 2 * 8
    assert not plan.json["warnings"]


OWN = {"draws": 9, "strength": 3.0}


@pytest.mark.parametrize(
    ("changes", "params", "settings", "rehearsal"),
    [
        ({"weights": "./v"}, OWN, {"weights": "./v", "loss": "l1"}, False),
        ({"dtype": "float16"}, OWN, {"dtype": "float16", "weights": "./w"}, False),
        ({"backbone": "sd15"}, OWN, {"weights": "./w"}, False),
        ({"params": {"draws": "9"}}, {**OWN, "draws": "9"}, {}, False),
        ({"params": {"draws": "8"}}, {**OWN, "draws": "8"}, {}, True),
        ({"limit": 9}, OWN, {"limit": 9}, True),
        ({"strategy": "full"}, {"strength": 3.0}, {"weights": "./w"}, True),
        ({"backbone": "sd21"}, OWN, {"weights": None, "lora": None, "normalize": "half"}, True),
        ({"backbone": "sd3"}, {"draws": 9}, {"weights": None, "normalize": "half"}, True),
        ({"backbone": "clip"}, {"draws": 9}, {"normalize": None, "loss": "l2"}, True),
    ],
)
@pytest.mark.parametrize("several", [False, True])
def test_settings_of_what_was_replaced_are_dropped(
    changes: dict[str, object],
    params: dict[str, object],
    settings: dict[str, object],
    rehearsal: bool,
    several: bool,
    tmp_path: Path,
) -> None:
    """Also where the file has a list or a table in the place of a value."""
    file, dataset = tmp_path / "own.toml", tmp_path / "images"
    backbone = '[{name = "sd15", label = "sd15"}]' if several else '"sd15"'
    seeds = "[0, 1]" if several else "0"
    file.write_text(
        f'dataset = "{dataset}"\nbackbone = {backbone}\nweights = "./w"\nlora = "./l"\n'
        f'loss = "l1"\nstrategy = "uniform"\nnormalize = "half"\nseed = {seeds}\n'
        "[params]\ndraws = 9\nstrength = 3.0\n"
    )
    declared = read_study_file(file, {"offline": True}, changes)
    assert declared.name == ("own-rehearsal" if rehearsal else "own")
    assert len(declared.cells) == (2 if several else 1)
    for cell in declared.cells:
        assert cell.config.params == params
        assert {name: getattr(cell.config, name) for name in settings} == settings
    assert len(declared.deviations) >= rehearsal
