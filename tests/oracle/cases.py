"""Cases, each drawn from its seed alone: a pipeline, pictures and settings for a route."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from oracle.models import BY_HAND, MASKED, SIDES, STABLE, TOKENS
from oracle.pictures import CLASSES, PATH_FORMS

Values = Mapping[str, Any]

BY_SCORE = ("full", "uniform")  # strategies whose best class is that with the lowest score
UNIFORM = 2  # draws that the strategy `uniform` uses
RARELY = 0.25  # share of cases in which a setting is not its default
MEASURES: dict[str, Sequence[Any]] = {
    "loss": ("l1", "huber", "norm"),
    "space": ("epsilon", "sample", "v"),
    "weighting": ("snr", "min-snr:5", "exp:-3"),
    "guidance": (0.5, 3.0),
    "levels": ("100-700", "50,400,900", "300-310"),
    "plan": ("repeated", "antithetic"),
    "noise_per": ("image",),
    "latent": ("sample",),
    "fit": ("squash",),
    "normalize": ("cifar10",),
    "corrupt": ("contrast:1", "contrast:4"),
    "seed": (1, 2),
    "template_rule": ("mean",),
}
FROM_THE_SEED = (("noise_per", "image"), ("plan", "antithetic"))
TEMPLATES = (
    ["a photo of a {class}"],
    ["a {class}", "a small drawing of a {class}"],
    ["the {class}", "my {class}", "a {class} at night"],
)
SEVERAL = (("a cat", 0), ("a kitten", 0), ("dog", 1), ("a fir", 2), ("the old fir tree", 2))
# Parameters of families: what their networks or text encoders are given. None: the pipeline's own.
INPUTS: dict[str, dict[str, Sequence[Any]]] = {
    "sd3": {"text": (None, "all", "clip")},
    "flux": {"strength": (None, 2.0), "tokens": (None, 64)},
    "schnell": {"tokens": (None, 64)},
    "pixart": {"tokens": (None, 64)},
    "sigma": {"tokens": (None, 64)},
    "sdxl": {"original_size": (None, 40)},
}
OF_TOKENS: dict[str, Sequence[Any]] = {"guidance": (None, 0.5, 3.0), "relative": (None, True)}
OF_MASKS: dict[str, Sequence[Any]] = {"masks": (None, "training")}
TOKEN_SETTINGS = ("template", "template_rule", "corrupt", "seed", "batch_size", "views")
WITH_LORA = (*STABLE, "sdxl")
WITH_MODELS = tuple({**INPUTS, **dict.fromkeys(WITH_LORA)})  # that differ in a LoRA or parameter
LORAS = (None, (0, 1.0), (1, 1.0), (1, 0.5))  # seed and scale
WITH_TWO_SIDES = (*STABLE, "sdxl", "sd3", "flux")
TWO_SIDES = (16, 24)


@dataclass(frozen=True)
class Terms:
    """What a route asks of its cases."""

    kinds: Sequence[str] = BY_HAND
    forms: Sequence[str] = PATH_FORMS
    strategies: Sequence[str] = (*2 * BY_SCORE, "race", "halving", "paired-ttest")
    named: bool = True  # whether the backbone is made from a name, with parameters and LoRAs
    counts: Sequence[int] = (4, 5, 6)  # of pictures


@dataclass(frozen=True)
class Case:
    """The settings of a run, and the route that leads to it."""

    seed: int
    route: str  # it and the seed draw the case again
    kind: str  # of pipeline, a name in `oracle.models`
    form: str  # of the pictures
    which: int  # each number stands for other pictures
    count: int  # of pictures
    settings: Values  # of `bench run`, where they are not the defaults
    params: Values  # of strategy and backbone
    lora: tuple[int, float] | None = None
    noise_file: bool = False
    prompts_file: bool = False

    def rng(self) -> random.Random:
        """Return random numbers of the case's own, the same every time."""
        return random.Random(f"{self.route} {self.seed} on its way")

    @property
    def prompts(self) -> tuple[tuple[str, int], ...]:
        """Text and class index of each prompt, in the order of the templates or the file."""
        if self.prompts_file:
            return SEVERAL
        templates = self.settings["template"]
        return tuple((t.replace("{class}", c), n) for t in templates for n, c in enumerate(CLASSES))

    def changed(self, **settings: Any) -> Case:
        """Return the case with some of its settings changed."""
        return replace(self, settings={**self.settings, **settings})

    def __str__(self) -> str:
        extras = {"lora": self.lora, "noise": self.noise_file, "prompts": self.prompts_file}
        words = {**self.settings, **self.params, **{k: v for k, v in extras.items() if v}}
        chosen = ", ".join(f"{name} {value}" for name, value in words.items())
        pictures = f"{self.count} pictures, no. {self.which}, as {self.form}"
        return f"{self.route}, seed {self.seed}: {self.kind}, {pictures}, {chosen}"


