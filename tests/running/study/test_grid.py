"""`bench run` with lists: the study file that it means, and what only one run can have."""

from pathlib import Path

import pytest
from helpers.command import bench
from helpers.refusals import refused
from helpers.runs import a_manifest

import bench as toolkit
from bench.running.parts.declaration import option
from bench.running.parts.settings import about, make_config
from bench.running.study.file import read_study_file
from bench.running.study.grid import declare_grid, lists_in
from bench.store.formats.documents import StoredConfig
from bench.store.studies import DECLARED, StudyCell, study_folder

ONE_RUN = {
    "shard": "1/2",
    "again": "2",
    "audit": "2",
    "until": "width 0.05",
    "fresh": None,
    "min_accuracy": "0.5",
}
MODES = {"--slurm": "2", "--warm-up": None, "--sweep-only": None}
ALONE = {**{option(name): value for name, value in ONE_RUN.items()}, **MODES}
CASES = [*ALONE.items(), ("--slurm", "0")]  # 0 is a number that was given, not an absent one
SETTINGS = {
    "limit": 5,
    "template": ["a {class}", 'a "quoted" {class} \\ ö\x7f'],
    "note": "two\nlines",
    "tag": ["a", "b"],
    "seed": 3,
    "weighting": "snr",
    "levels": "100-700",
    "guidance": 2.5,
    "save_errors": True,
    "offline": True,
    "params": {"draws": "8", "first": 2},
}


def test_the_file_says_what_the_command_says(tmp_path: Path) -> None:
    lists = {"dataset": ["digits"], "backbone": ["tiny-digits", "tiny-landuse"]}
    declared = declare_grid({**SETTINGS, "results": str(tmp_path)}, lists)
    alone = [
        make_config({**SETTINGS, "results": str(tmp_path), "dataset": "digits", "backbone": name})
        for name in lists["backbone"]
    ]
    assert [cell.config for cell in declared.cells] == alone
    file = study_folder(tmp_path, declared.name) / DECLARED
    assert declared.file == str(file)
    file.parent.mkdir(parents=True)
    file.write_text(declared.text, "utf-8")
    again = read_study_file(file, {"results": str(tmp_path), "offline": True})
    assert (again.name, again.cells) == (declared.name, declared.cells)
    others = declare_grid({**SETTINGS, "seed": 4, "results": str(tmp_path)}, lists)
    assert others.name != declared.name


@pytest.mark.parametrize("seeds", ["0,1", [0, 1], "1,0,1"])
def test_seeds_are_listed_as_backbones_are(tmp_path: Path, seeds: object) -> None:
    settings = {"dataset": "digits", "backbone": "tiny-digits", "results": str(tmp_path)}
    declared = declare_grid(settings, lists_in({**settings, "seed": seeds}))
    assert sorted(cell.config.seed for cell in declared.cells) == [0, 1]
    with refused("--seed"):
        declare_grid(settings, lists_in({**settings, "seed": "0,x"}))


def test_lists_make_the_runs_of_a_study(image_folder: Path, tmp_path: Path) -> None:
    results, names = tmp_path / "r", f"digits,{image_folder}"
    grid = ("run", names, "--backbone", "random", "--limit", 6, "--results", results)
    planned = bench(*grid, "--dry-run", "--json")
    assert planned.json["runs"] == 2 and not results.exists()
    done = bench(*grid)
    (file,) = results.glob(f"studies/digits-pictures-random-*/{DECLARED}")
    assert done.code == 0 and f"Study file: {file}" in done.out, done.err
    assert "Left out" not in done.err
    shown = bench("study", file, "--results", results, "--json").json
    assert (shown["done"], len(shown["methods"])) == (2, 2)
    study = toolkit.run(["digits", str(image_folder)], "random", limit=6, results=results)
    assert study.name == shown["name"] and len(study.rows) == 2


@pytest.mark.parametrize(
    ("cell", "differs"),
    [
        ({"dataset": "./photos", "backbone": "./my-sdxl"}, None),
        ({"dataset": "photos/../photos", "backbone": "x/model.safetensors"}, "backbone"),
        ({"dataset": "./other", "backbone": "./my-sdxl"}, "dataset"),
    ],
)
def test_a_run_of_folders_is_that_of_its_cell(
    cell: dict[str, str], differs: str | None, tmp_path: Path
) -> None:
    run = a_manifest(["a"])
    config = {"dataset": "folder", "data_dir": "/x/photos"}
    config |= {"backbone": "folder-sdxl", "weights": "/y/my-sdxl"}
    run = run.model_copy(update={"config": StoredConfig.model_validate(config)})
    of_study = StudyCell(axes={}, config=StoredConfig.model_validate(cell), run_id=run.run_id)
    assert of_study.differing_setting(run) == differs


@pytest.mark.parametrize(("name", "value"), CASES)
def test_what_only_one_run_can_have_is_refused(
    name: str, value: str | None, tmp_path: Path
) -> None:
    assert set(ONE_RUN) == set(about("one run"))
    words = [word for word in (name, value) if word is not None]
    done = bench("run", "digits,ucmerced", *words, "--results", tmp_path / "r")
    assert done.refuses(name), done.err
    assert len(done.err.strip().splitlines()) == 1 and not (tmp_path / "r").exists()


def test_a_path_with_a_comma_is_one_dataset(tmp_path: Path) -> None:
    (tmp_path / "a,b").mkdir()
    assert lists_in({"dataset": str(tmp_path / "a,b"), "backbone": "random"}) == {}
    assert lists_in({"dataset": "a, b,", "strategy": "full,"}) == {
        "dataset": ["a", "b"],
        "strategy": ["full"],
    }


@pytest.mark.parametrize("backbone", [[], [object()]])
def test_lists_in_python_have_names(backbone: list[str], tmp_path: Path) -> None:
    with refused("backbone"):
        toolkit.run("digits", backbone, results=tmp_path / "r")
    assert not (tmp_path / "r").exists()
