"""What denoisers and classifiers are and return: used where it is right, refused by name if not."""

import io
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from helpers.refusals import refused
from helpers.tables import make
from PIL import Image

from bench.contracts.dataset import Sample
from bench.contracts.decision import Decided
from bench.contracts.levels import diffusion_levels
from bench.contracts.strategy import Problem
from bench.engine.denoiser import CheckedDenoiser, accelerate
from bench.engine.denoising import DenoisingEngine
from bench.engine.direct import (
    CheckedClassifier,
    CheckedLikelihood,
    ClassifyingEngine,
    LikelihoodEngine,
)
from bench.engine.embeddings import embed_prompts
from bench.engine.scoring import Scoring, SharedNoise, coefficients
from bench.errors import PluginError
from bench.inputs.prompts import make_columns

TEXTS = ("one", "two", "three")
SHAPE = (2, 4, 4)
DRAWS = 4
DTYPES = [torch.int64, torch.bool, torch.complex64]


class Model:
    """A denoiser of 8 levels that any of its methods can be replaced of."""

    latent_shape: Any = SHAPE
    resolution: Any = 16
    levels: Any = diffusion_levels(np.linspace(0.99, 0.01, 8, dtype=np.float32), "epsilon")
    device: Any = torch.device("cpu")

    def encode_images(self, images: Any) -> Any:
        return torch.zeros(len(images), *SHAPE)

    def encode_prompts(self, texts: Any) -> Any:
        return torch.arange(len(texts), dtype=torch.float32)[:, None, None].expand(-1, 2, 3)

    def denoise(self, x_t: Any, t: Any, conditioning: Any) -> Any:
        return x_t * 0.1 + conditioning.mean(dim=(1, 2))[:, None, None, None]


def png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "png")
    return file.getvalue()


SAMPLES = [Sample(str(i), 0, {"bytes": png(), "path": None}) for i in range(3)]


def score(model: Any, strategy: str = "full", gradients: bool = False) -> list[Decided]:
    """Score three pictures with the model as a run does."""
    backbone = CheckedDenoiser(model, "backbone 'x'")
    rows = np.array([0, 2, 4, 6])
    bank = np.random.default_rng(0).standard_normal((DRAWS, *SHAPE)).astype(np.float32)
    engine = DenoisingEngine(
        backbone,
        backbone.encode_prompts(TEXTS),
        Problem(np.arange(3), rows, np.ones(DRAWS), can_linearise=gradients),
        make_columns(np.arange(3), "best"),
        Scoring(
            coefficients(backbone.levels, rows, "prediction", backbone.device),
            SharedNoise(bank, backbone.device),
            "l2",
        ),
        8,
    )
    return list(engine.score(SAMPLES, make(strategy, DRAWS)))


def exits(*_: Any) -> Any:
    raise SystemExit(0)


def cast(dtype: torch.dtype) -> Callable[[Any], Any]:
    return lambda tensor: tensor.to(dtype)


RESULTS: dict[str, Callable[[Any], Any]] = {
    "one channel": lambda x: x[:, :1],
    "one pixel": lambda x: x[:, :, :1, :1],
    "one image": lambda x: x[:1],
    "an image more": lambda x: torch.cat([x, x[:1]]),
    "an axis more": lambda x: x[None],
    "numpy": lambda x: x.numpy(),
    "a tuple": lambda x: (x,),
    "nothing": lambda x: None,
    "elsewhere": lambda x: x.to("meta"),
    **{str(dtype): cast(dtype) for dtype in DTYPES},
}


@pytest.mark.parametrize("case", RESULTS)
@pytest.mark.parametrize("method", ["encode_images", "denoise"])
def test_a_tensor_that_does_not_fit_is_refused(method: str, case: str) -> None:
    model: Any = Model()
    right = getattr(model, method)
    setattr(model, method, lambda *given: RESULTS[case](right(*given)))
    with refused("backbone 'x'", f"{method}() returned", kind=PluginError) as caught:
        score(model)
    assert "a floating-point tensor of shape [" in str(caught.value)


def test_keys_of_batches_are_one_per_prompt() -> None:
    model: Any = Model()
    model.batch_keys = lambda conditioning: [1, 2]
    with refused("backbone 'x'", "batch_keys()", "3 prompts", kind=PluginError):
        score(model)


@pytest.mark.parametrize("method", ["encode_images", "encode_prompts", "denoise"])
@pytest.mark.parametrize("act", [exits, lambda *_: 1 / 0, lambda *_: next(iter(()))])
def test_what_a_method_raises_names_the_backbone(method: str, act: Callable[..., Any]) -> None:
    model: Any = Model()
    setattr(model, method, act)
    with refused("backbone 'x'", f"{method}()", kind=PluginError):
        score(model)