def draw(seed: int, route: str, terms: Terms) -> Case:
    """Draw the case of a seed for a route."""
    rng = random.Random(f"{route} {seed}")
    kind = rng.choice(terms.kinds)
    settings = {
        name: rng.choice(values) for name, values in MEASURES.items() if rng.random() < RARELY
    }
    settings["strategy"] = rng.choice(terms.strategies)
    settings["template"] = ["{class}"] if kind == "dit" else rng.choice(TEMPLATES)
    settings["resolution"] = rng.choice(_sides(kind))
    settings["batch_size"] = rng.choice((5, 16, 64, "auto"))
    case = Case(
        seed,
        route,
        kind,
        form=rng.choice(terms.forms),
        which=rng.randrange(3),
        count=rng.choice(terms.counts),
        settings=settings,
        params={"draws": rng.choice((3, 4, 5))},
        noise_file=rng.random() < RARELY / 2,
        prompts_file=rng.random() < RARELY,
    )
    if terms.named and (models := _models(case)) and rng.random() < 2 * RARELY:
        case = rng.choice(models)
    if kind in TOKENS:
        chosen = {name: rng.choice(values) for name, values in OF_TOKENS.items()}
        views = rng.choice(({}, {"views": "flip"}))
        case = _with_params(case.changed(**views), draws=1 + len(views), **chosen)
    if kind in MASKED:
        chosen = {name: rng.choice(values) for name, values in OF_MASKS.items()}
        case = _with_params(case, **chosen)
    return _valid(case)


def _sides(kind: str) -> Sequence[int]:
    return TWO_SIDES if kind in WITH_TWO_SIDES else (SIDES.get(kind, 16),)


def _models(case: Case) -> list[Case]:
    """Return the case with each other LoRA or parameter of its family."""
    inputs, plain = INPUTS.get(case.kind, {}), case.lora is None
    models = [
        _with_params(case, **{name: value})
        for name, values in inputs.items()
        for value in values
        if plain  # of a pipeline with a LoRA, any class can be one, and none has parameters
    ]
    if case.kind in WITH_LORA and not inputs.keys() & case.params.keys():
        models += [replace(case, lora=lora) for lora in LORAS]
    return [model for model in models if model != case]


def _with_params(case: Case, **changes: Any) -> Case:
    """Return the case with other parameters; None for the default."""
    params = {
        name: value for name, value in {**case.params, **changes}.items() if value is not None
    }
    return replace(case, params=params)


def neighbour(case: Case, rng: random.Random) -> Case:
    """Return the case with a model that differs in one point; a noise file has one resolution."""
    shown = [] if case.noise_file else [case.changed(resolution=n) for n in _sides(case.kind)]
    shown += [case.changed(normalize=name) for name in ("half", "cifar10")]
    shown = [other for other in shown if other != case]
    models = _models(case)
    return rng.choice(models if models and rng.random() > RARELY else shown)


def reworded(case: Case) -> Case:
    """Return the case with other prompts or other pictures, the same for all of its models."""
    rng = case.rng()
    others = [texts for texts in TEMPLATES if texts != case.settings.get("template")]
    if case.kind == "dit" or rng.random() < RARELY:
        return replace(case, which=case.which + 1)
    return _valid(replace(case, prompts_file=False).changed(template=rng.choice(others)))


def _valid(case: Case) -> Case:
    """Return the case without what the toolkit refuses."""
    settings, by_hand = dict(case.settings), case.kind in BY_HAND
    if case.kind in TOKENS:
        kept = {name: value for name, value in settings.items() if name in TOKEN_SETTINGS}
        settings = {**kept, "strategy": "full"}
    elif case.kind in MASKED:
        settings = {
            name: value for name, value in settings.items() if name in (*TOKEN_SETTINGS, "strategy")
        }
    noise_file = case.noise_file and by_hand
    prompts_file = case.prompts_file and case.kind != "dit"
    if "weighting" in settings and "loss" in settings:
        settings["space"] = "sample"  # other losses have no equivalent of these weights
    if noise_file:  # these are made from the seed
        settings = {k: v for k, v in settings.items() if (k, v) not in FROM_THE_SEED}
    in_order = noise_file and settings["strategy"] == "full" and "latent" not in settings
    if in_order or (case.kind in TOKENS and "views" not in settings):
        settings.pop("seed", None)  # nothing is drawn at random
    if prompts_file:  # its classes have different numbers of prompts
        settings.pop("template_rule", None)
        settings.pop("template", None)
    if not by_hand:  # some have no negative prompt, or it is a parameter
        settings.pop("guidance", None)
    return replace(case, settings=settings, noise_file=noise_file, prompts_file=prompts_file)
