"""What the cases of one session share: pipelines, pictures, and how a run is made."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from helpers.command import Finished, bench
from oracle.cases import UNIFORM, Case
from oracle.models import Models
from oracle.pictures import CLASSES, Pictures, pictures
from oracle.question import Question
from safetensors.numpy import save_file

import bench as toolkit
from bench.errors import BenchError, UserError


class RefusedError(Exception):
    """The toolkit refused what it was given, before anything was scored."""


class FailedError(Exception):
    """A command ended in another way."""


class Session:
    """Pipelines and pictures, made once, below a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.models = Models(root / "models")

    def place(self, case: Case, name: str) -> Path:
        """Return the path of a file or folder of a case's own, in a folder that exists."""
        folder = self.root / "cases" / f"{case.route} {case.seed}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / name

    def pictures(self, case: Case) -> Pictures:
        """Return the pictures of a case in its form."""
        return pictures(self.root / "pictures", case.form, case.which, case.count)

    def question(self, case: Case) -> Question:
        """Return what a case asks, for the reference."""
        values = {"resolution": 0, **case.settings, **case.params, "noise": self._noise(case)}
        names = {field.name for field in fields(Question)}
        chosen = {name: value for name, value in values.items() if name in names}
        return Question(prompts=case.prompts, **chosen)

    def settings(self, case: Case, **changes: Any) -> dict[str, Any]:
        """Return what a case asks, for `bench run`; `changes` are other settings."""
        settings: dict[str, Any] = {
            "dataset": self.pictures(case).source,
            "backbone": str(self.models.folder(case.kind)),
            **case.settings,
            "params": {**case.params, **self.params_of_strategy(case)},
            "noise": self._noise(case),
            "prompts": self._prompts(case),
            "dtype": "float32",
            "device": "cpu",
            "save_errors": True,
        }
        if case.lora is not None:
            seed, scale = case.lora
            settings["lora"] = f"{self.models.lora(case.kind, seed)}:{scale}"
        changed = {**settings, **changes}
        return {name: value for name, value in changed.items() if value is not None}

    def params_of_strategy(self, case: Case) -> dict[str, Any]:
        """Return the parameters of a case that are the strategy's."""
        uniform = case.settings["strategy"] == "uniform"
        return {"draws": case.params["draws"], **({"samples": UNIFORM} if uniform else {})}

    def run(self, case: Case, results: str, cache: str = "cache", **changes: Any) -> Path:
        """Make the run of a case and return its folder. Raises RefusedError or FailedError.

        Args:
            case: the case.
            results: the name of its folder of runs.
            cache: the name of its cache.
            changes: other settings than those of the case.
        """
        settings = self.settings(case, results=str(self.place(case, results)), **changes)
        if not all(isinstance(settings[name], str | Path) for name in ("dataset", "backbone")):
            with self.caching(case, cache), _told():
                folder: Path = toolkit.run(progress=False, **settings).folder
                return folder
        done = self.bench(case, "run", *words(settings), "--json", cache=cache)
        return Path(done.json["results_dir"])

    def hand_over(self, case: Case, results: str, pipe: Any) -> Path:
        """Make the run of a case with a pipeline in memory; as `run`."""
        names = ("resolution", "normalize")
        shown = {name: case.settings[name] for name in names if name in case.settings}
        if case.kind == "schnell":  # as its family has it; the pipeline's default is 512
            shown["call"] = {"max_sequence_length": case.params.get("tokens") or 256}
        with _told():
            backbone = toolkit.load_backbone(pipe, **shown)
        unset: dict[str, Any] = dict.fromkeys((*names, "lora"))
        return self.run(case, results, backbone=backbone, **unset)

    def bench(self, case: Case, *arguments: object, cache: str = "cache") -> Finished:
        """Run a command to its end. Raises RefusedError or FailedError."""
        with self.caching(case, cache):
            done = bench(*arguments)
        if done.code:
            kind = RefusedError if done.code == UserError.exit_code else FailedError
            raise kind(f"exit code {done.code}: {done.err.strip()[-600:]}")
        return done

    def caching(self, case: Case, cache: str = "cache") -> Any:
        """Return a context in which the toolkit uses a cache of a case's own."""
        return mock.patch.dict(os.environ, BENCH_CACHE_DIR=str(self.place(case, cache)))

    def _noise(self, case: Case) -> Path | None:
        """Write the noise of a case's draws, if a file has it."""
        if not case.noise_file:
            return None
        file, side = self.place(case, "noise.safetensors"), case.settings["resolution"] // 2
        channels = self.models.pipe(case.kind).vae.config.latent_channels
        shape = (case.params["draws"], channels, side, side)
        save_file({"noise": np.random.default_rng(case.seed).standard_normal(shape, "f")}, file)
        return file

    def _prompts(self, case: Case) -> Path | None:
        """Write the prompts of a case, if a file has them."""
        if not case.prompts_file:
            return None
        file = self.place(case, "prompts.csv")
        lines = [f"{text},{CLASSES[number]},{number}" for text, number in case.prompts]
        file.write_text("\n".join(["prompt,classname,classidx", *lines, ""]))
        return file


@contextmanager
def _told() -> Iterator[None]:
    """Raise errors of the toolkit as those of its commands."""
    try:
        yield
    except UserError as error:
        raise RefusedError(str(error)) from error
    except BenchError as error:
        raise FailedError(str(error)) from error


def words(settings: Mapping[str, Any]) -> list[str]:
    """Return settings as arguments and options of `bench run`."""
    options: list[str] = [str(settings["dataset"])]
    for name, value in settings.items():
        option = f"--{name.replace('_', '-')}"
        if name == "params":
            options += [part for key in value for part in ("--set", f"{key}={value[key]}")]
        elif isinstance(value, list):
            options += [part for text in value for part in (option, text)]
        elif value is True:
            options.append(option)
        elif name != "dataset":
            options += [option, str(value)]
    return options
