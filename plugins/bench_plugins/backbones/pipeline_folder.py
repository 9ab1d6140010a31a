"""Use a pipeline folder or repository in diffusers' layout as a backbone.

It is validated without loading weights (see `_inspection`). Then each component is loaded when it
is first needed. Text encoders are loaded only if a prompt's embedding is not cached, and freed
after use.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import RLock
from typing import Any

import torch
import transformers
from torch import Tensor

from bench.engine.trees import Tree, mapped
from bench.inputs.weights import Weights
from bench_plugins.backbones._checkpoint import load_model
from bench_plugins.backbones._components import AUTOENCODER, TORCH_DTYPES
from bench_plugins.backbones._files import load_pipeline
from bench_plugins.backbones._inspection import InspectedFolder
from bench_plugins.backbones._labels import labels_of
from bench_plugins.backbones._meta import placeholder
from bench_plugins.backbones.pipeline import PipelineDenoiser


class FolderPipeline(InspectedFolder):
    """A denoiser backbone made from a pipeline folder.

    Weights are read from safetensors only. `dtype` is that of the network and the text encoders; T5
    and Gemma, which overflow in float16, run in float32 instead. The VAE stays in float32: it runs
    once per image, and some overflow in float16. Raises UserError if a component is missing,
    damaged, of an unexpected class, or does not fit the others.
    """

    prompts_at_once = 1024
    # Names of the components that are loaded; None if they are not loaded one by one: the pipeline
    # was loaded as a whole, or this is a meta backbone.
    _loaded: set[str] | None = None

    def __init__(
        self,
        weights: Weights,
        *,
        device: str = "cpu",
        dtype: str = "float32",
        normalize: str = "half",
        resolution: int | None = None,
        **parameters: Any,
    ) -> None:
        settings = {"normalize": normalize, "resolution": resolution, **parameters}
        self.weights, self._dtype = weights, TORCH_DTYPES[dtype]
        self._lock = RLock()  # guards `_loaded`, because threads share a backbone
        meta = self.checked(weights, dtype, **settings)
        self.component_classes = {}
        if meta is None or weights.loras or weights.file:
            pipe = load_pipeline(weights, self._dtype)
            PipelineDenoiser.__init__(
                self, pipe.to(device), resolution=resolution, normalize=normalize
            )
            return
        target = torch.device(device)
        self.__dict__.update(meta.__dict__, device=target, device_override=target, _loaded=set())
        self.pipe, self.call = copy.copy(meta.pipe), dict(meta.call)
        for name in self.component_classes:
            self.pipe.__dict__[name] = placeholder(weights, name, getattr(meta.pipe, name))
        if self.slots is not None:
            self.slots = copy.copy(self.slots)
            self.slots.encode = self.encoded_prompts
        if self.order is not None:
            self.__dict__["order"] = self.order.to(target)

    # Methods of a backbone.

    @property
    def network(self) -> Any:
        """The denoising network. Reading it loads the network and the VAE."""
        for name in self.component_classes.keys() - set(self.encoders):
            self._load(name)
        return super().network

    @property
    def vae(self) -> Any:
        """The autoencoder, in float32. Reading it loads it."""
        self._load(AUTOENCODER)
        return super().vae

    def encode_prompts(self, texts: Sequence[str]) -> Tree:
        """Return the conditioning, one row per text. Loads the text encoders."""
        if self.slots is None:
            return {"label": torch.tensor(labels_of(self.weights, texts), device=self.device)}
        with self._text_encoders():
            return self.as_stored(super().encode_prompts(texts))

    def encode_null(self) -> Tree:
        """Return the unconditional conditioning, one row. Loads the text encoders."""
        if self.slots is None:
            return super().encode_null()
        with self._text_encoders():
            return self.as_stored(super().encode_null())

    def denoise(self, x_t: Tensor, t: Tensor, conditioning: Any) -> Tensor:
        """Return the model output that the pipeline passes to its scheduler, [B, C, H, W]."""
        _ = self.network  # loads it
        return super().denoise(x_t, t, conditioning)

    def as_stored(self, tree: Tree) -> Tree:
        """Return a conditioning in the form that is cached: in the network's dtype."""
        return mapped(lambda leaf: leaf.to(self.dtype) if leaf.is_floating_point() else leaf, tree)

    def _load(self, name: str) -> None:
        """Load a component into the pipeline unless it is loaded already."""
        if self._loaded is None:
            return
        with self._lock:
            if name in self._loaded:
                return
            component_cls, dtype = self.component_classes[name], self._dtype
            overflows = dtype == torch.float16 and name in self.encoders
            if name == AUTOENCODER or (
                overflows and not issubclass(component_cls, transformers.CLIPPreTrainedModel)
            ):
                dtype = torch.float32
            module = load_model(self.weights, name, component_cls, dtype, self.device)
            self.pipe.__dict__[name] = module
            self._loaded.add(name)

    @contextmanager
    def _text_encoders(self) -> Iterator[None]:
        """Load the text encoders, and free them at the end unless `keeps_encoders`.

        Only one thread may be inside, because it frees the encoders that another would use.
        """
        if self._loaded is None:
            yield
            return
        with self._lock:
            empty = {name: self.pipe.__dict__[name] for name in self.encoders}
            try:
                for name in self.encoders:
                    self._load(name)
                yield
            finally:
                if not self.keeps_encoders:
                    self.pipe.__dict__.update(empty)
                    self._loaded -= set(self.encoders)
                    torch.cuda.empty_cache()
