"""Facts about a pipeline's folder from its configs and headers, before a tensor is read.

The pipeline is built and driven without tensors; see `_hollow`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, ClassVar

import torch

from bench.contracts.levels import Levels
from bench.engine.images import NORMALIZATIONS
from bench.errors import UserError, warn_user
from bench.inputs.weights import Weights
from bench_plugins.backbones._checkpoint import LOADING, first_line, warn_of_adapters
from bench_plugins.backbones._configs import (
    check_flow,
    check_network,
    check_scaling,
    read_diffusion,
)
from bench_plugins.backbones._counting import operations, peak_of_cell, peak_of_image, size
from bench_plugins.backbones._driving import (
    DrivenPipeline,
    embeds_guidance,
    network_name,
    network_of,
    pixels_of,
    token_counts,
)
from bench_plugins.backbones._facts import facts_of
from bench_plugins.backbones._files import (
    check_files,
    check_parts,
    config_source,
    pipeline_class,
    read_index,
    tensor_bytes,
)
from bench_plugins.backbones._folding import uses_prompts
from bench_plugins.backbones._hollow import AUTOENCODER, check_tensors, hollow_pipeline
from bench_plugins.backbones._labels import labels_of
from bench_plugins.backbones._parts import NETWORKS, PIPELINE_INDEX, TORCH_DTYPES
from bench_plugins.backbones.pipeline import PipelineDenoiser

KEYWORDS = {"tokens": "max_sequence_length", "strength": "guidance_scale"}  # of a pipeline's call


class CheckedFolder(PipelineDenoiser):
    """A folder's pipeline, as its configs and the headers of its files describe it.

    Attributes:
        weights: the folder.
        classes: the classes of its parts with tensors, by name; empty where all are loaded.
        flops: floating-point operations of one evaluation.
    """

    pipelines: ClassVar[tuple[str, ...]] = ()  # what the index may name; empty: any class
    keeps_encoders: ClassVar[bool] = False
    weights: Weights
    classes: dict[str, Any]
    flops: int
    _dtype: torch.dtype

    @classmethod
    def checked(cls, weights: Weights, dtype: str, **settings: Any) -> CheckedFolder | None:
        """Return the pipeline without tensors; None if it can only be driven with its tensors."""
        settings.setdefault("normalize", "half")
        settings.setdefault("resolution", None)
        with LOADING:
            return _checked(cls, weights, dtype, tuple(sorted(settings.items())))

    @classmethod
    def check_weights(cls, weights: Weights, *, dtype: str = "float32", **settings: Any) -> None:
        """Refuse weights that the class could not load, without reading a tensor."""
        check_parts(weights, read_index(weights, cls.pipelines), weights.file is None)
        hollow = cls.checked(weights, dtype, **settings)
        if weights.loras or weights.file:
            check_files(weights)
        elif not cls.pipelines:
            name = weights.read(PIPELINE_INDEX)["_class_name"]
            facts = "are declared" if facts_of(name) else "are probed"
            warn_user(
                f"The weights {weights.location} are a {name}, which no family here loads: the"
                f" pipeline's own code runs, and facts about it {facts}."
            )
        if hollow is not None:
            check_tensors(weights, hollow.pipe, hollow.classes)
            warn_of_adapters(weights, set(hollow.classes))

    @classmethod
    def weight_parameters(cls, weights: Weights, **settings: Any) -> Mapping[str, Any]:
        """Return the guidance scale that a distilled UNet takes unless the user sets it."""
        if settings.get("strength") is not None:
            return {}
        hollow = cls.checked(weights, "float32", **settings)
        if hollow is None or not hollow.is_told_guidance:
            return {}
        return {"strength": float(hollow._takes["guidance_scale"].default)}

    @classmethod
    def level_table(cls, weights: Weights, **settings: Any) -> Levels | None:
        """Return the noise levels that the scheduler's config describes."""
        hollow = cls.checked(weights, "float32", **settings)
        return None if hollow is None else hollow.levels

    @classmethod
    def token_counts(cls, weights: Weights, texts: Sequence[str]) -> tuple[list[int], int] | None:
        """Return the number of tokens of each text, and the largest that the text encoder takes."""
        with LOADING:
            described = cls._described(weights, torch.float32)
        if described is None:
            return None
        driven = DrivenPipeline(described[0])
        if driven.takes_labels:
            return [1 for _ in labels_of(weights, texts)], 1
        return token_counts(driven, texts)

    @classmethod
    def evaluation_flops(cls, weights: Weights, resolution: int | None = None) -> float | None:
        """Return the floating-point operations of one evaluation, counted from the configs."""
        hollow = cls.checked(weights, "float32", resolution=resolution)
        return None if hollow is None else float(hollow.flops)

    @classmethod
    def linearisation_cost(cls, weights: Weights, resolution: int | None = None) -> float | None:
        """Return the cost of a linearised draw in evaluations, counted from the configs."""
        hollow = cls.checked(weights, "float32", resolution=resolution)
        if hollow is None:
            return None
        return round(operations(hollow, gradient=True) / hollow.flops, 3)

    @classmethod
    def memory(cls, weights: Weights, dtype: str, **settings: Any) -> int | None:
        """Return the largest number of bytes of parts that are in memory together."""
        hollow = cls.checked(weights, dtype, **settings)
        if hollow is None:
            return tensor_bytes(weights, TORCH_DTYPES[dtype])
        encoding = sum(size(getattr(hollow.pipe, name)) for name in hollow.encoders)
        scoring = size(hollow.network) + size(hollow.vae)
        return scoring + encoding if cls.keeps_encoders else max(scoring, encoding)

    @classmethod
    def working_memory(cls, weights: Weights, dtype: str, **settings: Any) -> int | None:
        """Return the bytes beside the weights: for one cell, or for encoding one image."""
        hollow = cls.checked(weights, dtype, **settings)
        return None if hollow is None else max(peak_of_cell(hollow), peak_of_image(hollow))

    config_source = staticmethod(config_source)

    @classmethod
    def _described(
        cls, weights: Weights, dtype: torch.dtype, **parameters: Any
    ) -> tuple[Any, dict[str, Any]] | None:
        """Return the pipeline without tensors and the classes of its parts, not yet driven."""
        left_out = frozenset(cls.without(weights, **parameters))
        return _described(weights, cls.pipelines, dtype, left_out)

    # What subclasses override.

    @classmethod
    def without(cls, weights: Weights, **parameters: Any) -> set[str]:
        """Return the parts that these parameters leave out."""
        return set()

    def keywords(self, **parameters: Any) -> dict[str, Any]:
        """Return the keywords of the pipeline's call that these parameters set.

        Raises:
            UserError: a value is not possible.
        """
        tokens, strength = parameters.get("tokens"), parameters.get("strength")
        if tokens is not None and not 1 <= tokens <= 512:
            raise UserError(f"tokens={tokens}: T5 takes 1 to 512 here.")
        if strength is not None and "unet" in self.classes and not self.is_told_guidance:
            raise UserError(
                f"strength={strength}: {self.weights.location} takes no guidance scale; only a"
                " network that was distilled with one is, such as LCM's."
            )
        stated = {KEYWORDS[name]: value for name, value in parameters.items() if name in KEYWORDS}
        return {name: value for name, value in stated.items() if value is not None}

    @property
    def is_told_guidance(self) -> bool:
        """Whether the network is a UNet that was distilled with guidance."""
        return "unet" in self.classes and embeds_guidance(network_of(self.pipe))

    @property
    def encoders(self) -> list[str]:
        """The names of the parts that encode prompts."""
        return [n for n in self.classes if n not in (AUTOENCODER, *NETWORKS)]

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the network."""
        return self._dtype

    def read_levels(self, schedule: Mapping[str, Any]) -> Levels:
        """Return the noise levels that the scheduler's config describes."""
        if self.facts.levels == "diffusion" and self.classes:
            return read_diffusion(self.weights)
        return super().read_levels(schedule)


