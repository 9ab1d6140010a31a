"""Use a pipeline folder or repository in diffusers' layout as a backbone.

First, the pipeline is built on torch's meta device, where tensors have shapes but no values (see
`meta`), and evaluated. That validates its configs, teaches how it is called, and counts its
operations and memory. Then each component is loaded when it is first needed. Text encoders are
loaded only if a prompt's embedding is not cached, and freed before the network is loaded.
"""

import copy
from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from functools import lru_cache
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor
from typing_extensions import override

from bench.contracts.levels import Levels
from bench.engine.denoiser import lay_out
from bench.engine.images import NORMALIZATIONS
from bench.engine.trees import Tree
from bench.errors import UserError, warn_user
from bench.inputs.weights import Weights
from bench.machine.libraries.private_diffusers import kept_in_float32
from bench.machine.precision import Half
from bench_plugins.backbones._facts import Facts, facts_of
from bench_plugins.backbones._pipelines.files import (
    add_loras,
    check_files,
    components_in_file,
    config_source,
    load_component,
    load_pipeline,
)
from bench_plugins.backbones._pipelines.gate import UnsupportedError, network_name, network_of
from bench_plugins.backbones._pipelines.learning import pixels_per_latent, tried_file
from bench_plugins.backbones._pipelines.meta import EmptyPipeline, build, replaced
from bench_plugins.backbones._pipelines.probing import is_flow
from bench_plugins.backbones._pipelines.runner import Runner, default_call, parameters_of
from bench_plugins.backbones._weights.checkpoint import LOADING, first_line, stored_half
from bench_plugins.backbones._weights.components import (
    AUTOENCODER,
    NETWORKS,
    PIPELINE_INDEX,
    TORCH_DTYPES,
)
from bench_plugins.backbones._weights.counting import operations, predict_cell, size
from bench_plugins.backbones.pipeline import PipelineDenoiser

PARAMETERS = ("original_size", "strength", "text", "tokens")  # of families
HALF = ("normalize", "half")  # as if it were not chosen
USUAL_STEPS = 1000  # of the schedule that a flow was trained with


