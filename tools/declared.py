"""Ask the Hub for what is declared here: the first rows of each dataset, the configs of each model.

    python tools/declared.py [NAME…] > table.md

It prints a Markdown table with a line for each, and ends with 1 if something is not as declared.
Nothing else is downloaded: three images of a dataset are streamed, and of a model only its configs
are read, by the code that a run uses. `HF_ENDPOINT` names another Hub, such as the tests' stand-in.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

from bench.contracts.specs import BackboneSpec, DatasetSpec
from bench.discovery.loading import load_plugins
from bench.discovery.targets import load_target
from bench.errors import BenchError
from bench.inputs.data import DataSource, load_split
from bench.inputs.weights import resolve

FIRST = 3  # images of a dataset
HUB = "hf:"
CONFIG = "config.json"  # of a model that is no pipeline
GATED = "behind a licence"


def first_rows(spec: DatasetSpec) -> str:
    """Load the first rows of a declared dataset as a run does, and return what they are."""
    source = str(spec.source)
    place, _, config = source.removeprefix(HUB).partition(":")
    split = spec.split_names.get(str(spec.split), spec.split)
    part = f"{HUB}{place}:{config}/{split}[:{FIRST}]"
    loaded = load_split(DataSource(replace(spec, source=part, unverified=False)), split)
    kinds = "items" if loaded.items else f"{len(loaded.class_names.names)} classes"
    return f"{len(loaded.sample_ids)} images, {kinds}"


def configs(spec: BackboneSpec) -> str:
    """Read the configs of a declared model as a run does, and return what they are of."""
    weights = resolve(str(spec.weights), spec.revision)
    target: Any = load_target(spec)
    if spec.scorer != "denoiser" or not hasattr(target, "inspected"):
        kind = weights.read(CONFIG).get("model_type", "a model")
        return f"{kind}, {CONFIG}"
    inspected = target.inspected(weights, "float32")
    size = sum(parameter.numel() for parameter in inspected.network.parameters())
    found = f"{inspected.resolution} px, {size / 1e6:,.0f} M parameters"
    declared = (spec.resolution, spec.size)
    if None not in declared and (
        inspected.resolution != spec.resolution or abs(size / (spec.size or 1) - 1) > 0.005
    ):
        raise BenchError(
            f"{found}; declared: {spec.resolution} px, {(spec.size or 0) / 1e6:,.0f} M"
        )
    return found


def asked(read: Callable[[Any], str], spec: Any) -> tuple[bool, str]:
    """Return whether the Hub has what a spec declares, and what was found, on one line."""
    try:
        return True, read(spec)
    except Exception as error:  # whatever fails is a line of the table
        text = " ".join(str(error).split()) or type(error).__name__
        gated = getattr(spec, "gated", False) or "licence" in text or "gated" in text.lower()
        return gated, f"{GATED if gated else 'NOT AS DECLARED'}: {text[:200]}"


def table(names: Iterable[str] = ()) -> Iterator[tuple[bool, str]]:
    """Yield whether each declared dataset and model is as declared, and its line of the table."""
    plugins, wanted = load_plugins(), set(names)
    datasets = [spec for spec in plugins.datasets if str(spec.source).startswith(HUB)]
    models = [spec for spec in plugins.backbones if spec.weights and ":" not in spec.weights]
    jobs: list[tuple[str, str, Callable[[Any], str], Any]] = [
        *(("dataset", str(spec.source), first_rows, spec) for spec in datasets),
        *(("model", str(spec.weights), configs, spec) for spec in models),
    ]
    for kind, source, read, spec in jobs:
        if not wanted or spec.name in wanted:
            good, found = asked(read, spec)
            yield good, f"| {kind} | {spec.name} | {source} | {found.replace('|', chr(92) + '|')} |"


def main(*names: str) -> int:
    """Print the table, and return the exit code."""
    print("| what | name | on the Hub | found |\n|---|---|---|---|")
    bad = 0
    for good, line in table(names):
        print(line, flush=True)
        bad += not good
    print(f"\n{bad} not as declared." if bad else "\nAll as declared.")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
