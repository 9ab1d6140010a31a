"""Pipelines run by their own code: of a folder and in memory, and left as they were."""

import copy
import inspect
import sys
import threading
from collections.abc import Callable
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusion3Pipeline
from helpers.command import bench
from helpers.families import KINDS, roughen, save
from helpers.matrix import matrix
from helpers.refusals import refused
from helpers.released import MAKERS, RELEASED, made, sampled
from helpers.released import SIDES as RELEASED_SIDES
from helpers.weights import Saved, backbone_of
from helpers.weights import saved as saved
from PIL import Image

from bench.contracts.levels import Levels
from bench.engine.denoiser import CheckedDenoiser
from bench.engine.trees import rows
from bench.testing import DenoiserContract
from bench_plugins.backbones import _facts
from bench_plugins.backbones._pipelines.probing import PROBED_STEPS, check_shift, check_steps
from bench_plugins.backbones.pipeline import PipelineDenoiser

TEXTS = ("a cat", "a fir tree (tall)")
ROWS = np.array([0, 250, 500, 833, 999, 700])
SIDES = {"sana": 32, "dit": None}  # of the pictures; 16 of the others, None: as the pipeline has it
CALLS = {"schnell": {"max_sequence_length": 256}}


def side_of(kind: str) -> int | None:
    return {**SIDES, **RELEASED_SIDES}.get(kind, 16)


def driven(kind: str, pipe: Any) -> PipelineDenoiser:
    return PipelineDenoiser(pipe, resolution=side_of(kind), call=CALLS.get(kind))


def no_t5(pipe: Any) -> None:
    pipe.register_modules(text_encoder_3=None, tokenizer_3=None)


def solved(pipe: Any) -> None:
    pipe.register_modules(
        scheduler=DPMSolverMultistepScheduler(
            use_flow_sigmas=True, flow_shift=3.0, prediction_type="flow_prediction"
        )
    )


def changed(part: str, **config: Any) -> Callable[[Any], None]:
    """Return what gives a pipeline a part with another config."""

    def change(pipe: Any) -> None:
        torch.manual_seed(1)
        old = getattr(pipe, part)
        made_anew = type(old).from_config({**old.config, **config})
        if isinstance(made_anew, torch.nn.Module):
            roughen(made_anew.eval())
        pipe.register_modules(**{part: made_anew})

    return change


TRAITS: dict[str, tuple[str, Callable[[Any], None], dict[str, Any]]] = {
    "normalised queries": (
        "sd3", changed("transformer", qk_norm="rms_norm", dual_attention_layers=(0,)), {}
    ),
    "no T5": ("sd3", no_t5, {"text": "clip"}),
    "another shift": ("sd3", changed("scheduler", shift=6.0), {}),
    "a fixed shift": ("flux", changed("scheduler", use_dynamic_shifting=False, shift=2.0), {}),
    "told a guidance scale": ("sdxl", changed("unet", time_cond_proj_dim=16), {}),
    "v-prediction": ("sdxl", changed("scheduler", prediction_type="v_prediction"), {}),
    "a solver": ("sana", solved, {}),
    "Stable Diffusion": ("StableDiffusionPipeline", lambda pipe: None, {}),
    "v of Stable Diffusion": (
        "StableDiffusionPipeline", changed("scheduler", prediction_type="v_prediction"), {}
    ),
    "a consistency model": ("LatentConsistencyModelPipeline", lambda pipe: None, {}),
}  # fmt: skip


# The networks of these are that of Stable Diffusion.
# `schnell` and `sigma` differ from the others in numbers alone. Of classes as they are, three: with
# padded prompts, in frames, and with a template before its prompts.
OFTEN = {*KINDS} - {"schnell", "sigma"} | {"v of Stable Diffusion"}
OFTEN |= {*RELEASED} & {"QwenImagePipeline", "WanPipeline", "ZImagePipeline"}
# Each class as it is, by its own code, and each family, also of a folder; and with other traits.
CASES: dict[str, tuple[str, Callable[[Any], None], dict[str, Any]]] = {
    **{kind: (kind, lambda pipe: None, {}) for kind in (*KINDS, *RELEASED)},
    **TRAITS,
}
STORED = {*KINDS, *TRAITS}