class FolderPipeline(PipelineDenoiser):
    """A denoiser backbone made from a pipeline folder.

    Weights are read from safetensors only. `dtype` is that of the network and the text encoders; T5
    and Gemma, which overflow in float16, run in float32 instead. The VAE stays in float32: it runs
    once per image, and some overflow in float16. Raises UserError if a component is missing,
    damaged, of an unexpected class, or does not fit the others.

    The pipeline is loaded as a whole, and less is known before, if its class is not declared or its
    code needs real values.

    Attributes:
        pipelines: class attribute of families: names of their pipeline classes; empty if any class
            is accepted.
        time_is_sigma: whether the times of the level table are sigma, those of the scheduler being
            its number of steps, usually 1000, times sigma.
    """

    pipelines: ClassVar[tuple[str, ...]] = ()
    time_is_sigma: ClassVar[bool] = False

    def __init__(
        self, weights: Weights, *, device: str = "cpu", dtype: str = "float32", **settings: Any
    ) -> None:
        inspected = self.inspected(_folder(weights), dtype, **settings)
        empty = self._complete = self.with_files(weights, dtype, **settings)
        self.weights, self._dtype = weights, TORCH_DTYPES[dtype]
        self._empty: dict[str, Any] = {}  # components without values, which are loaded later
        self.takes_turns = False  # whether network and autoencoder are on the device in turn
        self._away: Set[str] = set()  # those that are on the CPU meanwhile
        if inspected is None:  # its code needs values
            pipe = load_pipeline(empty).to(device)
        else:
            self._empty = empty.placeholders(empty.classes)
            pipe = replaced(copy.copy(empty.pipe), self._empty)
        state = type(self).__name__, weights.fingerprint, device, dtype, settings
        super().__init__(
            pipe,
            resolution=settings.get("resolution"),
            normalize=settings.get("normalize", "half"),
            call=_call_keywords(empty, settings),
            device=torch.device(device) if inspected else None,
            dtype=self._dtype,
            learned=inspected.learned if inspected else None,
            tried_path=tried_file(*state),
            source=weights.file or weights.location,
        )
        if inspected is not None:
            self.untried = inspected.runner.shortest
        self.levels = self._with_own_time(self.levels)

    # What is known without weights.

    @classmethod
    def empty(cls, weights: Weights, dtype: str, **parameters: Any) -> EmptyPipeline:
        """Return the pipeline on the meta device. Raises UserError if its configs are invalid."""
        omitted = cls.omitted_components(weights, parameters.get("text"))
        with LOADING:
            return build(weights, cls.pipelines, TORCH_DTYPES[dtype], omitted)

    @classmethod
    def inspected(cls, weights: Weights, dtype: str, **settings: Any) -> PipelineDenoiser | None:
        """Return a denoiser on the meta device, or None if its code needs real values.

        It was evaluated. Its prompts are encoded, so it has no text encoders.
        """
        chosen = {n: v for n, v in settings.items() if v is not None and (n, v) != HALF}
        with LOADING, torch.no_grad():
            return _inspect_empty(cls, weights, dtype, tuple(sorted(chosen.items())))

    @classmethod
    def with_files(cls, weights: Weights, dtype: str, **settings: Any) -> EmptyPipeline:
        """Return the pipeline of the folder, after a check of the headers of all files but LoRAs.

        LoRAs are checked when they are loaded.
        """
        folder = _folder(weights)
        empty = replace(cls.empty(folder, dtype, **settings), weights=weights)
        empty.check_headers(folder, components_in_file(empty))
        return empty

    @classmethod
    def check_weights(cls, weights: Weights, *, dtype: str = "float32", **settings: Any) -> None:
        """Validate the weights without reading tensors. Raises UserError if they cannot be loaded.

        Warns about pipeline classes that have no family.
        """
        check_files(weights)
        cls.inspected(_folder(weights), dtype, **settings)
        cls.with_files(weights, dtype, **settings)
        if not (cls.pipelines or weights.loras or weights.file):
            name = weights.read(PIPELINE_INDEX)["_class_name"]
            origin = "declared" if facts_of(name) else "found by trial calls"
            warn_user(
                f"The weights {weights.location} are a {name}, a pipeline without a backbone"
                f" family: it is run by its own code, and its properties are {origin}."
            )

    @classmethod
    def weight_parameters(cls, weights: Weights, **settings: Any) -> Mapping[str, Any]:
        """Return what a run records beside its settings, where it is not the usual.

        It is the guidance scale of a guidance-distilled UNet, unless the user set one, and the
        number of steps of a flow that was not made for 1000: its times are as many times sigma.
        `with_files` is a version: with LoRAs or a single file, the parameters had no effect before,
        and times that are sigma were wrong.
        """
        empty = cls.empty(weights, "float32", **settings)
        steps = _flow_steps(empty.pipe.scheduler)
        recorded: dict[str, Any] = {} if steps in (None, USUAL_STEPS) else {"flow_steps": steps}
        if settings.get("strength") is None and empty.runs and empty.is_guidance_distilled:
            scale = parameters_of(empty.pipe)["guidance_scale"].default
            recorded["strength"] = float(scale)
        is_set = any(settings.get(name) is not None for name in PARAMETERS)
        if (weights.loras or weights.file) and (is_set or cls.time_is_sigma):
            recorded["with_files"] = 2
        return recorded

    @classmethod
    @override
    def half_precision(cls, weights: Weights) -> Half | None:
        """Return what the pipeline's class declares, or else what the network's file stores."""
        facts = facts_of(str(weights.read(PIPELINE_INDEX).get("_class_name"))) or Facts()
        return facts.half or stored_half(weights, NETWORKS)

    @classmethod
    @override
    def keeps_float32(cls, weights: Weights) -> bool:
        """Return whether diffusers keeps some of the network's tensors in float32."""
        classes = cls.empty(weights, "float32").classes
        return any(kept_in_float32(classes[name]) for name in NETWORKS if name in classes)

    @classmethod
    @override
    def level_table(cls, weights: Weights, **settings: Any) -> Levels | None:
        inspected = cls.inspected(weights, "float32", **settings)
        return None if inspected is None else cls._with_own_time(inspected.levels)

    @classmethod
    @override
    def encoder_key(cls, weights: Weights, **parameters: Any) -> str:
        parameters.pop("normalize", None)  # of images
        return super().encoder_key(weights, **parameters)

    @classmethod
    @override
    def token_counts(cls, weights: Weights, texts: Sequence[str]) -> tuple[list[int], int] | None:
        empty = cls.empty(weights, "float32")
        if not empty.runs:
            return None
        return Runner(empty.pipe, default_call(empty.pipe), source=weights.location).token_counts(
            texts
        )

    @classmethod
    @override
    def evaluation_flops(cls, weights: Weights, resolution: int | None = None) -> float | None:
        inspected = cls.inspected(weights, "float32", resolution=resolution)
        return None if inspected is None else operations(inspected)

    @classmethod
    @override
    def linearisation_cost(cls, weights: Weights, resolution: int | None = None) -> float | None:
        inspected = cls.inspected(weights, "float32", resolution=resolution)
        if inspected is None or not cls.can_linearise:
            return None
        return round(operations(inspected, gradient=True) / operations(inspected), 3)

    @classmethod
    def memory(cls, weights: Weights, dtype: str, **settings: Any) -> int | None:
        """Return the peak memory of the weights in bytes.

        Text encoders are not in memory together with the network, unless the pipeline is loaded as
        a whole.
        """
        encoders, *others = cls._sizes(weights, dtype, settings)
        if cls.inspected(_folder(weights), dtype, **settings) is None:
            return encoders + sum(others)
        return max(encoders, sum(others))

    @classmethod
    def offloaded_memory(cls, weights: Weights, dtype: str, **settings: Any) -> int | None:
        """Return the bytes of text encoders, network or autoencoder, whichever is largest."""
        return max(cls._sizes(weights, dtype, settings))

    @classmethod
    def _sizes(cls, weights: Weights, dtype: str, settings: Any) -> tuple[int, int, int]:
        """Return the bytes of text encoders, of the autoencoder and of all other components."""
        empty = cls.empty(weights, dtype, **settings)
        sizes = {name: size(getattr(empty.pipe, name)) for name in empty.classes}
        encoders, autoencoder = sum(map(sizes.pop, empty.encoders)), sizes.pop(AUTOENCODER)
        return encoders, autoencoder, sum(sizes.values())

    config_source = staticmethod(config_source)

    @classmethod
    def omitted_components(cls, weights: Weights, text: str | None) -> frozenset[str]:
        """Return the names of the components that are not loaded, by a family's parameter `text`.

        Raises UserError if its value is invalid.
        """
        return frozenset()

    @classmethod
    def _with_own_time(cls, levels: Levels) -> Levels:
        """Return a scheduler's levels with the time of the level table."""
        return replace(levels, time=levels.sigma) if cls.time_is_sigma else levels

    # Methods of a backbone.

    @property
    @override
    def dtype(self) -> torch.dtype:
        return self._dtype

    @override
    def ready(self) -> torch.nn.Module:
        with self.lock:
            away = {AUTOENCODER} if self.takes_turns else set()
            self._load(self._complete.classes.keys() - {*self._complete.encoders} - away)
            return super().ready()

    @override
    def autoencoder(self) -> Any:
        self._load({AUTOENCODER})
        vae = super().autoencoder()
        if self.device.type == "cuda":
            lay_out(vae)
        return vae

    @override
    def whole(self) -> Any:
        with self.lock:
            self.ready()
            self._load(self._complete.classes.keys())
            return self.pipe

    @override
    def offload(self) -> bool:
        if not self._empty or self.runner.declared is None:
            return False
        self.takes_turns = True
        return True

    def encode_prompts(self, texts: Sequence[str]) -> Tree:
        """Return the conditioning, one row per text. Loads the text encoders."""
        with self.lock:
            self._load({*self._complete.encoders})
            return self.as_stored(super().encode_prompts(texts))

    def encode_null(self) -> Tree:
        """Return the unconditional conditioning, one row. Loads the text encoders."""
        with self.lock:
            self._load({*self._complete.encoders})
            return self.as_stored(super().encode_null())

    @override
    def denoise(self, x_t: Tensor, t: Tensor, conditioning: Any) -> Tensor:
        steps = _flow_steps(self.pipe.scheduler) if self.time_is_sigma else None
        return super().denoise(x_t, t if steps is None else steps * t, conditioning)

    def as_stored(self, tree: Tree) -> Tree:
        """Return a conditioning in the form that is cached."""
        return tree

    def _load(self, names: Set[str]) -> None:
        """Load components into the pipeline unless they are loaded, the largest first.

        Text encoders that are not among them are freed before. While a component is loaded, its
        files are mapped, so the largest is loaded while the others are not in memory.
        """
        with self.lock:
            loaded = {n for n, empty in self._empty.items() if getattr(self.pipe, n) is not empty}
            encoders = {*self._complete.encoders}
            if freed := loaded & encoders - names:
                replaced(self.pipe, {name: self._empty[name] for name in freed})
                torch.cuda.empty_cache()
            if self.takes_turns:
                parts = loaded - encoders
                self._take_turns(parts & names, parts - names)
            missing = self._empty.keys() & names - loaded
            for name in sorted(missing, key=lambda name: (-size(self._empty[name]), name)):
                replaced(self.pipe, {name: load_component(self._complete, name, self.device)})
            if missing and self.weights.loras:  # their parts for others are added without values
                others = copy.deepcopy({n: p for n, p in self._empty.items() if n not in missing})
                add_loras(replaced(copy.copy(self.pipe), others), self.weights)

    def _take_turns(self, entering: Set[str], leaving: Set[str]) -> None:
        """Move components to the device, after others have left it."""
        moves = [(name, torch.device("cpu")) for name in sorted(leaving - self._away)]
        moves += [(name, self.device) for name in sorted(entering & self._away)]
        for name, place in moves:
            with torch.inference_mode(False):  # it may take part in a backward pass
                getattr(self.pipe, name).to(place)
            torch.cuda.empty_cache()
        self._away = self._away - entering | leaving


