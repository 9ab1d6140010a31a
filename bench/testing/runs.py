"""The contracts of executors, metrics and exporters, as tests."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from typing_extensions import override

from bench.contracts.dataset import Sample
from bench.contracts.decision import Decided
from bench.contracts.executor import Executor, ModelFacts, OpenRun
from bench.contracts.exporters import Exporter
from bench.contracts.metric import Metric, MetricInput
from bench.contracts.metric_spec import MetricSpec
from bench.contracts.strategy import Outcome, Problem
from bench.discovery.targets import with_defaults
from bench.machine.files import own_files
from bench.reports.run_view import RunView, read_view
from bench.stats.metrics.metric_checks import checked_value, metric_parts
from bench.store.folder import list_runs
from bench.store.shipped import shipped_folder
from bench.testing.datasets import Contract

CLASSES, N_IMAGES, FAILS = 3, 40, "image 7"
N_MEASURED = 60  # number of images of a metric


class MadeRun(OpenRun):
    """A run without a model, and what opens it: an image's class is its number; one image fails."""

    model = ModelFacts(Problem(np.arange(CLASSES), np.zeros(1, np.int64), np.ones(1)))
    sample_ids = tuple(f"image {number}" for number in range(N_IMAGES))

    def open(self) -> OpenRun:
        """Return the run, which needs no loading."""
        return self

    @override
    def score(self, sample_ids: Iterable[str]) -> Iterator[Decided]:
        return map(self._decided, sample_ids)

    def _decided(self, sample_id: str) -> Decided:
        label = int(sample_id.split()[1]) % CLASSES
        if sample_id == FAILS:
            return Decided(Sample(sample_id, label, {}), error="made to fail")
        scores = np.arange(CLASSES) != label
        ones = np.ones(CLASSES, np.int64)
        outcome = Outcome(np.argsort(scores), scores.astype(float), ones, 1.0, 0.0, 1.0)
        return Decided(Sample(sample_id, label, {}), outcome, evaluations=CLASSES)


class ExecutorContract(Contract):
    """Tests of an executor; subclass it and define `make`."""

    @pytest.fixture
    def run(self) -> Any:
        """The run to score; override it for an executor that needs one of the toolkit's."""
        return MadeRun()

    @pytest.fixture
    def executor(self) -> Iterator[Executor]:
        """The executor, with default methods where it has none of its own."""
        with closing(with_defaults(self.make(), Executor)) as executor:
            yield executor

    def test_each_image_is_decided_once_and_as_in_this_process(
        self, executor: Executor, run: Any
    ) -> None:
        """Decisions, failures and facts about the model are those of `run.open()`; twice."""
        wanted = run.open()
        expected = {d.sample.sample_id: _plain(d) for d in wanted.score(run.sample_ids)}
        for _ in range(2):
            with closing(executor.open(run)) as opened:
                decided = list(opened.score(run.sample_ids))
                assert len(decided) == len(expected)
                assert {d.sample.sample_id: _plain(d) for d in decided} == expected
                assert opened.model.problem.n_classes == wanted.model.problem.n_classes

    def test_scoring_can_end_early(self, executor: Executor, run: Any) -> None:
        """After the first decision the run is closed, twice; then it can be opened again."""
        opened = executor.open(run)
        first = next(iter(opened.score(run.sample_ids)))
        opened.close()
        opened.close()
        with closing(executor.open(run)) as again:
            rest = [name for name in run.sample_ids if name != first.sample.sample_id]
            assert {d.sample.sample_id for d in again.score(rest)} == set(rest)


def _plain(decided: Decided) -> tuple[object, ...]:
    ranking = None if decided.outcome is None else tuple(decided.outcome.ranking)
    return decided.sample.label, ranking, decided.error, decided.evaluations


class MetricContract(Contract):
    """Tests of a metric; subclass it and define `make`.

    Attributes:
        mean_over_images: `mean_over_images` of the metric's spec.
        range: `range` of the metric's spec.
        columns: further labels that the metric reads, as name → labels of the test images, which
            are repeated to `N_MEASURED`. The classes are `class 0` to `class 3`.
    """

    mean_over_images = False
    range: tuple[float, float] = (0.0, 1.0)
    columns: ClassVar[Mapping[str, Sequence[str]]] = {}

    @pytest.fixture
    def metric(self) -> Metric:
        """The metric, with default methods where it has none of its own."""
        made: Metric = with_defaults(self.make(), Metric)
        return made

    @pytest.fixture
    def data(self) -> MetricInput:
        """Random decisions on 60 images of four classes; one image failed."""
        rng = np.random.default_rng(0)
        labels = np.arange(N_MEASURED) % 4
        scores = rng.normal(size=(N_MEASURED, 4))
        scores[np.arange(N_MEASURED), labels] -= 1
        predictions = scores.argmin(axis=1)
        predictions[7] = -1
        return MetricInput(
            classes=tuple(f"class {label}" for label in range(4)),
            labels=labels,
            predictions=predictions,
            in_top5=np.ones(N_MEASURED, dtype=bool),
            in_candidates=rng.random(N_MEASURED) < 0.9,
            scores=scores,
            groups=np.array(["here", "there"])[labels % 2],
            columns={name: np.resize(np.array(v), N_MEASURED) for name, v in self.columns.items()},
            raters={"other": np.where(rng.random(N_MEASURED) < 0.8, labels, (labels + 1) % 4)},
            ranks=rng.integers(1, 4, N_MEASURED),
        )

    @pytest.fixture
    def spec(self) -> MetricSpec:
        """What the attributes declare, as a registration."""
        mean, target = self.mean_over_images, f"{__name__}:Metric"
        return MetricSpec(name="tested", target=target, mean_over_images=mean, range=self.range)

    def test_a_value_is_in_its_range_whatever_the_order(
        self, spec: MetricSpec, metric: Metric, data: MetricInput
    ) -> None:
        """The value is within the range, and the same in a second call and in another order."""
        for part in (data, data.take(np.arange(20, dtype=np.int64))):
            checked_value(spec, metric, part)

    @pytest.mark.filterwarnings("error::bench.errors.BenchWarning")
    def test_values_of_images_give_the_metric_and_its_error(
        self, spec: MetricSpec, metric: Metric, data: MetricInput
    ) -> None:
        """The weighted mean of image values is the metric, with weights that are not negative.

        Influence values have about the standard error of a bootstrap.
        """
        metric_parts(spec, metric, data)


def contents(folder: Path) -> dict[str, bytes]:
    """Return the files below a folder by their names in it; UserError if there is a link."""
    return {name: (folder / name).read_bytes() for name in own_files(folder)}


class ExporterContract(Contract):
    """Tests of an exporter; subclass it and define `make`. `several` is as in its spec."""

    several = False

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
        """It writes files that are not empty and no links: exactly one, unless `several` is set."""
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
