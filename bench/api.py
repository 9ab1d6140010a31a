"""The Python interface: what the commands do, as functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bench.discovery.loading import load_plugins
from bench.discovery.targets import make
from bench.inputs.data import load_classes, load_rows
from bench.inputs.prompts import from_template
from bench.inputs.weights import resolve as resolve_weights
from bench.machine.environment import pick_device
from bench.running.resolve import resolve_backbone, resolve_dataset
from bench.running.run import run as run_config
from bench.running.settings import RunConfig, make_config

if TYPE_CHECKING:
    import datasets


def load_dataset(
    name: str, split: str | None = None, data_dir: str | None = None
) -> datasets.Dataset:
    """Return a dataset's split with the columns image, label and sample_id.

    Args:
        name: a registered name, or a folder (a value with a slash).
        split: None: the one that is evaluated.
        data_dir: a local copy.

    Returns:
        Its images are decoded as runs see them when they are read.
    """
    from bench.inputs.decoded import DecodedImage

    config, spec = resolve_dataset(RunConfig(dataset=name, data_dir=data_dir), load_plugins())
    return load_rows(spec, split, config.data_dir).cast_column("image", DecodedImage())


def prompts(name: str, template: str | None = None) -> list[str]:
    """Return the prompts of a dataset in class order.

    Args:
        name: a registered name, or a folder.
        template: a text with `{class}` instead of the dataset's.
    """
    config, spec = resolve_dataset(RunConfig(dataset=name), load_plugins())
    classes = load_classes(spec, config.data_dir).names
    text, own = (spec.template, False) if template is None else (template, True)
    return list(from_template(text, classes, spec.phrases, as_written=own).texts)


def load_backbone(
    name: str, weights: str | None = None, device: str | None = None, dtype: str | None = None
) -> Any:
    """Return a backbone, a `bench.contracts.backbone.Denoiser` or `Classifier`.

    Args:
        name: a registered name, or a pipeline folder.
        weights: a Hub id or a folder instead of the backbone's own.
        device: None: the best there is.
        dtype: None: float32.
    """
    config, spec = resolve_backbone(
        RunConfig(dataset="-", backbone=name, weights=weights), None, load_plugins()
    )
    source = config.weights or spec.weights
    return make(
        spec,
        resolve_weights(source, spec.revision) if source else None,
        device=pick_device(device),
        dtype=dtype or "float32",
        **spec.resolve_parameters({}),
    )


def run(
    dataset: str,
    backbone: str | None = None,
    strategy: str | None = None,
    params: Mapping[str, Any] | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Make or resume a run, and return the object behind `bench run --json`.

    Args:
        dataset: a registered name, or a folder.
        backbone: None: the dataset's.
        strategy: None: the backbone's.
        params: the strategy's parameters.
        settings: any other field of `bench.running.settings.RunConfig`.

    Raises:
        bench.errors.UserError: invalid input or configuration; nothing was scored.
    """
    finished = run_config(
        make_config(
            {
                "dataset": dataset,
                "backbone": backbone,
                "strategy": strategy,
                "params": dict(params or {}),
                **settings,
            }
        )
    )
    return finished.plain()