@pytest.mark.parametrize(
    ("case", "dtype"),
    matrix(
        product(CASES, ("float32", "bfloat16")),
        [
            *product((case for case in CASES if case in OFTEN), ["float32"]),
            ("Lumina2Pipeline", "bfloat16"),
        ],
    ),
)
def test_predictions_are_those_of_its_own_sampling(case: str, dtype: str, tmp_path: Path) -> None:
    """Of three steps, alone and in a batch with another prompt at another level."""
    kind, change, parameters = CASES[case]
    source = inspect.getsource(StableDiffusion3Pipeline._get_t5_prompt_embeds)
    if case == "no T5" and "self.tokenizer_max_length" in source.partition("text_inputs")[0]:
        pytest.skip("this version of diffusers makes fewer zeros of an absent T5")
    folder = tmp_path / "changed"
    pipe = save(kind, folder) if kind in KINDS else made(kind)
    change(pipe)
    if case in TRAITS and not parameters:  # of the others, the family leaves out what is there
        pipe.save_pretrained(folder)
    for name, part in pipe.components.items():
        if isinstance(part, torch.nn.Module) and name != "vae":
            part.to(getattr(torch, dtype))
    own = driven(kind, pipe)
    backbones: list[Any] = [own]
    if case in STORED:
        family = backbone_of(folder, dtype=dtype, resolution=side_of(kind), **parameters)
        for column in ("alpha", "sigma", "p", "q"):
            wanted = getattr(family.levels, column)
            np.testing.assert_allclose(getattr(own.levels, column), wanted, atol=1e-12)
        backbones.append(family)
    texts = ("11", "3") if kind == "dit" else (TEXTS[1], TEXTS[0])
    relative = 1e-5 if dtype == "float32" else 5e-2
    prompts = [backbone.encode_prompts(list(texts)) for backbone in backbones]
    for answer, t, sample in sampled(own, texts[0]):
        x_t, wanted = own.learned.unpacked(sample), own.learned.unpacked(answer).float()
        pair = torch.cat([x_t, torch.randn_like(x_t)])
        for backbone, encoded in zip(backbones, prompts, strict=True):
            # The stored times of FLUX are sigma.
            time = t / 1000 if kind in ("flux", "schnell") and backbone is not own else t
            both = torch.cat([time, time / 2 if t.is_floating_point() else time // 2])
            with torch.inference_mode():
                alone = backbone.denoise(x_t, time, rows(encoded, slice(0, 1)))
                mixed = backbone.denoise(pair, both, encoded)[:1]
            for found in (alone, mixed):
                atol = relative * float(wanted.abs().max())
                torch.testing.assert_close(found.float(), wanted, rtol=0, atol=atol)
        assert float(wanted.abs().max()) > 1e-2


def times(levels: Levels) -> torch.Tensor:
    time = torch.from_numpy(levels.time[ROWS])
    return time if time.dtype == torch.int64 else time.float()


def pictures(side: int) -> list[Image.Image]:
    generator = np.random.default_rng(0)
    return [
        Image.fromarray(generator.integers(0, 256, (side, side, 3), np.uint8)) for _ in range(2)
    ]


def state(pipe: Any) -> dict[str, Any]:
    """Return all that a call could change of a pipeline, its parts, its class and its module."""
    module = sys.modules[type(pipe).__module__]
    return {
        "attributes": dict(vars(pipe)),
        "class": dict(vars(type(pipe))),
        "module": dict(vars(module)),
        "scheduler": copy.deepcopy(vars(pipe.scheduler)),
        "hooks": [len(m._forward_hooks) for m in pipe.transformer.modules()],
    }


def test_the_pipeline_is_the_same_afterwards_also_after_an_exception(saved: Saved) -> None:
    pipe = saved("sd3")[1]
    before = repr(state(pipe))
    backbone = driven("sd3", pipe)
    with torch.inference_mode():
        conditioning = rows(backbone.encode_prompts(["a cat"]), torch.zeros(6, dtype=torch.int64))
        t = times(backbone.levels)
        backbone.denoise(torch.randn(6, *backbone.latent_shape), t, conditioning)
        with pytest.raises(RuntimeError):
            backbone.denoise(torch.randn(6, 3, 8, 8), t, conditioning)
    assert repr(state(pipe)) == before
    images = pipe("a cat", num_inference_steps=1, height=16, width=16, output_type="np").images
    assert images.shape == (1, 16, 16, 3)


def test_two_threads_do_not_meet(saved: Saved) -> None:
    """Predictions at two levels, of two prompts, made at once are those made alone."""
    backbone = driven("sd3", saved("sd3")[1])
    x_t = torch.randn(2, 4, *backbone.latent_shape, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        prompts = backbone.encode_prompts(list(TEXTS))
    answers: dict[int, list[torch.Tensor]] = {0: [], 1: []}

    @torch.inference_mode()
    def work(number: int) -> None:
        conditioning = rows(prompts, torch.full((4,), number))
        for _ in range(10):
            t = torch.full((4,), 100.0 + 700 * number)
            answers[number].append(backbone.denoise(x_t[number], t, conditioning))

    for number in (0, 1):
        work(number)
    alone = {number: results[0] for number, results in answers.items()}
    threads = [threading.Thread(target=work, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, results in answers.items():
        assert len(results) == 20
        assert all(torch.equal(result, alone[number]) for result in results)


def test_a_folder_of_a_class_that_no_family_loads_is_run(tmp_path: Path) -> None:
    made("AuraFlowPipeline").save_pretrained(tmp_path / "other")
    for name in ("cat", "dog"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        pictures(16)[0].save(tmp_path / "pictures" / name / "1.png")
    done = bench(
        *("run", tmp_path / "pictures", "--backbone", f"{tmp_path / 'other'}/", "--set", "draws=2"),
        *("--batch-size", 16),
        *("--strategy", "full", "--resolution", 16, "--results", tmp_path / "results", "--json"),
    )
    assert done.code == 0, done.err
    assert done.json["backbone"]["name"] == "other"
    assert done.err.count("AuraFlowPipeline") == 1 and "own code" in done.err


def test_a_pipeline_that_cannot_be_driven_is_refused_in_a_line(saved: Saved) -> None:
    pipe = copy.copy(saved("sd3")[1])
    pipe.scheduler = type("Odd", (), {"config": {}, "order": 1})()
    with refused("Odd"):
        PipelineDenoiser(pipe, resolution=16)


# Classes that are declared.

Driven = Callable[[str], PipelineDenoiser]
DECLARED = sorted(path.stem for path in _facts.FACTS_FOLDER.glob("*.toml"))


@pytest.fixture(scope="session")
def released() -> Driven:
    @cache
    def of(kind: str) -> PipelineDenoiser:
        return PipelineDenoiser(made(kind), resolution=side_of(kind))

    return of


# Of one network each: in frames, packed, and with a template before its prompts.
OFTEN_RELEASED = [kind for kind in RELEASED if kind.startswith(("Wan", "Qwen", "Lumina2"))]


@pytest.mark.parametrize("kind", matrix(RELEASED, OFTEN_RELEASED))
class TestEveryRelease(DenoiserContract):
    texts = ("fir tree", "cat", "dog")

    @pytest.fixture
    def backbone(self, kind: str, released: Driven) -> CheckedDenoiser:
        return CheckedDenoiser(released(kind), kind)


# An LCM's steps are not those of a schedule: each goes to the clean sample and back.
SCHEDULED = [kind for kind in RELEASED if not kind.startswith("LatentC")]


# Of each scheduler one: a flow's, with a shift by size or set, a solver's, DDIM's and Euler's.
@pytest.mark.parametrize(
    "kind",
    matrix(
        SCHEDULED,
        [
            kind
            for kind in SCHEDULED
            if kind.startswith(("Qwen", "Aura", "Wan", "Flux2", "Kolors", "Hunyuan"))
        ],
    ),
)
def test_declared_levels_are_those_of_its_own_steps(kind: str, released: Driven) -> None:
    backbone = released(kind)
    schedule = backbone.runner.first_latents(PROBED_STEPS).schedule or {}
    facts = backbone.runner.declared
    if facts and facts.steps:  # its shift depends on their number
        declared = backbone.runner.first_latents(facts.steps).schedule or {}
        schedule = {**schedule, "mu": declared["mu"]}
    check_steps(backbone.pipe.scheduler, backbone.levels, schedule, kind)
    check_shift(backbone.pipe.scheduler, backbone.levels, schedule, kind)


def test_each_declaration_is_of_a_class_and_says_where_diffusers_says_it() -> None:
    """Sources are read again: a version of diffusers that moves them fails here by name."""
    assert set(DECLARED) > set(MAKERS)
    root = Path(inspect.getfile(diffusers)).parent
    for kind in DECLARED:
        if kind in set(MAKERS) - set(RELEASED):  # of a later version
            continue
        facts = _facts.facts_of(kind)
        assert facts is not None and facts.requires and facts.target and facts.text, kind
        assert {"levels", "target", "call", "text", "encoding"} <= facts.source.keys(), kind
        assert f"class {kind}(" in Path(root, facts.source["file"]).read_text(), kind


def test_the_table_on_the_page_has_a_row_for_each_declared_class() -> None:
    page = (Path(__file__).parents[3] / "design/pipelines.md").read_text("utf-8")
    table = page.partition("<!-- pipelines -->")[2].partition("<!-- /pipelines -->")[0]
    named = [line.split("`")[1] for line in table.splitlines() if line.startswith("| `")]
    assert named == DECLARED


def test_the_negative_prompt_is_the_pipeline_s(released: Driven) -> None:
    """Lumina 2 says its system prompt before a prompt, and not before its negative prompt."""
    backbone = released("Lumina2Pipeline")
    with torch.no_grad():
        wanted = backbone.pipe.encode_prompt("a cat")[2:]
        null, text = backbone.encode_null(), backbone.encode_prompts([""])
    assert isinstance(null, dict) and isinstance(text, dict)
    torch.testing.assert_close((null["0.0"], null["0.1"]), wanted)
    assert not torch.equal(null["0.1"], text["0.1"])
