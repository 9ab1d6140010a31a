"""`bench fetch`. Download models and data for offline use.

Group: See what is there, 5.
"""

import shlex
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Annotated, Literal

from bench.cli.command import command, end_with_json, wants_json
from bench.cli.output import next_steps, print_log, say
from bench.contracts.backbone import Backbone
from bench.discovery.backbones import fact
from bench.discovery.loading import load_plugins
from bench.discovery.targets import load_target, offers
from bench.errors import AbsentError, UserError
from bench.inputs.data import DataSource, find_scheme, load_split
from bench.inputs.weights import HASHED_SUFFIXES
from bench.machine.files import read_toml
from bench.machine.precision import dtype_of
from bench.running.command import option_words
from bench.running.generated import asks_for_generated, generator_config
from bench.running.parts.data import DECLARATION, expand_datasets, find_dataset
from bench.running.parts.model import find_weights, naming_licence
from bench.running.parts.settings import Names, make_config
from bench.running.prepare import NO_DATASET, resolve
from bench.running.study.file import read_study_file
from bench.store.formats.fields import Document


@command()
def fetch_command(
    names: Annotated[tuple[str, ...], {"metavar": "NAME…"}],
    *,
    revision: Annotated[str | None, "The Hub revision of weights; only with a single NAME."],
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"] | None,
        "Precision to download if the Hub has several [default: those of runs here and on a GPU].",
    ],
) -> None:
    """Download the weights or data of each NAME, and check them.

    NAME is a backbone, a Hub id, a dataset (also hf:OWNER/NAME or @COLLECTION), or a study, whose
    data and weights are all fetched. Their sizes are printed before. They are kept in the caches of
    the Hub's libraries; afterwards `bench run --offline` needs no network. What the Hub does not
    give is named at the end.
    """
    if revision and len(names) > 1:
        raise UserError("--revision needs a single NAME.")
    print_log("bench.hub")
    fetched: list[Fetched] = []
    absent: list[str] = []
    for fetch_part in chain.from_iterable(parts_of(name, revision, dtype) for name in names):
        try:
            part = fetch_part()
        except AbsentError as error:  # the others may be had
            absent.append(str(error))
        else:
            fetched.append(part)
            say(f"{part.name}: {_describe(part)}.", err=wants_json())
    if absent:
        raise UserError("\n".join(absent))
    end_with_json([part.plain() for part in fetched])
    models = [part.name for part in fetched if part.weights]
    data = [part.name for part in fetched if part.kind == "dataset"]
    backbone = models[-1] if models else None
    words = option_words({"backbone": backbone, "revision": revision, "dtype": dtype})
    run = ["bench", "run", data[-1] if data else "DATASET", *words, "--offline"]
    if models or data:
        next_steps(("score with it", shlex.join(run)))


def _describe(part: "Fetched") -> str:
    """Return where a fetched part is, and its licence."""
    where = "it has no weights of its own"
    if part.images is not None:
        where = f"{part.images:,} images are on this machine"
    elif part.weights:
        where = f"{part.weights} is in {part.folder}"
    return where + (f" (licence: {part.licence})" if part.licence else "")


class Fetched(Document):
    """A backbone or dataset that is on this machine."""

    name: str
    kind: Literal["backbone", "dataset"]
    weights: str | None = None  # Hub id or folder; None for a dataset, and for no weights
    revision: str | None = None  # commit on the Hub
    licence: str | None = None
    folder: str | None = None  # folder of the weights
    images: int | None = None  # in the split of a dataset


def fetch(name: str, dtype: str | None = None) -> Iterator[Fetched]:
    """Download and check all parts of `parts_of`, and yield them."""
    return (fetch_part() for fetch_part in parts_of(name, None, dtype))


def parts_of(name: str, revision: str | None, dtype: str | None) -> Iterator[Callable[[], Fetched]]:
    """Yield functions that download the data and weights of `name`, one part each, and check them.

    `name` is a backbone, a Hub id of weights, a dataset, a collection or a study. `dtype` selects
    among several stored precisions of weights. A part raises UserError, which is an AbsentError if
    the Hub does not give it; the message names the page of a licence to accept.
    """
    plugins = load_plugins()
    is_file = name.endswith(DECLARATION)
    if name in plugins.studies or (is_file and "source" not in read_toml(Path(name))):
        yield from _parts_of_study(name)
    elif (
        is_file
        or name.startswith("@")
        or (name in plugins.datasets and name not in plugins.backbones)
        or find_scheme(name, plugins.datasets) is not None
    ):
        for dataset in expand_datasets([name]):
            yield partial(_fetch_data, find_dataset(make_config({"dataset": dataset})))
    else:
        settings = {"dataset": "-", "backbone": name, "revision": revision, "dtype": dtype}
        yield partial(_fetch_weights, resolve(make_config(settings), NO_DATASET), name)


def _parts_of_study(name: str) -> Iterable[Callable[[], Fetched]]:
    """Return functions that fetch the data and weights of a study's runs, each part once."""
    parts: dict[object, Callable[[], Fetched]] = {}
    for cell in read_study_file(name, {}).cells:
        run, config = resolve(cell.config), cell.config
        learns = run.backbone.learns and config.holdout is None
        training_splits = [config.fit_split or "train"] if learns else []
        if learns and asks_for_generated(config.fit_split):
            training_splits = []
            generator = resolve(generator_config(config, run.dataset), NO_DATASET)
            fetch = partial(_fetch_weights, generator, generator.source.name)
            parts.setdefault(generator.backbone_key, fetch)
        for split in (config.split, *training_splits):
            parts.setdefault(repr((run.data, split)), partial(_fetch_data, run.data, split))
        parts.setdefault(run.backbone_key, partial(_fetch_weights, run, run.source.name))
    return parts.values()


def _fetch_data(data: DataSource, split: str | None = None) -> Fetched:
    """Fetch and check a split of a dataset; None: its default one."""
    loaded = load_split(data, split)
    images = len(loaded.sample_ids)
    name, licence = data.name or data.slug, data.spec.licence or None
    return Fetched(name=name, kind="dataset", licence=licence, images=images)


def _fetch_weights(run: Names, name: str) -> Fetched:
    """Fetch and check the weights that a run reads of its backbone, called `name`."""
    spec, weights = run.backbone, find_weights(run.config, run.source, run.backbone_parameters)
    if weights is None:
        return Fetched(name=name, kind="backbone", licence=spec.licence)
    with naming_licence(run.source):
        if offers(load_target(spec), Backbone.check_weights):  # it downloads the files it reads
            parameters = run.backbone_parameters
            # A run here and one on a GPU may read files of different precisions.
            on_gpu = dtype_of(run.precision.on_gpu)
            for dtype in dict.fromkeys([run.precision.dtype, on_gpu]):
                fact(spec, Backbone.check_weights, weights, dtype=dtype, **parameters)
        else:
            files = [n for n in weights.listing or () if n.endswith(tuple(HASHED_SUFFIXES))]
            weights.prefetch(files)
            for file in files:
                weights.find(file)
    return Fetched(
        name=name,
        kind="backbone",
        weights=weights.location,
        revision=weights.revision,
        licence=spec.licence,
        folder=str(weights.root),
    )
