"""`bench export`: every format read by what it is for."""

import csv
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from helpers.command import bench
from helpers.hub import Hub, a_hub
from helpers.recorded import N_CLASSES, N_DRAWS, N_IMAGES, record, replay
from helpers.runs import store

from bench.contracts.exporters import Exporter
from bench.contracts.specs import ExporterSpec
from bench.discovery.loading import load_plugins
from bench.discovery.targets import make
from bench.reports.run_view import RunView, read_view
from bench.testing import ExporterContract
from bench_plugins.exporters.errors import ErrorDataset, round_errors

LABELS, SAID = [0, 1, 2, 0], [0, 1, 1, None]
RACE = {"delta": 0.1}
RESULT = ("--format", "eval-results", "--set", "hub_dataset=owner/data")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(tmp_path_factory.mktemp("recorded"))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return store(tmp_path, LABELS, SAID, sample_ids=["=1+1", "b", "c", "d"], backbone="a_b%")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub; for its sake alone this process is online."""
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with a_hub() as served:
        yield served


def test_csv_has_a_row_per_image(run: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(bench("export", run, "--format", "csv").out)))
    assert [row["sample_id"] for row in rows] == ["'=1+1", "b", "c", "d"]  # no formula
    assert [row["label"] for row in rows] == ["class 0", "class 1", "class 2", "class 0"]
    assert [row["prediction"] for row in rows] == ["class 0", "class 1", "class 1", ""]
    assert [row["correct"] for row in rows] == ["True", "True", "False", "False"]
    assert rows[3]["error"] == "broken"


def test_parquet_has_the_same_rows(run: Path, tmp_path: Path) -> None:
    refused = bench("export", run, "--format", "parquet")
    assert refused.refuses("--out")
    out = tmp_path / "samples.parquet"
    assert bench("export", run, "--format", "parquet", "--out", out).code == 0
    table = pq.read_table(out)
    assert table.schema.metadata[b"run_id"].decode() == run.name
    assert table["sample_id"].to_pylist() == ["=1+1", "b", "c", "d"]
    assert table["margin"].to_pylist() == [0.02, 0.02, 0.02, None]
    assert table["correct"].to_pylist() == [True, True, False, False]


def test_latex_is_a_table_whose_names_are_text(run: Path) -> None:
    out = bench("export", run, "--format", "latex").out
    assert out.count(r"\begin{tabular}") == out.count(r"\end{tabular}") == 1
    row = next(line for line in out.splitlines() if line.startswith(r"a\_b\%"))
    assert row.endswith(r"\\") and row.count(" & ") == 7 and "50.0 (15.0--85.0)" in row
    assert out.count(r"\label{tab:") == 1 and out.index(r"\caption") < out.index(r"\label")


def test_eval_results_are_what_the_hub_parses(run: Path, tmp_path: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")
    if not hasattr(hub, "parse_eval_result_entries"):
        pytest.skip("huggingface_hub is older than 1.4")
    refused = bench("export", run, "--format", "eval-results")
    assert refused.refuses("--set")
    done = bench(
        *("export", run, "--format", "eval-results"),
        *("--set", "hub_dataset=owner/data", "--set", "task=test"),
    )
    (entry,) = hub.parse_eval_result_entries(yaml.safe_load(done.out))
    assert (entry.dataset_id, entry.task_id, entry.value) == ("owner/data", "test", 0.5)
    assert entry.notes is not None and run.name in entry.notes and "full draws=5" in entry.notes
    on_hub = store(tmp_path, LABELS, SAID, seed=3, config={"dataset": f"hf:owner/data@{'a' * 40}"})
    done = bench("export", on_hub, "--format", "eval-results")
    (entry,) = hub.parse_eval_result_entries(yaml.safe_load(done.out))
    assert (entry.dataset_id, entry.dataset_revision) == ("owner/data", "a" * 40)


def test_an_error_table_replays_as_its_run_does(recorded: Path, tmp_path: Path) -> None:
    out = tmp_path / "table"
    done = bench("export", recorded, "--format", "errors", "--out", out)
    assert done.code == 0, done.err
    again = bench("export", recorded, "--format", "errors", "--out", out)
    assert again.refuses("already exists")
    header = yaml.safe_load((out / "README.md").read_text().split("---\n")[1])
    assert header["configs"][0]["data_files"] == "errors/*.parquet"
    table = pq.read_table(out / "errors")
    assert len(table) == N_IMAGES * N_CLASSES * N_DRAWS
    assert len(set(table["sample_id"].to_pylist())) == N_IMAGES
    theirs = replay(out, "race", RACE, tmp_path / "theirs")
    ours = replay(recorded, "race", RACE, tmp_path / "ours")
    for name in ("run_id", "metrics"):
        assert theirs[name] == ours[name]
    assert theirs["cost"]["evaluations"] == ours["cost"]["evaluations"]
    assert sweep_rows(out) == sweep_rows(recorded)


def test_a_dry_run_shows_and_sends_nothing(run: Path, hub: Hub) -> None:
    before = list(hub.asked)
    done = bench(
        *("export", run, "--push", "owner/model", *RESULT),
        "--dry-run",
        HF_ENDPOINT=hub.address,
    )
    assert done.code == 0, done.err
    assert f".eval_results/{run.name}.yaml" in done.out and "value: 0.5" in done.out
    assert "\nNothing was sent.\n" in done.out and hub.asked == before


def test_a_result_is_pushed(run: Path, hub: Hub) -> None:
    push = ("export", run, "--push", "owner/model", *RESULT)
    refused = bench(*push, HF_ENDPOINT=hub.address)
    assert refused.refuses("--create", code=1)
    hub.files["models/owner/model"] = {}
    done = bench(*push, "--json", HF_ENDPOINT=hub.address)
    assert done.code == 0, done.err
    assert "/owner/model/commit/" in done.json["address"]
    (content,) = hub.files["models/owner/model"].values()
    assert yaml.safe_load(content)[0]["value"] == 0.5
    wrong = bench("export", run, "--push", "model", *RESULT, HF_ENDPOINT=hub.address)
    assert wrong.refuses("owner/name")


def test_errors_are_pushed_and_replayed_from_the_hub(
    recorded: Path, tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    push = ("export", recorded, "--push", "owner/errors", "--format", "errors", "--create")
    done = bench(*push, HF_ENDPOINT=hub.address)
    assert done.code == 0, done.err
    assert "errors/packed-00000.parquet" in hub.files["datasets/owner/errors"]
    ask = ("--strategy", "race", "--set", "delta=0.1", "--results", tmp_path / "r", "--json")
    done = bench("replay", "hf:owner/errors", *ask, HF_ENDPOINT=hub.address)
    assert done.code == 0, done.err
    assert done.json["metrics"] == replay(recorded, "race", RACE, tmp_path / "ours")["metrics"]
    absent = bench("replay", "hf:owner/nothing", *ask, HF_ENDPOINT=hub.address)
    assert absent.refuses("hf:owner/nothing")
    nameless = bench("replay", "hf:a/b/c", *ask, HF_ENDPOINT=hub.address)
    assert nameless.refuses("OWNER/NAME")


def sweep_rows(path: Path) -> list[Any]:
    done = bench("sweep", path, "--strategies", "full,uniform,adaptive", "--json")
    assert done.code == 0, done.err
    keys = ("strategy", "agreement", "agreement_ci95", "pareto", "metrics", "replayed_from")
    rows = [{key: row[key] for key in keys} for row in done.json]
    costs = [row["cost"]["evaluation_equivalents_per_image"] for row in done.json]
    return [rows, costs]


def test_an_error_table_states_its_licence_and_describes_its_columns(
    recorded: Path, tmp_path: Path
) -> None:
    out = tmp_path / "shared"
    command = ("export", recorded, "--format", "errors", "--out", out)
    assert bench(*command, "--set", "licence=CC-BY-4.0").code == 0
    card = (out / "README.md").read_text()
    assert yaml.safe_load(card.split("---\n")[1])["license"] == "cc-by-4.0"
    described = json.loads((out / "croissant.json").read_text())
    assert described["license"].endswith("/CC-BY-4.0")
    (records,) = described["recordSet"]
    columns = [field["source"]["extract"]["column"] for field in records["field"]]
    assert columns == pq.read_table(out / "errors").column_names
    pattern = described["distribution"][0]["includes"]
    assert list(out.glob(pattern)) == sorted((out / "errors").iterdir())
    assert not [file for file in out.rglob("*.*") if file.suffix in (".png", ".jpg")]
    plain = tmp_path / "unlicensed"
    assert bench("export", recorded, "--format", "errors", "--out", plain).code == 0
    assert "license" not in json.loads((plain / "croissant.json").read_text())
    assert "| licence of the errors | not stated |" in (plain / "README.md").read_text()


def test_rounded_errors_take_less_room_and_decide_the_same(recorded: Path, tmp_path: Path) -> None:
    out = tmp_path / "rounded"
    command = ("export", recorded, "--format", "errors", "--out", out)
    assert bench(*command, "--set", "bits=8").code == 0
    there, before = (
        sum(f.stat().st_size for f in p.iterdir()) for p in (out / "errors", recorded / "errors")
    )
    assert (
        there < 0.6 * before
    )  # of noise that was made up; of recordings, see docs/how-to/publish.md
    rows, exact = sweep_rows(out), sweep_rows(recorded)
    for ours, theirs in zip(rows[0], exact[0], strict=True):
        assert (ours["agreement"], ours["metrics"]) == (theirs["agreement"], theirs["metrics"])
    # It is another recording: replays of it do not take the place of replays of the exact errors.
    assert rows[0][0]["replayed_from"] != exact[0][0]["replayed_from"]
    again = tmp_path / "again"  # what was rounded stays so
    assert bench("export", out, "--format", "errors", "--out", again).code == 0
    for folder in (out, again):
        assert "rounded to about 1/256" in (folder / "README.md").read_text()
        assert not (folder / "summary.json").exists()


def test_rounding_is_small_against_the_spread_of_a_draw() -> None:
    errors = np.random.default_rng(0).normal(0.5, 0.02, (40, 7)).astype(np.float32)
    errors[:, 3] = 0.25  # prompts that do not differ
    draws = np.tile(np.arange(7, dtype=np.int32), 40)
    near = round_errors(errors.ravel(), draws, 8).reshape(errors.shape)
    step = np.abs(near - errors).max(axis=0) / errors.std(axis=0).clip(1e-9)
    assert (step <= 2**-9).all() and step.max() > 0
    assert (near[:, 3] == 0.25).all()


class Careless(Exporter):
    """An exporter of others: it writes a file `a`, and what `way` does with that and with data."""

    way: ClassVar[Callable[[Path, Path], object]]
    data: ClassVar[Path]

    def write(self, run: RunView, folder: Path) -> None:
        (folder / "a").write_text("text of a")
        type(self).way(folder, self.data)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's data. `Careless` is registered as the format `one`, of one file, and as `many`."""
    folder = tmp_path / "data"
    folder.mkdir()
    for name in PICTURES:
        (folder / name).write_text(PICTURES[name])
    for name, several in (("one", False), ("many", True)):
        target = f"{__name__}:Careless"
        spec = ExporterSpec(name=name, target=target, repository="model", several=several)
        monkeypatch.setitem(load_plugins().exporters._specs, name, spec)
    monkeypatch.setattr(Careless, "data", folder, raising=False)
    return folder


