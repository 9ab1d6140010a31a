"""Routes that must end without a run: damaged weights, models that are not supported, a busy Hub.

They yield what was not refused in words, and runs to be compared.
"""

import copy
import random
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from helpers import released
from helpers.hub import Fault, a_hub, point_clients
from oracle.cases import Case
from oracle.comparison import Run
from oracle.session import FailedError, RefusedError, Session
from safetensors.torch import load, load_file, save, save_file

Made = Iterator[Run | str]
# Parts of the names of tensors on which no score depends.
UNUSED = re.compile(r"decoder|post_quant|position_ids|num_batches_tracked")


def busy_hub(session: Session, case: Case) -> Made:
    """Take the model from a Hub that does not give one of its files, at first or at all.

    Beside each file with tensors is another one in half precision. Either the run is refused, or
    the numbers are right; and they are right when the Hub gives the file again.
    """
    rng, name = case.rng(), f"owner/{case.kind.lower()}"
    with pytest.MonkeyPatch.context() as clients, a_hub() as server:
        server.add(f"models/{name}", session.models.folder(case.kind))
        files = server.files[f"models/{name}"]
        file, status = rng.choice(sorted(files)), rng.choice((429, 500, 503))
        for path in [path for path in files if path.endswith(".safetensors")]:
            halves = {key: tensor.half() for key, tensor in load(files[path]).items()}
            files[path.replace(".safetensors", ".fp16.safetensors")] = save(halves)
        point_clients(server, session.place(case, "hub"), clients)
        server.faults.append(Fault(f"/{file}", status, times=rng.choice((None, 1))))
        with suppress(RefusedError, FailedError):
            yield Run(case, session.run(case, "busy", backbone=name))
        server.faults.clear()
        yield Run(case, session.run(case, "later", cache="later", backbone=name))


def damaged(session: Session, case: Case, way: str) -> Made:
    """Damage a file with tensors of a model, half of the time those of a text encoder.

    The model is named in one `way`: as a folder, with a LoRA, or as a single file.
    """
    rng, folder = case.rng(), session.place(case, "model")
    shutil.copytree(session.models.folder(case.kind), folder)
    case = replace(
        case, lora=(0, 1.0) if way == "LoRA" else None, params={"draws": case.params["draws"]}
    )
    named, files = {"backbone": str(folder)}, sorted(folder.rglob("*.safetensors"))
    if way == "file":
        files = [session.place(case, "one.safetensors")]
        shutil.copy(session.models.single_file(case.kind), files[0])
        named["weights"] = str(files[0])
    yield Run(case, session.run(case, "whole", **named))
    texts = [file for file in files if "text_encoder" in file.parent.name]
    file = rng.choice(texts if texts and rng.random() < 0.5 else files)
    what = _damage(file, rng)
    with suppress(RefusedError, FailedError):
        session.run(case, "damaged", cache="later", **named)
        yield f"{way}: {file.parent.name}/{file.name} {what} was not refused"


def _damage(file: Path, rng: random.Random) -> str:
    """Damage a file of tensors that the scores depend on, and return how."""
    content = load_file(file)
    layers = [n for n in sorted(content) if re.search(r"\.\d+\.", n) and not UNUSED.search(n)]
    one = rng.choice(layers)
    texts = [name for name in layers if "cond_stage_model" in name]  # of a single file
    if texts and rng.random() < 0.5:
        layers, one = texts, rng.choice(texts)
    ways: dict[str, dict[str, torch.Tensor]] = {
        f"without {one}": {n: t for n, t in content.items() if n != one},
        f"without {len(layers)} layers": {n: t for n, t in content.items() if n not in layers},
        f"with {one} renamed": {n + "_" * (n == one): t for n, t in content.items()},
        f"with {one} twice as large": {**content, one: torch.cat([content[one]] * 2)},
        f"with infinite {one}": {**content, one: content[one] / 0},
        "cut": {},
    }
    way = rng.choice(list(ways))
    if way == "cut":
        file.write_bytes(file.read_bytes()[: file.stat().st_size * 2 // 3])
    else:
        save_file(ways[way], file, {"format": "pt"})
    return way


def unsupported(session: Session, case: Case) -> Made:
    """Name or hand over a Wan with two networks."""
    rng, wan = case.rng(), released.made("WanPipeline")
    case = case.changed(batch_size=1)  # larger batches fail by chance
    parts: dict[str, Any] = dict(wan.components)
    more = {"transformer_2": copy.deepcopy(wan.transformer), "boundary_ratio": 0.5}
    pipe = diffusers.WanPipeline(**{**parts, **more})
    door = rng.choice(("folder", "process"))
    with suppress(RefusedError):
        if door == "process":
            session.hand_over(case, "wan", pipe)
        else:
            pipe.save_pretrained(session.place(case, "model"))
            session.run(case, "wan", backbone=str(session.place(case, "model")))
        yield f"Wan with two networks was not refused, in a {door}"
