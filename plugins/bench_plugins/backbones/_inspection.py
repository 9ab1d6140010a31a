"""Inspect a diffusion pipeline folder without loading weights.

The pipeline is built on torch's meta device, where tensors have shapes but no values (see `_meta`),
and evaluated. That validates its configs, and counts its operations and memory.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, ClassVar

import torch

from bench.contracts.levels import Levels
from bench.engine.images import NORMALIZATIONS
from bench.errors import UserError, warn_user
from bench.inputs.weights import Weights, hash_folder
from bench_plugins.backbones._checkpoint import (
    LOADING,
    check_headers,
    first_line,
    warn_of_adapters,
)
from bench_plugins.backbones._components import (
    AUTOENCODER,
    NETWORKS,
    PIPELINE_INDEX,
    TORCH_DTYPES,
)
from bench_plugins.backbones._configs import (
    check_flow,
    check_network,
    check_scaling,
    read_diffusion,
)
from bench_plugins.backbones._counting import operations, peak_of_cell, peak_of_image, size
from bench_plugins.backbones._facts import facts_of
from bench_plugins.backbones._files import (
    check_files,
    config_source,
    empty_models,
    pipeline_class,
    read_index,
)
from bench_plugins.backbones._gate import UnsupportedError, network_name, network_of
from bench_plugins.backbones._labels import labels_of
from bench_plugins.backbones._meta import meta_pipeline, placeholder
from bench_plugins.backbones._runner import (
    PipelineRunner,
    embeds_guidance,
    pixels_per_latent,
    token_counts,
)
from bench_plugins.backbones.pipeline import PipelineDenoiser

# Backbone parameter → keyword of the pipeline's `__call__`.
CALL_KEYWORDS = {"tokens": "max_sequence_length", "strength": "guidance_scale"}
MAX_T5_TOKENS = 512


@lru_cache
def _encoder_hash(weights: Weights) -> str:
    return hash_folder(weights.root, (*NETWORKS, AUTOENCODER))


class InspectedFolder(PipelineDenoiser):
    """The methods of a backbone that need no weights, for a pipeline folder.

    They answer from a meta backbone: an instance of this class whose pipeline is on the meta
    device. There is none if the pipeline's class is unknown, if a LoRA or single file is added, or
    if the pipeline's code needs real values; then the folder has to be loaded to learn more.
    `pipelines` is empty if any class is accepted. `component_classes` has the components with
    tensors, and is empty if the pipeline was loaded as a whole.
    """

    pipelines: ClassVar[tuple[str, ...]] = ()
    keeps_encoders: ClassVar[bool] = False
    weights: Weights
    component_classes: dict[str, Any]
    flops: int
    _dtype: torch.dtype

    @classmethod
    def on_meta(cls, weights: Weights, dtype: str, **settings: Any) -> InspectedFolder | None:
        """Return the meta backbone, validated by an evaluation, or None if there is none."""
        settings.setdefault("normalize", "half")
        settings.setdefault("resolution", None)
        with LOADING:
            return _meta_backbone(cls, weights, dtype, tuple(sorted(settings.items())))

    @classmethod
    def check_weights(cls, weights: Weights, *, dtype: str = "float32", **settings: Any) -> None:
        """Validate the weights without reading tensors. Raises UserError if they cannot be loaded.

        Warns about pipeline classes that have no family, and about adapters in the folder.
        """
        check_files(weights)
        meta = cls.checked(weights, dtype, **settings)
        if meta is None:
            empty_models(weights, read_index(weights, cls.pipelines))
        if weights.loras or weights.file:
            return
        if not cls.pipelines:
            name = weights.read(PIPELINE_INDEX)["_class_name"]
            origin = "declared" if facts_of(name) else "found by trial calls"
            warn_user(
                f"The weights {weights.location} are a {name}, a pipeline without a backbone"
                f" family: it is run by its own code, and its properties are {origin}."
            )
        if meta is not None:
            warn_of_adapters(weights, set(meta.component_classes))

    @classmethod
    def checked(cls, weights: Weights, dtype: str, **settings: Any) -> InspectedFolder | None:
        """Return the meta backbone after a check of the headers of its files, or None.

        It is that of the folder alone. LoRAs and a single file are checked when they are loaded.
        """
        meta = cls.on_meta(replace(weights, loras=(), file=None), dtype, **settings)
        if meta is not None and weights.file is None:
            names = meta.component_classes
            halves = {name: getattr(meta.pipe, name).dtype == torch.float16 for name in names}
            weights.prefetch(
                file for name in names for file in weights.model_files(name, halves[name])
            )
            check_tensors(weights, meta.pipe, meta.component_classes)
        return meta

    @classmethod
    def weight_parameters(cls, weights: Weights, **settings: Any) -> Mapping[str, Any]:
        """Return the guidance scale of a guidance-distilled UNet, unless the user set one."""
        if settings.get("strength") is not None:
            return {}
        meta = cls.on_meta(weights, "float32", **settings)
        if meta is None or not meta.is_guidance_distilled:
            return {}
        return {"strength": float(meta.call_parameters["guidance_scale"].default)}

    @classmethod
    def level_table(cls, weights: Weights, **settings: Any) -> Levels | None:
        """Return the noise levels described by the scheduler's config, or None if unknown."""
        meta = cls.on_meta(weights, "float32", **settings)
        return None if meta is None else meta.levels

    @classmethod
    def encoder_key(cls, weights: Weights, **parameters: Any) -> str:
        """Return the key of a folder without the tensors of its network and autoencoder.

        Prompts are encoded before these are read, so fine-tuned networks share encoded prompts. Of
        a pipeline without a family this is not known, and the key covers the whole folder.
        """
        parameters.pop("normalize", None)
        if cls.pipelines and weights.revision is None and not (weights.loras or weights.file):
            weights = replace(weights, fingerprint=_encoder_hash(weights))
        return super().encoder_key(weights, **parameters)

    @classmethod
    def token_counts(cls, weights: Weights, texts: Sequence[str]) -> tuple[list[int], int] | None:
        """Return the number of tokens of each text and the maximum allowed, or None if unknown."""
        with LOADING:
            built = cls._build(weights, torch.float32)
        if built is None:
            return None
        runner = PipelineRunner(built[0])
        if runner.takes_labels:
            return [1 for _ in labels_of(weights, texts)], 1
        return token_counts(runner, texts)

    @classmethod
    def evaluation_flops(cls, weights: Weights, resolution: int | None = None) -> float | None:
        """Return the floating-point operations of one evaluation, or None if unknown."""
        meta = cls.on_meta(weights, "float32", resolution=resolution)
        return None if meta is None else float(meta.flops)

    @classmethod
    def linearisation_cost(cls, weights: Weights, resolution: int | None = None) -> float | None:
        """Return the cost of a forward pass with its gradient in evaluations; None if unknown."""
        meta = cls.on_meta(weights, "float32", resolution=resolution)
        if meta is None:
            return None
        return round(operations(meta, gradient=True) / meta.flops, 3)

    @classmethod
    def memory(cls, weights: Weights, dtype: str, **settings: Any) -> int | None:
        """Return the peak memory of the weights in bytes, or None if unknown.

        Text encoders that are not kept are never in memory together with the network. Without a
        meta backbone, it is the size of all tensors.
        """
        meta = cls.on_meta(weights, dtype, **settings)
        if meta is None:
            models = empty_models(weights, read_index(weights, cls.pipelines))
            for name, model in models.items():
                model.to(torch.float32 if name == AUTOENCODER else TORCH_DTYPES[dtype])
            return sum(map(size, models.values()))
        encoding = sum(size(getattr(meta.pipe, name)) for name in meta.encoders)
        scoring = size(meta.network) + size(meta.vae)
        return scoring + encoding if cls.keeps_encoders else max(scoring, encoding)

    @classmethod
    def working_memory(cls, weights: Weights, dtype: str, **settings: Any) -> int | None:
        """Return the bytes needed beside the weights, or None if unknown.

        They are those of one cell or of one image, whichever needs more.
        """
        meta = cls.on_meta(weights, dtype, **settings)
        return None if meta is None else max(peak_of_cell(meta), peak_of_image(meta))

    config_source = staticmethod(config_source)

    @classmethod
    def _build(
        cls, weights: Weights, dtype: torch.dtype, **parameters: Any
    ) -> tuple[Any, dict[str, Any]] | None:
        """Return the pipeline on the meta device, not yet called, and its components' classes."""
        omitted = frozenset(cls.omitted_components(weights, **parameters))
        return _build_pipeline(weights, cls.pipelines, dtype, omitted)

    # What subclasses override.

    @classmethod
    def omitted_components(cls, weights: Weights, **parameters: Any) -> set[str]:
        """Return the names of the components that are not loaded with these parameters."""
        return set()

    def keywords(self, **parameters: Any) -> dict[str, Any]:
        """Return the `__call__` keywords of these parameters. Raises UserError for a bad value."""
        tokens, strength = parameters.get("tokens"), parameters.get("strength")
        if tokens is not None and not 1 <= tokens <= MAX_T5_TOKENS:
            raise UserError(f"tokens must be from 1 to {MAX_T5_TOKENS}, got {tokens}.")
        if strength is not None and self._has_unet and not self.is_guidance_distilled:
            raise UserError(
                f"strength={strength}: {self.weights.location} takes no guidance scale. Only a"
                " guidance-distilled network does, such as LCM's."
            )
        values = {
            CALL_KEYWORDS[name]: value
            for name, value in parameters.items()
            if name in CALL_KEYWORDS
        }
        return {name: value for name, value in values.items() if value is not None}

    @property
    def _has_unet(self) -> bool:
        return "unet" in self.component_classes

    @property
    def is_guidance_distilled(self) -> bool:
        """Whether the network is a UNet that takes the guidance scale as an input."""
        return self._has_unet and embeds_guidance(network_of(self.pipe))

    @property
    def encoders(self) -> list[str]:
        """The names of the text encoders."""
        return [name for name in self.component_classes if name not in (AUTOENCODER, *NETWORKS)]

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the network."""
        return self._dtype

    def read_levels(self, schedule: Mapping[str, Any]) -> Levels:
        """Return the noise levels described by the scheduler's config."""
        if self.facts.levels == "diffusion" and self.component_classes:
            return read_diffusion(self.weights)
        return super().read_levels(schedule)


