"""The routes to a run. Each yields the runs that it makes, to be compared.

To add one: a function, and its entry in `ROUTES`, in which `Terms` says what cases it takes.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from helpers.hub import a_hub, point_clients
from helpers.interrupted import killed
from helpers.workers import Threads
from oracle import refusals
from oracle.cases import WITH_LORA, WITH_MODELS, Case, Terms, neighbour, reworded
from oracle.comparison import Run
from oracle.models import BY_HAND, MASKED, OTHERS, STABLE, TOKENS
from oracle.pictures import FORMS
from oracle.session import Session, words

from bench.running.execute import execute
from bench.running.parts.settings import make_config
from bench.running.prepare import prepare
from bench.store.folder import read_manifest
from bench.store.studies import read_study, study_folder
from bench_plugins.executors.driver import Driver

Made = Iterator[Run]


def single(session: Session, case: Case) -> Made:
    """Make one run."""
    yield Run(case, session.run(case, "single"))


def warm_cache(session: Session, case: Case) -> Made:
    """Make the run twice, the second time with what the first one cached."""
    first = session.run(case, "first")
    yield Run(case, first)
    yield Run(case, session.run(case, "second"), like=first)


def foreign_cache(session: Session, case: Case) -> Made:
    """Make the run in a cache that another one filled, whose model differs in one point."""
    other = neighbour(case, case.rng())
    yield Run(other, session.run(other, "other"))
    filled = session.run(case, "filled")
    yield Run(case, filled)
    yield Run(case, session.run(case, "own", cache="own cache"), like=filled)


def resumed(session: Session, case: Case) -> Made:
    """Kill the run, and make it again where it stopped."""
    whole = session.run(case, "whole")
    yield Run(case, whole)
    options = words(session.settings(case, results=session.place(case, "killed")))
    with session.caching(case):
        killed(["run", *options], case.seed % 3 + 1)
    yield Run(case, session.run(case, "killed"), like=whole, exactly=False)


def study(session: Session, case: Case, first: bool) -> Made:
    """Make the run as the first or last cell of a study, and then alone in the study's cache.

    The study has two models, which differ in one point, and two sets of prompts; one of the four
    cells is left out.
    """
    rng = case.rng()
    other = neighbour(case, rng)
    rest = [other, reworded(case), reworded(other)]
    rest = rng.sample(rest, 2)
    cells, pilot = [case, *rest] if first else [*rest, case], rng.choice((0, 2))
    runs = _studied(session, cells, pilot)
    yield from (Run(cell, run) for cell, run in zip(cells, runs, strict=True))
    # The pilot's pictures are in batches of their own, which changes the rounding.
    like, exactly = runs[cells.index(case)], not pilot
    yield Run(case, session.run(case, "alone"), like=like, exactly=exactly)


def _studied(session: Session, cells: Sequence[Case], pilot: int, *options: object) -> list[Path]:
    """Make the runs of a study, one per cell in this order."""
    file, results = session.place(cells[0], "study.toml"), session.place(cells[0], "study")
    grids = [_grid(session.settings(cell)) for cell in cells]
    file.write_text("\n".join(['name = "oracle"', f"pilot = {pilot}", *grids]))
    session.bench(cells[0], "study", file, "--results", results, *options)
    made = read_study(study_folder(results, "oracle")).cells
    return [results / str(cell.run_id) for cell in made]


def _grid(settings: dict[str, Any]) -> str:
    """Return settings as a grid of one cell in TOML, in which each is an axis."""
    params = settings["params"]
    axes = ", ".join(f"{name} = [{json.dumps(params[name])}]" for name in params)
    others = {name: value for name, value in settings.items() if name != "params"}
    lines = [f"{name} = [{json.dumps(value, default=str)}]" for name, value in others.items()]
    return "\n".join(["[[grid]]", f"params = {{{axes}}}", *lines])


def shards(session: Session, case: Case) -> Made:
    """Make the run in two shards, and merge them."""
    parts = [session.run(case, "shards", shard=shard) for shard in ("1/2", "2/2")]
    results, run_id = session.place(case, "shards"), read_manifest(parts[0]).run_id
    session.bench(case, "results", "merge", run_id, "--results", results)
    yield Run(case, results / run_id)
    whole = session.run(case, "whole")
    yield Run(case, whole, like=results / run_id, exactly=False)


def workers(session: Session, case: Case) -> Made:
    """Score with the workers of Ray, each a thread of this process."""
    settings = session.settings(case, results=str(session.place(case, "workers")))
    with session.caching(case):
        prepared = prepare(make_config(settings))
        made = execute(prepared.task(lambda _: Driver(prepared, Threads(2))))
    yield Run(case, made.folder)
    yield Run(case, session.run(case, "whole"), like=made.folder, exactly=False)


def ray(session: Session, case: Case) -> Made:
    """Score a study of three runs with one Ray, which takes long to start."""
    cells = [
        case,
        neighbour(case, case.rng()),
        reworded(case),
    ]
    runs = _studied(session, cells, 0, "--executor", "ray", "--workers", 2)
    yield from (Run(cell, run) for cell, run in zip(cells, runs, strict=True))
    yield Run(case, session.run(case, "whole"), like=runs[0], exactly=False)


def until(session: Session, case: Case) -> Made:
    """End the run when a question is answered, and then make the rest of it."""
    whole = session.run(case, "whole")
    yield Run(case, whole)
    prefix = session.run(case, "prefix", until="width 0.9")
    yield Run(case, prefix, part=True, like=whole, exactly=False)
    yield Run(case, session.run(case, "prefix"), like=whole, exactly=False)


def risk(session: Session, case: Case) -> Made:
    """Race with a stated risk, for which some of the pictures are swept."""
    yield Run(case, session.run(case, "risk", risk="0.4"))


def replay(session: Session, case: Case) -> Made:
    """Decide from recorded errors, and with the model."""
    full = case.changed(strategy="full")
    recording, live = session.run(full, "recording"), session.run(case, "live")
    yield Run(full, recording)
    yield Run(case, live)
    options = {"strategy": case.settings["strategy"], "params": session.params_of_strategy(case)}
    arguments = words({"dataset": recording, **options, "results": session.place(case, "replayed")})
    done = session.bench(case, "replay", *arguments, "--json")
    yield Run(case, Path(done.json["results_dir"]), like=live, exactly=False)


def memory(session: Session, case: Case) -> Made:
    """Hand over a pipeline in memory."""
    named = session.run(case, "named")
    yield Run(case, named)
    handed = session.hand_over(case, "handed", session.models.pipe(case.kind, case.lora))
    yield Run(case, handed, like=named, exactly=False)


def single_file(session: Session, case: Case) -> Made:
    """Read the tensors from one file, beside a folder of configs."""
    configs, file = session.place(case, "configs"), session.models.single_file(case.kind)
    without_tensors = shutil.ignore_patterns("*.safetensors")
    shutil.copytree(session.models.folder(case.kind), configs, ignore=without_tensors)
    made = session.run(case, "file", backbone=str(configs), weights=str(file))
    yield Run(case, made)
    yield Run(case, session.run(case, "folder"), like=made, exactly=False)


def hub(session: Session, case: Case) -> Made:
    """Take the model from a Hub, and once more, without cached prompts, when the Hub is gone."""
    folder, name = session.run(case, "folder"), f"owner/{case.kind.lower()}"
    yield Run(case, folder)
    with pytest.MonkeyPatch.context() as clients:
        with a_hub() as server:
            server.add(f"models/{name}", session.models.folder(case.kind))
            point_clients(server, session.place(case, "hub"), clients)
            fetched = session.run(case, "fetched", cache="hub's", backbone=name)
        yield Run(case, fetched, like=folder)
        gone = session.run(case, "gone", cache="later", backbone=name)
        yield Run(case, gone, like=fetched)


@dataclass(frozen=True)
class Route:
    """A route, and the cases that it takes."""

    go: Callable[[Session, Case], Iterator[Run | str]]
    terms: Terms = field(default_factory=Terms)


ANY = Terms(kinds=(*BY_HAND, *OTHERS), forms=tuple(FORMS))
SHARING = Terms(kinds=(*WITH_MODELS, *WITH_MODELS, *BY_HAND))  # mostly with several models
ROUTES: dict[str, Route] = {
    "single": Route(single, ANY),
    "warm cache": Route(warm_cache, ANY),
    "cache of another": Route(foreign_cache),
    "resumed": Route(resumed),
    "first of a study": Route(partial(study, first=True), SHARING),
    "last of a study": Route(partial(study, first=False), SHARING),
    "shards": Route(shards),
    "workers": Route(workers),
    "until": Route(until, Terms(counts=(9, 12))),
    "risk": Route(risk, Terms(strategies=("race",), counts=(6, 9))),
    "replay": Route(replay),
    "memory": Route(memory, Terms(forms=tuple(FORMS), named=False)),
    "single file": Route(single_file, Terms(kinds=STABLE)),
    "hub": Route(hub),
    "busy hub": Route(refusals.busy_hub),
    "damaged folder": Route(partial(refusals.damaged, way="folder")),
    "damaged, any class": Route(partial(refusals.damaged, way="folder"), Terms(kinds=OTHERS)),
    "damaged, with LoRA": Route(partial(refusals.damaged, way="LoRA"), Terms(kinds=WITH_LORA)),
    "damaged file": Route(partial(refusals.damaged, way="file"), Terms(kinds=STABLE)),
    "tokens": Route(single, Terms(kinds=TOKENS, forms=tuple(FORMS))),
    "tokens, from a hub": Route(hub, Terms(kinds=TOKENS)),
    "tokens, damaged": Route(partial(refusals.damaged, way="folder"), Terms(kinds=TOKENS)),
    "masked tokens": Route(single, Terms(kinds=MASKED, forms=tuple(FORMS))),
    "masked tokens, resumed": Route(resumed, Terms(kinds=MASKED)),
    "masked tokens, replayed": Route(replay, Terms(kinds=MASKED)),
    "masked tokens, damaged": Route(partial(refusals.damaged, way="folder"), Terms(kinds=MASKED)),
    "unsupported model": Route(refusals.unsupported, Terms(kinds=("WanPipeline",), named=False)),
}
SLOW_ROUTES = {"ray": Route(ray)}