@pytest.mark.parametrize("case", ["one image", "nothing", "numpy", "a tuple", "torch.complex64"])
def test_embeddings_are_refused_before_they_are_kept(
    case: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_CACHE_DIR", str(tmp_path))
    model: Any = Model()
    right = model.encode_prompts
    model.encode_prompts = lambda texts: RESULTS[case](right(texts))
    with refused("encode_prompts()", kind=PluginError):
        embed_prompts(CheckedDenoiser(model, "x"), "key", TEXTS)
    assert not list(tmp_path.rglob("*.safetensors"))


ATTRIBUTES: list[tuple[str, Any]] = [
    ("latent_shape", (2, 4)),
    ("latent_shape", (2, 0, 4)),
    ("latent_shape", "flat"),
    ("resolution", "large"),
    ("levels", None),
    ("levels", [0.9, 0.1]),
    ("device", "cpu"),
    ("device", None),
]


@pytest.mark.parametrize(("name", "value"), ATTRIBUTES)
def test_an_attribute_that_does_not_fit_is_named(name: str, value: Any) -> None:
    model = Model()
    setattr(model, name, value)
    with refused("backbone 'x'", name, kind=PluginError):
        CheckedDenoiser(model, "backbone 'x'")


def test_a_schedule_may_be_a_tensor() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # NumPy warns of a copy that a tensor's array cannot make
        assert len(diffusion_levels(torch.linspace(0.99, 0.01, 8), "epsilon")) == 8


def test_memory_that_ends_is_no_failure_of_the_plugin() -> None:
    class Large(Model):
        def denoise(self, x_t: Any, t: Any, conditioning: Any) -> Any:
            if len(x_t) > 2:
                raise torch.OutOfMemoryError("simulated")
            return super().denoise(x_t, t, conditioning)

    assert all(decided.error is None for decided in score(Large()))


def test_abilities_are_declared_not_tried() -> None:
    loaded: list[str] = []

    class Lazy(Model):
        @property
        def network(self) -> torch.nn.Module:
            loaded.append("network")
            return torch.nn.Linear(1, 1)

    lazy = CheckedDenoiser(Lazy(), "x")
    assert not loaded and not lazy.save_memory()
    assert isinstance(lazy.network, torch.nn.Linear) and loaded == ["network"]
    mine = Model()
    mine.network = torch.nn.Linear(1, 1)  # type: ignore[attr-defined]  # as most would have it
    assert CheckedDenoiser(mine, "x").network is not None

    class IsModule(torch.nn.Module, Model):
        def __init__(self) -> None:
            super().__init__()
            self.network = torch.nn.Linear(1, 1)

    assert CheckedDenoiser(IsModule(), "x").network is not None
    mine.network = "unet"  # type: ignore[attr-defined]
    with refused("network", kind=PluginError):
        accelerate(CheckedDenoiser(mine, "x"), "channels-last", "auto", compiled=False)
    with refused("`network`"):
        accelerate(CheckedDenoiser(Model(), "x"), "auto", "auto", compiled=True)


def test_gradients_that_there_are_none_of() -> None:
    class Deaf(Model):
        def denoise(self, x_t: Any, t: Any, conditioning: Any) -> Any:
            return super().denoise(x_t, t, conditioning.detach())

    assert all(d.error is None for d in score(Model(), "full-linearised", gradients=True))
    with refused("'x'", "gradient", kind=PluginError):
        score(Deaf(), "full-linearised", gradients=True)


def test_batches_of_a_likelihood_are_halved_where_memory_ends() -> None:
    sizes: list[int] = []

    class Small:
        reduction = "mean"
        limit = 64

        def evaluate(self, images: Any, texts: Any, draws: Any) -> Any:
            sizes.append(len(texts))
            if len(texts) > self.limit:
                raise torch.OutOfMemoryError("simulated")
            return np.array([len(t) + d % 7 for t, d in zip(texts, draws, strict=True)], np.float32)

    def run(limit: int) -> list[Any]:
        model = Small()
        model.limit = limit
        problem = Problem(np.arange(3), np.arange(DRAWS), np.ones(DRAWS))
        columns = make_columns(np.arange(3), "best")
        engine = LikelihoodEngine(CheckedLikelihood(model, "x"), TEXTS, problem, columns, 16)
        decisions = list(engine.score(SAMPLES, make("full", DRAWS)))
        return [d.outcome.scores.tolist() for d in decisions if d.outcome is not None]

    assert run(64) == run(5) and len(run(64)) == 3
    assert sizes[:6] == [16, 16, 4, 16, 8, 4]


LOGITS: dict[str, Callable[[int, int], Any]] = {
    "a row more": lambda n, p: np.zeros((n + 1, p), np.float32),
    "a column more": lambda n, p: np.zeros((n, p + 1), np.float32),
    "a row less": lambda n, p: np.zeros((n - 1, p), np.float32),
    "one column": lambda n, p: np.zeros((n, 1), np.float32),
    "one number": lambda n, p: np.float32(0),
    "nothing": lambda n, p: None,
    "words": lambda n, p: [["a"] * p] * n,
    "integers": lambda n, p: np.zeros((n, p), np.int64),
    "booleans": lambda n, p: np.zeros((n, p), bool),
    "complex": lambda n, p: np.zeros((n, p), complex),
    "with a gradient": lambda n, p: torch.zeros(n, p, requires_grad=True),
    "exit": exits,
}


def classify(logits: Callable[[int, int], Any]) -> list[Decided]:
    class Direct:
        def score(self, images: Any, texts: Any) -> Any:
            return logits(len(images), len(texts))

    problem = Problem(np.arange(3), np.zeros(1, np.int64), np.ones(1))
    backbone, columns = (
        CheckedClassifier(Direct(), "backbone 'x'"),
        make_columns(np.arange(3), "best"),
    )
    engine = ClassifyingEngine(backbone, TEXTS, problem, columns, 2)
    return list(engine.score(SAMPLES, make("full", 1)))


@pytest.mark.parametrize("case", LOGITS)
def test_logits_that_do_not_fit_are_refused(case: str) -> None:
    with refused("'x'", "score()", kind=PluginError):
        classify(LOGITS[case])


def test_logits_are_taken_and_nan_fails_its_image_alone() -> None:
    def logits(n: int, p: int) -> Any:
        values = np.tile(np.arange(p, dtype=np.float64), (n, 1))
        values[1:, 0] = np.nan
        return values

    first, second, third = classify(logits)
    assert first.outcome is not None and list(first.outcome.ranking) == [2, 1, 0]
    assert second.error == "the model's logit is nan" and third.outcome is not None
