"""What a pipeline's own code does is found by what it does, whatever its names are."""

import functools
from collections.abc import Callable
from typing import Any

import diffusers
import pytest
import torch
from helpers.damage import TINY

from bench_plugins.backbones.pipeline import PipelineDenoiser

Plain: Any = diffusers.StableDiffusionPipeline


@pytest.fixture(scope="module")
def plain() -> Any:
    made = Plain.from_pretrained(
        TINY, safety_checker=None, requires_safety_checker=False, torch_dtype=torch.float32
    )
    made.set_progress_bar_config(disable=True)
    return made


def of_class(kind: Any, plain: Any) -> Any:
    """Return a pipeline of another class with the same components."""
    made = kind(**plain.components, requires_safety_checker=False)
    made.set_progress_bar_config(disable=True)
    return made


def predicted(denoiser: PipelineDenoiser) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Return predictions at two levels, and their gradients in the prompts."""
    x_t = torch.randn(2, *denoiser.latent_shape, generator=torch.Generator().manual_seed(0))
    prompts: Any = denoiser.encode_prompts(["one", "two"])
    leaves = [leaf for leaf in prompts.values() if leaf.is_floating_point()]
    for leaf in leaves:
        leaf.requires_grad_()
    answer = denoiser.denoise(x_t, torch.tensor([10, 700]), prompts)
    return answer.detach(), list(torch.autograd.grad(answer.square().sum(), leaves))


def wrapped(call: Any, seen: list[str]) -> Any:
    @functools.wraps(call)
    def decorated(self: Any, *arguments: Any, **keywords: Any) -> Any:
        seen.append("call")
        return call(self, *arguments, **keywords)

    return decorated


def bare(call: Any, seen: list[str]) -> Any:
    def decorated(pipe: Any, *arguments: Any, **keywords: Any) -> Any:
        seen.append("call")
        return call(pipe, *arguments, **keywords)

    return decorated


def calls_super(call: Any, seen: list[str]) -> Any:
    class Own(Plain):  # type: ignore[misc]  # Any to mypy
        def __call__(self, *arguments: Any, **keywords: Any) -> Any:
            seen.append("call")
            return super().__call__(*arguments, **keywords)

        def prepare_latents(self, *arguments: Any, **keywords: Any) -> Any:
            return super().prepare_latents(*arguments, **keywords)

    return Own


DECORATIONS: dict[str, Callable[[Any, list[str]], Any]] = {
    "with functools.wraps": wrapped,
    "without it": bare,
    "twice": lambda call, seen: bare(wrapped(call, seen), seen),
    "below no_grad": lambda call, seen: torch.no_grad()(bare(call, seen)),
    "by a method that calls super()": calls_super,
}


@pytest.mark.parametrize("case", DECORATIONS)
def test_a_decorated_call_is_called_as_it_is(case: str, plain: Any) -> None:
    """Its decorator runs, and predictions and gradients are those of the plain pipeline."""
    seen: list[str] = []
    made = DECORATIONS[case](Plain.__call__, seen)
    kind = made if isinstance(made, type) else type("Own", (Plain,), {"__call__": made})
    denoiser = PipelineDenoiser(of_class(kind, plain))
    seen.clear()
    answer, wanted = predicted(denoiser), predicted(PipelineDenoiser(plain))
    assert seen
    torch.testing.assert_close(answer, wanted, rtol=0, atol=0)


class Doubled:
    """A network whose predictions are doubled."""

    def __init__(self, network: Any) -> None:
        self.network = network

    def __getattr__(self, name: str) -> Any:
        return getattr(self.network, name)

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return (2 * self.network(*arguments, **keywords)[0],)


def test_what_a_decorator_changes_counts(plain: Any) -> None:
    """A decorator is code of the pipeline."""

    def doubling(call: Any) -> Any:
        @functools.wraps(call)
        def decorated(self: Any, *arguments: Any, **keywords: Any) -> Any:
            vars(self)["unet"] = Doubled(self.unet)
            return call(self, *arguments, **keywords)

        return decorated

    kind = type("Doubling", (Plain,), {"__call__": doubling(Plain.__call__)})
    (answer, _), (wanted, _) = map(predicted, map(PipelineDenoiser, (of_class(kind, plain), plain)))
    torch.testing.assert_close(answer, 2 * wanted, rtol=0, atol=0)