@lru_cache(maxsize=8)
def _checked(
    family: type[CheckedFolder],
    weights: Weights,
    dtype: str,
    settings: tuple[tuple[str, Any], ...],
) -> CheckedFolder | None:
    """Return a folder's pipeline without tensors, driven once to check that its parts fit."""
    parameters = dict(settings)
    normalize, resolution = parameters.pop("normalize"), parameters.pop("resolution")
    if normalize not in NORMALIZATIONS:
        raise UserError(f"--normalize {normalize!r}: one of {', '.join(NORMALIZATIONS)}.")
    described = family._described(weights, TORCH_DTYPES[dtype], **parameters)
    if described is None:
        return None
    pipe, classes = described
    made = object.__new__(family)
    made.weights, made.classes, made._dtype = weights, classes, TORCH_DTYPES[dtype]
    made.placed = torch.device("cpu")
    made.pipe = pipe
    network: Any = network_of(pipe)
    name = network_name(pipe)
    if family.pipelines:
        check_network(weights, name, network.config)
        if name == "unet" and not uses_prompts(network):
            raise weights.error("unet/config.json", "describes a model that takes no prompts")
        check_scaling(weights)
    native = network.config.get("sample_size")
    side = resolution or (native * pixels_of(pipe) if isinstance(native, int) else None)
    try:
        PipelineDenoiser.__init__(
            made, pipe, resolution=side, normalize=normalize, call=made.keywords(**parameters)
        )
        _ = made.order  # may take a pass of its own, which must not be counted
        made.flops = operations(made)
        name = AUTOENCODER
        peak_of_image(made)
    except UserError:
        raise
    except Exception as error:  # whatever diffusers raises where parts do not fit each other
        if not family.pipelines:  # the pipeline's code needs values, so that it is loaded
            return None
        check_tensors(weights, pipe, made.classes)  # names a part whose config is wrong
        raise weights.error(
            f"{name}/",
            f"does not fit the latents, pictures or prompts of other parts: {first_line(error)}",
        ) from error
    return made


@lru_cache(maxsize=8)
def _described(
    weights: Weights, pipelines: tuple[str, ...], dtype: torch.dtype, left_out: frozenset[str]
) -> tuple[Any, dict[str, Any]] | None:
    index = read_index(weights, pipelines)
    kind = pipeline_class(weights, index)
    facts = facts_of(kind.__name__)
    if facts is None or weights.loras or weights.file:
        return None
    if facts.levels == "diffusion":
        read_diffusion(weights)
    else:
        check_flow(weights)
    return hollow_pipeline(weights, kind, index, dtype, left_out)
