"""The contract of executors: where the images of a run are scored, and by what."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from bench.contracts.parameters import Spec

if TYPE_CHECKING:  # so that listings, which import this module, load no numpy
    from bench.contracts.decision import Decided
    from bench.contracts.levels import Levels
    from bench.contracts.strategy import Problem


@dataclass(frozen=True, kw_only=True)
class ExecutorSpec(Spec):
    """An executor, selected by `--executor NAME`.

    Attributes:
        parameters: the settings `workers` and `ray_address`, if it uses them.
        in_process: whether it scores in the process of the command. Only then can it score a
            dataset or a backbone that exists only in memory.
    """

    kind: ClassVar[str] = "executor"

    in_process: bool = False


@dataclass(frozen=True)
class ModelFacts:
    """What is known once a model is loaded."""

    problem: Problem  # problem of every image
    levels: Levels | None = None  # noise levels of the model, if it has any
    fitted: Mapping[str, Any] | None = None  # report of the fit of a backbone that learns
    warnings: Sequence[str] = ()  # about the model; kept with the run
    rounding: Mapping[str, Any] | None = None  # comparison of its precision with float32


class OpenRun(ABC):
    """A run whose model is loaded; the caller stores the decisions that it yields.

    Attributes:
        model: facts about the model.
        device: type of the device whose speed is to be remembered; None to remember none.
        peak_memory: largest peak memory of any other process that scored so far, in bytes.
    """

    model: ModelFacts
    device: str | None = None
    peak_memory: int | None = None

    @abstractmethod
    def score(self, sample_ids: Iterable[str]) -> Iterator[Decided]:
        """Yield each image once, as soon as it is decided or has failed, in any order.

        The caller may stop early. Raises BenchError if not all images can be scored; what was
        yielded is kept, and the same command scores the others. A decision with another label,
        group or candidates than the image's, or with an outcome that a strategy could not return,
        is refused and not stored; so are facts in `model` that no manifest can hold.
        """

    def close(self) -> None:
        """Stop what was started for this run; safe if scoring was interrupted."""
        return None


class ScorableRun(Protocol):
    """A run before its model is loaded; the toolkit's is `bench.running.content.PreparedRun`."""

    def open(self) -> OpenRun:
        """Load the model in this process.

        `score` of the result takes an id from its argument only when it needs the image, so ids may
        come from a queue. It must be iterated in one thread.
        """


class Executor:
    """Opens runs one after another; the defaults are of `local`, which scores in this process.

    It is made as `Executor(device=…, **parameters)`, with the device that the user named or None
    and the parameters that are set. The constructor raises UserError if they do not fit, and starts
    nothing.
    """

    def __init__(self, device: str | None = None) -> None:
        return None

    def open(self, run: ScorableRun) -> OpenRun:
        """Load the model wherever the images will be scored; raises BenchError if that fails."""
        return run.open()

    def close(self) -> None:
        """Stop what was started for all runs."""
