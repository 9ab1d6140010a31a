"""The contract of exporters, as tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.contracts.exporters import Exporter
from bench.discovery.targets import with_defaults
from bench.reports.run_view import RunView, read_view
from bench.store.folder import list_runs
from bench.store.shipped import shipped_folder


def contents(folder: Path) -> dict[str, bytes]:
    """Return the files below a folder by their paths in it."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


class ExporterContract:
    """Tests of an exporter; subclass it and define `make`. `several` is as in its spec."""

    several = False

    def make(self) -> Any:
        """Return the exporter."""
        raise NotImplementedError

    @pytest.fixture
    def run(self) -> RunView:
        """A complete run of the toolkit; override it if the format needs another one."""
        return read_view(next(path for path in list_runs(shipped_folder()) if "race" in path.name))

    @pytest.fixture
    def exporter(self) -> Exporter:
        """The exporter."""
        made: Exporter = with_defaults(self.make(), Exporter)
        return made

    def test_it_writes_one_file_or_several(
        self, exporter: Exporter, run: RunView, tmp_path: Path
    ) -> None:
        """It writes files that are not empty: exactly one, unless `several` is set."""
        exporter.write(run, tmp_path)
        files = contents(tmp_path)
        assert all(files.values()) and (len(files) > 1 if self.several else len(files) == 1)

    def test_files_have_the_same_names_again(
        self, exporter: Exporter, run: RunView, tmp_path: Path
    ) -> None:
        """The same run has the same files in any folder."""
        for name in ("one", "another"):
            (tmp_path / name).mkdir()
            exporter.write(run, tmp_path / name)
        assert contents(tmp_path / "one").keys() == contents(tmp_path / "another").keys()

    def test_the_run_stays_as_it_is(self, exporter: Exporter, run: RunView, tmp_path: Path) -> None:
        """Nothing is written to the folder of the run."""
        before = contents(run.path)
        exporter.write(run, tmp_path)
        assert contents(run.path) == before

    def test_no_path_of_this_machine_is_passed_on(
        self, exporter: Exporter, run: RunView, tmp_path: Path
    ) -> None:
        """The files name neither the folder of the run nor that of the user."""
        exporter.write(run, tmp_path)
        for name, content in contents(tmp_path).items():
            for path in (run.path, Path.home()):
                assert str(path).encode() not in content or path == Path("/"), (name, path)