def _folder(weights: Weights) -> Weights:
    """Return the folder alone, without LoRAs and single file."""
    return replace(weights, loras=(), file=None)


def _flow_steps(scheduler: Any) -> int | None:
    """Return the number of steps of a flow's scheduler; None if it is not that of a flow."""
    steps: int = scheduler.config.get("num_train_timesteps", USUAL_STEPS)
    return steps if is_flow(scheduler) else None


@lru_cache(maxsize=8)
def _inspect_empty(
    family: Any,
    weights: Weights,
    dtype: str,
    settings: tuple[tuple[str, Any], ...],
) -> PipelineDenoiser | None:
    """Return a denoiser of a family on the meta device, or None if its code needs real values.

    Raises UserError if the components do not fit each other.
    """
    empty = family.empty(weights, dtype, **dict(settings))
    call, choices = _call_keywords(empty, dict(settings)), dict(settings)
    if (normalize := choices.get("normalize", "half")) not in NORMALIZATIONS:
        raise UserError(
            f"--normalize must be one of {', '.join(NORMALIZATIONS)}, got {normalize!r}."
        )
    if not empty.runs:
        return None
    pipe, part, device = copy.copy(empty.pipe), network_name(empty.pipe), torch.device("cpu")
    network: Any = network_of(pipe)
    resolution, native = choices.get("resolution"), network.config.get("sample_size")
    try:
        if resolution is None and isinstance(native, int):
            resolution = native * pixels_per_latent(pipe.vae, device)
        options: dict[str, Any] = {"device": device, "dtype": TORCH_DTYPES[dtype]}
        options |= {"normalize": normalize, "call": call, "source": weights.location}
        denoiser = PipelineDenoiser(pipe, resolution=resolution, **options)
        denoiser.untried = None  # there are no values to compare
        replaced(pipe, empty.placeholders(empty.encoders))  # from here on, prompts are encoded
        predict_cell(denoiser)
        part = AUTOENCODER
        denoiser.encode_images([Image.new("RGB", (denoiser.resolution,) * 2)])
    except Exception as error:  # whatever diffusers raises if components do not fit each other
        is_refusal = isinstance(error, UserError) and not isinstance(error, UnsupportedError)
        if not family.pipelines and not is_refusal:
            return None  # perhaps the code needs real values: fall back to loading
        if isinstance(error, UserError):
            raise
        empty.check_headers(weights)  # may name the component at fault
        problem = f"does not fit the other components: {first_line(error)}"
        raise weights.error(f"{part}/", problem) from error
    return denoiser


def _call_keywords(empty: EmptyPipeline, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the `__call__` keywords of a family's parameters. Raises UserError for a bad value."""
    tokens, strength, side = map(settings.get, ("tokens", "strength", "original_size"))
    if strength is not None and "unet" in empty.classes and not empty.is_guidance_distilled:
        raise UserError(
            f"strength={strength}: {empty.weights.location} takes no guidance scale. Only a"
            " guidance-distilled network does, such as LCM's."
        )
    size = None if side is None else (side, side)
    values = {"max_sequence_length": tokens, "guidance_scale": strength, "original_size": size}
    return {name: value for name, value in values.items() if value is not None}
