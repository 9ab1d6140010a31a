"""Where a run takes place: its executor, and the trackers that see it."""

from importlib.util import find_spec

from bench.contracts.executor import ExecutorSpec
from bench.contracts.parameters import Parameters
from bench.discovery.loading import load_plugins
from bench.discovery.targets import make
from bench.errors import UserError
from bench.running.settings import RunConfig, passed_to


def check_executor(config: RunConfig, in_memory: bool = False) -> None:
    """Raise UserError if a run's executor is unknown or does not fit, or a tracker is missing.

    `in_memory` is whether the caller has handed over its dataset or backbone.
    """
    trackers = [config.tracker] if isinstance(config.tracker, str) else config.tracker or []
    for package in (tracker.partition(":")[0] for tracker in trackers):
        if find_spec(package) is None:
            raise UserError(
                f"--tracker {package}: it is not installed: pip install"
                f" 'diffusion-classifier-bench[{package}]'"
            )
    spec, parameters = executor_of(config)
    if in_memory and not spec.in_process:
        raise UserError(
            f"--executor {spec.name}: workers load the dataset and the backbone by name, so objects"
            " in memory cannot be used. Save a pipeline with pipe.save_pretrained(FOLDER) and name"
            " the folder."
        )
    make(spec, **parameters)


def executor_of(config: RunConfig) -> tuple[ExecutorSpec, Parameters]:
    """Return a run's executor and its parameters; UserError if it lacks one that is set."""
    spec = load_plugins().executors.get(config.executor)
    return spec, {"device": config.device, **passed_to(spec, config)}