PICTURES = {"1.png": "a cat", "2.png": "a dog"}


def written_by(monkeypatch: pytest.MonkeyPatch, way: Callable[[Path, Path], object]) -> None:
    monkeypatch.setattr(Careless, "way", staticmethod(way), raising=False)


def texts_of(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*")}


def link_deeper(folder: Path, data: Path) -> None:
    (folder / "deep").mkdir()
    (folder / "deep" / "foreign").symlink_to(data)


def link_in_place_of_the_folder(folder: Path, data: Path) -> None:
    (folder / "a").unlink()
    folder.rmdir()
    folder.symlink_to(data)


Way = Callable[[Path, Path], object]
WRONG: dict[str, tuple[Way, str]] = {
    "a link to a folder": (lambda f, data: (f / "foreign").symlink_to(data), "foreign is a link"),
    "a link deeper down": (link_deeper, "deep/foreign is a link"),
    "a link in place of the folder": (link_in_place_of_the_folder, "written is a link"),
    "a link to a file": (lambda f, data: (f / "b").symlink_to(data / "1.png"), "b is a link"),
    "a link to its own file": (lambda f, data: (f / "b").symlink_to(f / "a"), "b is a link"),
    "a link to nothing": (lambda f, data: (f / "b").symlink_to(data / "no"), "b is a link"),
    "a pipe": (lambda f, data: os.mkfifo(f / "pipe"), "pipe is not a regular file"),
    "no file": (lambda f, data: (f / "a").rename(data.parent / "elsewhere"), "wrote no file"),
}
TWO_FILES = {"two files": (lambda f, data: (f / "b").write_text("b"), "wrote 2 files (a, b)")}
PLACES = {
    "a folder": ("many", "--out", "OUT"),
    "a file": ("one", "--out", "OUT"),
    "stdout": ("one",),
    "the Hub": ("many", "--push", "owner/model", "--create"),
    "a dry run": ("one", "--push", "owner/model", "--dry-run"),
}


@pytest.mark.parametrize("place", PLACES)
def test_only_regular_files_leave_an_exporter_and_nothing_else_is_touched(
    place: str, run: Path, data: Path, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, *options = PLACES[place]
    out = tmp_path / "empty" / "out"
    options = [str(out) if option == "OUT" else option for option in options]
    for way, message in (WRONG if kind == "many" else WRONG | TWO_FILES).values():
        written_by(monkeypatch, way)
        done = bench("export", run, "--format", kind, *options, HF_ENDPOINT=hub.address)
        assert (done.code, done.out) == (2, ""), message
        assert f"'{kind}'" in done.err and "write()" in done.err and message in done.err
        assert texts_of(data) == PICTURES
        assert not out.exists() and not hub.files.get("models/owner/model")


def test_what_is_exported_is_a_copy_among_the_files_of_the_folder(
    run: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written_by(monkeypatch, lambda folder, data: os.link(data / "1.png", folder / "1.png"))
    adding = replace(load_plugins().exporters.get("many"), adds=True)
    monkeypatch.setitem(load_plugins().exporters._specs, "many", adding)
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine").write_text("mine")
    assert bench("export", run, "--format", "many", "--out", out).code == 0
    assert texts_of(out) == {"mine": "mine", "a": "text of a", "1.png": "a cat"}
    (out / "1.png").write_text("changed")
    assert texts_of(data) == PICTURES
    (out / "1.png").unlink()
    (out / "deep").symlink_to(data)  # the user's own link leads out of the folder, too
    written_by(monkeypatch, lambda f, data: shutil.copytree(data, f / "deep"))
    done = bench("export", run, "--format", "many", "--out", out)
    assert done.refuses("deep/1.png") and texts_of(data) == PICTURES


@pytest.mark.parametrize("content", [b"\xff\xfe", b"ASCII\0"])
def test_a_binary_file_is_written_but_not_printed(
    content: bytes, run: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written_by(monkeypatch, lambda folder, data: (folder / "a").write_bytes(content))
    done = bench("export", run, "--format", "one")
    assert (done.code, done.out) == (2, "") and "--out" in done.err
    done = bench("export", run, "--format", "one", "--push", "owner/model", "--dry-run")
    assert done.code == 0 and "Nothing was sent" in done.out
    out = tmp_path / "out"
    assert bench("export", run, "--format", "one", "--out", out).code == 0
    assert out.read_bytes() == content


# The contract.

PARAMETERS = {"eval-results": {"hub_dataset": "owner/data"}}  # of those that need some
SPECS = [spec for spec in load_plugins().exporters if spec.name != "errors"]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
class TestOurs(ExporterContract):
    @pytest.fixture
    def exporter(self, spec: ExporterSpec) -> Exporter:
        self.several = spec.several
        made: Exporter = make(spec, **PARAMETERS.get(spec.name, {}))
        return made


class TestErrorDataset(ExporterContract):
    several = True
    make = staticmethod(ErrorDataset)

    @pytest.fixture
    def run(self, recorded: Path) -> RunView:
        return read_view(recorded)


class Nothing:
    def write(self, run: RunView, folder: Path) -> None:
        pass


class Talkative:
    def write(self, run: RunView, folder: Path) -> None:
        (folder / "run.txt").write_text(str(run.path))


@pytest.mark.parametrize(
    ("exporter", "check"),
    [
        (Nothing(), "test_it_writes_one_file_or_several"),
        (Talkative(), "test_no_path_of_this_machine_is_passed_on"),
    ],
)
def test_what_breaks_the_contract_is_found(
    exporter: Any, check: str, recorded: Path, tmp_path: Path
) -> None:
    with pytest.raises(AssertionError):
        getattr(ExporterContract(), check)(exporter, read_view(recorded), tmp_path)


def test_the_formats_are_listed() -> None:
    shown = bench("list", "exporters")
    assert shown.code == 0 and "every-eval-ever" in shown.out and "csv" in shown.out
    assert "licence" in bench("list", "exporters", "errors").out
    wrong = bench("export", "latest", "--format", "cvs")
    assert wrong.refuses("'csv'")
