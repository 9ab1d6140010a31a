"""The toolkit's own exporters keep the contract, and an exporter that breaks it is found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers.command import bench
from helpers.recorded import record

from bench.discovery.loading import load_plugins
from bench.reports.run_view import RunView, read_view
from bench.testing import ExporterContract
from bench_plugins.exporters.errors import ErrorDataset
from bench_plugins.exporters.every_eval_ever import EveryEvalEver
from bench_plugins.exporters.hub import EvalResults, ModelIndex
from bench_plugins.exporters.tables import ImagesCsv, ImagesParquet, Latex


class TestModelIndex(ExporterContract):
    make = staticmethod(ModelIndex)


class TestEvalResults(ExporterContract):
    def make(self) -> EvalResults:
        return EvalResults("owner/data")


class TestEveryEvalEver(ExporterContract):
    several = True
    make = staticmethod(EveryEvalEver)


class TestErrorDataset(ExporterContract):
    several = True
    make = staticmethod(ErrorDataset)

    @pytest.fixture
    def run(self, tmp_path_factory: pytest.TempPathFactory) -> RunView:
        return read_view(record(tmp_path_factory.mktemp("recorded")))


class TestImagesCsv(ExporterContract):
    make = staticmethod(ImagesCsv)


class TestImagesParquet(ExporterContract):
    make = staticmethod(ImagesParquet)


class TestLatex(ExporterContract):
    make = staticmethod(Latex)


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
    exporter: Any, check: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    run = read_view(record(tmp_path_factory.mktemp("recorded")))
    with pytest.raises(AssertionError):
        getattr(ExporterContract(), check)(exporter, run, tmp_path_factory.mktemp("out"))


def test_every_registered_format_is_tested_here() -> None:
    kinds = ExporterContract.__subclasses__()
    tested = {kind.__name__ for kind in kinds if kind.__module__ == __name__}
    targets = {spec.target.partition(":")[2] for spec in load_plugins().exporters}
    assert targets == {name.removeprefix("Test") for name in tested}


def test_the_formats_are_listed() -> None:
    shown = bench("list", "exporters")
    assert shown.code == 0 and "every-eval-ever" in shown.out and "csv" in shown.out
    assert "licence" in bench("list", "exporters", "errors").out
    wrong = bench("export", "latest", "--format", "cvs")
    assert wrong.refuses("'csv'")