def check_tensors(weights: Weights, pipe: Any, names: Collection[str]) -> None:
    """Raise UserError unless the files can hold the tensors of a meta pipeline's components."""
    for name in names:
        check_headers(weights, name, getattr(pipe, name))


@lru_cache(maxsize=8)
def _meta_backbone(
    family: type[InspectedFolder],
    weights: Weights,
    dtype: str,
    settings: tuple[tuple[str, Any], ...],
) -> InspectedFolder | None:
    parameters = dict(settings)
    normalize, resolution = parameters.pop("normalize"), parameters.pop("resolution")
    if normalize not in NORMALIZATIONS:
        raise UserError(
            f"--normalize must be one of {', '.join(NORMALIZATIONS)}, got {normalize!r}."
        )
    built = family._build(weights, TORCH_DTYPES[dtype], **parameters)
    if built is None:
        return None
    pipe, component_classes = built
    backbone = object.__new__(family)
    backbone.weights, backbone._dtype = weights, TORCH_DTYPES[dtype]
    backbone.component_classes = component_classes
    backbone.device_override = torch.device("cpu")
    backbone.pipe = copy.copy(pipe)
    network: Any = network_of(pipe)
    name = network_name(pipe)
    if family.pipelines:
        check_network(weights, name, network.config)
        if name == "unet" and not any(
            getattr(module, "is_cross_attention", False) for module in network.modules()
        ):
            raise weights.error("unet/config.json", "describes a model that takes no prompts")
        check_scaling(weights)
    native = network.config.get("sample_size")
    try:
        cpu = torch.device("cpu")
        factor = pixels_per_latent(pipe.vae, cpu) if isinstance(native, int) else None
        side = resolution or (factor and native * factor)
        PipelineDenoiser.__init__(
            backbone,
            backbone.pipe,
            resolution=side,
            normalize=normalize,
            call=backbone.keywords(**parameters),
        )
        _ = backbone.order  # computing it may call the network, which must not be counted
        for encoder in backbone.encoders:  # from here on, prompts are encoded
            backbone.pipe.__dict__[encoder] = placeholder(weights, encoder, getattr(pipe, encoder))
        backbone.flops = operations(backbone)
        name = AUTOENCODER
        peak_of_image(backbone)
    except Exception as error:  # whatever diffusers raises if components do not fit each other
        if isinstance(error, UserError) and not isinstance(error, UnsupportedError):
            raise
        if not family.pipelines:  # perhaps the code needs real values: fall back to loading
            return None
        check_tensors(weights, pipe, component_classes)  # may name the component at fault
        raise weights.error(
            f"{name}/", f"does not fit the other components: {first_line(error)}"
        ) from error
    return backbone


@lru_cache(maxsize=8)
def _build_pipeline(
    weights: Weights, pipelines: tuple[str, ...], dtype: torch.dtype, omitted: frozenset[str]
) -> tuple[Any, dict[str, Any]] | None:
    index = read_index(weights, pipelines)
    pipeline_cls = pipeline_class(weights, index)
    facts = facts_of(pipeline_cls.__name__)
    if facts is None or weights.loras or weights.file:
        return None
    if facts.levels == "diffusion":
        read_diffusion(weights)
    else:
        check_flow(weights)
    return meta_pipeline(weights, pipeline_cls, index, dtype, omitted)
