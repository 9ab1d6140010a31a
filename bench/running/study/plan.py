"""What a study would cost, before anything heavy is loaded."""

from __future__ import annotations

from bench.errors import UserError
from bench.running.study.file import DeclaredStudy
from bench.running.study.run import check_cells
from bench.running.verbs.estimate import make_plan
from bench.store.fields import Count, Document


class PlannedCell(Document):
    """One run of a study; evaluations, TFLOP and seconds are those left."""

    axes: dict[str, str]
    run_id: str | None = None  # run id; None: data or weights were not read
    images: Count | None = None
    images_to_score: Count | None = None  # images that are not stored yet; 0: the run is complete
    evaluation_equivalents: Count | None = None
    tflop: float | None = None
    seconds: float | None = None  # None: the backbone's speed is not known here
    at_most: bool = False
    """Whether the cost is an upper bound: the strategy spends on each image what it needs."""
    error: str | None = None  # why it cannot run

    @property
    def there(self) -> bool:
        """Whether it is stored completely."""
        return self.images_to_score == 0


class StudyPlan(Document):
    """Every run of a study, and the cost of those that are left."""

    name: str
    axes: list[str]
    pilot: Count
    cells: list[PlannedCell]
    runs: Count
    runs_there: Count
    runs_with_errors: Count
    images_to_score: Count
    evaluation_equivalents: Count
    tflop: float | None  # None: not known of every run
    seconds: float  # estimated time of the runs with a known speed
    at_most: bool  # whether the cost of a run is an upper bound
    runs_without_time: Count  # runs without a known speed
    warnings: list[str]


def plan_study(declared: DeclaredStudy) -> StudyPlan:
    """Return the plan of every run; raises as `check_cells`."""
    declared, notes = check_cells(declared)
    cells, warnings = [], dict.fromkeys(notes)
    for cell in declared.cells:
        axes = dict(cell.axes)
        try:
            plan = make_plan(cell.config)
        except UserError as error:
            cells.append(PlannedCell(axes=axes, error=str(error)))
            continue
        warnings.update(dict.fromkeys(plan.warnings))
        fields = plan.model_dump(include=set(PlannedCell.model_fields))
        cells.append(PlannedCell(axes=axes, evaluation_equivalents=plan.evaluations, **fields))
    left = [cell for cell in cells if not cell.there and cell.error is None]
    tflop = [cell.tflop for cell in left if cell.tflop is not None]
    seconds = [cell.seconds for cell in left if cell.seconds is not None]
    return StudyPlan(
        name=declared.name,
        axes=list(declared.axes),
        pilot=declared.pilot,
        cells=cells,
        runs=len(cells),
        runs_there=sum(cell.there for cell in cells),
        runs_with_errors=sum(cell.error is not None for cell in cells),
        images_to_score=sum(cell.images_to_score or 0 for cell in left),
        evaluation_equivalents=sum(cell.evaluation_equivalents or 0 for cell in left),
        tflop=sum(tflop) if len(tflop) == len(left) else None,
        seconds=sum(seconds),
        at_most=any(cell.at_most for cell in left),
        runs_without_time=len(left) - len(seconds),
        warnings=list(warnings),
    )
