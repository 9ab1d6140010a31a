"""What a study would cost, before it runs."""

from pathlib import Path

from helpers.command import bench


def test_a_dry_run_says_what_is_there(study: Path, tmp_path: Path) -> None:
    results = ("--results", tmp_path / "r")
    plan = bench("study", study, *results, "--dry-run", "--json").json
    assert (plan["runs"], plan["runs_there"], plan["images_to_score"]) == (3, 0, 120)
    assert not (tmp_path / "r").exists()
    bench("run", "digits", "--backbone", "majority", "--limit", 40, *results, "--json")
    plan = bench("study", study, *results, "--dry-run", "--json").json
    assert (plan["runs_there"], plan["images_to_score"]) == (1, 80)
    assert not plan["at_most"]


def test_a_cost_that_is_a_bound_says_so(tmp_path: Path) -> None:
    file = tmp_path / "mixed.toml"
    file.write_text(
        'datasets = ["digits"]\nbackbones = ["tiny-digits"]\nlimit = 4\n'
        'strategies = ["race", {name = "uniform", samples = 2}]\n'
    )
    planned = ("study", file, "--results", tmp_path / "r", "--dry-run")
    plan = bench(*planned, "--json").json
    assert plan["at_most"] and [cell["at_most"] for cell in plan["cells"]] == [True, False]
    assert [cell["evaluation_equivalents"] for cell in plan["cells"]][1] == 4 * 10 * 2
    shown = bench(*planned).out
    assert shown.count("≤ ") == 3 and "at most" in shown  # equivalents, TFLOP, hours
    file.write_text(file.read_text().replace('"race", ', ""))
    assert "at most" not in bench(*planned).out


def test_a_plan_names_what_is_missing(image_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "absent.toml"
    file.write_text(
        f'datasets = ["{image_folder}"]\nbackbones = ["random", "sd15", "clip"]\nseeds = [0, 1]\n'
        'strategies = ["full"]\ndevice = "cpu"\noffline = true\n'
    )
    planned = bench("study", file, "--results", tmp_path / "r", "--dry-run", COLUMNS="200")
    assert planned.code == 2 and "once nothing is missing: the same" in planned.out
    assert planned.out.count("The weights 'stable-diffusion-v1-5/") == 1  # of both seeds at once
    assert "RTX 4090: " in planned.out and "published peak" in planned.out
    plan = bench("study", file, "--results", tmp_path / "r", "--dry-run", "--json")
    assert plan.code == 2 and plan.json["runs_missing"] == 2
    per_cell = [
        (cell["axes"]["backbone"], len(cell.get("missing", []))) for cell in plan.json["cells"]
    ]
    assert [count for name, count in per_cell if name == "sd15"] == [1, 1]


def test_a_baseline_without_noise_is_one_run(tmp_path: Path) -> None:
    file, results = tmp_path / "baseline.toml", ("--results", tmp_path / "r")
    file.write_text(
        'datasets = ["digits"]\nbackbones = ["majority", "tiny-digits"]\nlimit = 4\npilot = 0\n'
        'strategies = ["uniform", "full"]\nseeds = [0, 1]\nparams = {draws = 2}\n'
        '[[exclude]]\nbackbone = "tiny-digits"\nstrategy = "full"\n'
    )
    planned = bench("study", file, *results, "--dry-run", "--json").json
    axes = [cell["axes"] for cell in planned["cells"]]
    of_baseline = [cell for cell in axes if cell["backbone"] == "majority"]
    assert of_baseline == [{"dataset": "digits", "backbone": "majority"}] and len(axes) == 3
    [note] = planned["warnings"]
    assert "majority: One run instead of 4, which does not depend on strategy or seed" in note
    report = bench("study", file, *results, "--json").json
    by = {method["method"]: method for method in report["methods"]}
    assert report["cells"] == 3 and by["majority"]["spread"]["of_seeds"] is None
    assert by["tiny-digits uniform"]["spread"]["of_seeds"] is not None
    assert sum(len(board["differences"]) for board in report["differences"]) == 1
    assert report["looks"] == {"digits/test": 3}
    first = {"strategy": "uniform", "set": "draws=2", "backbone": "majority", "limit": 4}
    words = [word for name, value in first.items() for word in (f"--{name}", value)]
    alone = bench("run", "digits", *words, *results, "--json").json
    assert alone["run_id"] in {row["run_id"] for row in report["rows"]}


def test_a_warning_of_several_runs_is_said_once(tmp_path: Path) -> None:
    grid = ("digits", "--backbone", "tiny-landuse,random", "--set", "draws=2", "--seed", "0,1")
    planned = bench("run", *grid, "--results", tmp_path, "--dry-run", "--json").json
    assert sum("trained only on ucmerced/train" in text for text in planned["warnings"]) == 1


def test_what_several_runs_lack_is_said_once_and_fetched_by_one_command(tmp_path: Path) -> None:
    grid = ("digits,cifar10", "--backbone", "sd15,clip-b32", "--results", tmp_path / "r")
    planned = bench("run", *grid, "--dry-run")
    assert planned.code == 2 and "bench fetch sd15 clip-b32 cifar10" in planned.out
    assert " ".join(planned.out.split()).count("on this machine, and ") == 1
    cells = bench("run", *grid, "--dry-run", "--json").json["cells"]
    assert [cell["lacks"] for cell in cells] == [["weights"]] * 2 + [["weights", "data"]] * 2
