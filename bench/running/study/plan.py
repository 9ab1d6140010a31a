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
    run_id: str | None = None
    """None: its data or weights were not read."""
    images: Count | None = None
    images_to_score: Count | None = None
    """Without those that are stored already; 0: the run is there."""
    evaluation_equivalents: Count | None = None
    tflop: float | None = None
    seconds: float | None = None
    """None: nothing is known of the backbone's speed here."""
    at_most: bool = False
    """The strategy spends on each image what it needs: the cost is what it cannot exceed."""
    error: str | None = None
    """Why it cannot be made as it is."""

    @property
    def there(self) -> bool:
        """Whether all of it is stored."""
        return self.images_to_score == 0


class StudyPlan(Document):
    """Every run of a study, and what all of them take together."""

    name: str
    axes: list[str]
    pilot: Count
    cells: list[PlannedCell]
    runs: Count
    runs_there: Count
    runs_with_errors: Count
    images_to_score: Count
    evaluation_equivalents: Count
    tflop: float | None
    """None: not known of every run that is left."""
    seconds: float
    """Of the runs whose speed is known."""
    at_most: bool
    """The cost of a run that is left is what it cannot exceed."""
    runs_without_time: Count
    """Runs that are left and whose speed is not known."""
    warnings: list[str]


def plan_study(declared: DeclaredStudy) -> StudyPlan:
    """Return what every run would be and cost.

    Raises:
        UserError: a name, a parameter or a combination cannot work.
    """
    declared, notes = check_cells(declared)
    cells, said = [], dict.fromkeys(notes)
    for cell in declared.cells:
        axes = dict(cell.axes)
        try:
            plan = make_plan(cell.config)
        except UserError as error:
            cells.append(PlannedCell(axes=axes, error=str(error)))
            continue
        said.update(dict.fromkeys(plan.warnings))
        cells.append(
            PlannedCell(
                axes=axes,
                run_id=plan.run_id,
                images=plan.images,
                images_to_score=plan.images_to_score,
                evaluation_equivalents=plan.evaluations,
                tflop=plan.tflop,
                seconds=plan.seconds,
                at_most=plan.at_most,
            )
        )
    left = [cell for cell in cells if not cell.there and cell.error is None]
    tflop = [cell.tflop for cell in left]
    seconds = [cell.seconds for cell in left]
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
        tflop=None if None in tflop else sum(one or 0.0 for one in tflop),
        seconds=sum(one or 0.0 for one in seconds),
        at_most=any(cell.at_most for cell in left),
        runs_without_time=seconds.count(None),
        warnings=list(said),
    )
