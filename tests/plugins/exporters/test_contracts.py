"""The toolkit's own exporters keep the contract, and an exporter that breaks it is found."""

from pathlib import Path
from typing import Any

import pytest
from helpers.command import bench
from helpers.recorded import record

from bench.contracts.exporters import Exporter
from bench.contracts.specs import ExporterSpec
from bench.discovery.loading import load_plugins
from bench.discovery.targets import make
from bench.reports.run_view import RunView, read_view
from bench.testing import ExporterContract
from bench_plugins.exporters.errors import ErrorDataset

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
    def run(self, tmp_path_factory: pytest.TempPathFactory) -> RunView:
        return read_view(record(tmp_path_factory.mktemp("recorded")))


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


def test_the_formats_are_listed() -> None:
    shown = bench("list", "exporters")
    assert shown.code == 0 and "every-eval-ever" in shown.out and "csv" in shown.out
    assert "licence" in bench("list", "exporters", "errors").out
    wrong = bench("export", "latest", "--format", "cvs")
    assert wrong.refuses("'csv'")
