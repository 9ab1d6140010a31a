"""A folder or repository in diffusers' layout, run by its pipeline's own code.

Everything is checked on a pipeline without tensors before a tensor is read. Then each part is
loaded when it is first needed: text encoders if a prompt's embedding is not in the cache; they are
freed after use.
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
from bench_plugins.backbones._checked import CheckedFolder
from bench_plugins.backbones._files import add_loras, load_pipeline
from bench_plugins.backbones._hollow import AUTOENCODER, check_tensors
from bench_plugins.backbones._labels import labels_of
from bench_plugins.backbones._parts import TORCH_DTYPES, load_part
from bench_plugins.backbones.pipeline import PipelineDenoiser


class FolderPipeline(CheckedFolder):
    """The pipeline in a folder.

    Weights are read from safetensors only. `dtype` is that of the network and the text encoders; T5
    and Gemma, which overflow in float16, run in float32 instead. The VAE stays in float32: it runs
    once per image, and some overflow in float16.

    Raises:
        UserError: a part is missing, damaged, of another kind, or does not fit the others.
    """

    prompts_at_once = 1024
    _loaded: set[str] | None = None  # parts with tensors; None: either all have them, or none

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
        self._lock = RLock()  # of `_loaded`: threads share a backbone
        hollow = self.checked(weights, dtype, **settings)
        self.classes = {}
        if hollow is None:
            pipe = load_pipeline(weights, self._dtype)
            add_loras(pipe, weights)
            PipelineDenoiser.__init__(
                self, pipe.to(device), resolution=resolution, normalize=normalize
            )
            return
        check_tensors(weights, hollow.pipe, hollow.classes)
        place = torch.device(device)
        self.__dict__.update(hollow.__dict__, device=place, placed=place, _loaded=set())
        self.pipe, self.call = copy.copy(hollow.pipe), dict(hollow.call)
        if self.slots is not None:
            self.slots = copy.copy(self.slots)
            self.slots.encode = self.encoded_prompts
        if self.order is not None:
            self.__dict__["order"] = self.order.to(place)

    # Methods of a backbone.

    @property
    def network(self) -> Any:
        """The module that predicts, loaded with the VAE when it is first needed."""
        for name in self.classes.keys() - set(self.encoders):
            self._load(name)
        return super().network

    @property
    def vae(self) -> Any:
        """The autoencoder, in float32, loaded when it is first needed."""
        self._load(AUTOENCODER)
        return super().vae

    def encode_prompts(self, texts: Sequence[str]) -> Tree:
        """Return the results of the pipeline's `encode_prompt`, a row per text."""
        if self.slots is None:
            return {"label": torch.tensor(labels_of(self.weights, texts), device=self.device)}
        with self._text_encoders():
            return self.as_stored(super().encode_prompts(texts))

    def encode_null(self) -> Tree:
        """Return the conditioning of the pipeline's negative prompt, or of no label."""
        if self.slots is None:
            return super().encode_null()
        with self._text_encoders():
            return self.as_stored(super().encode_null())

    def denoise(self, x_t: Tensor, t: Tensor, conditioning: Any) -> Tensor:
        """Return the model output that the pipeline gives its scheduler, [B, C, H, W]."""
        _ = self.network
        return super().denoise(x_t, t, conditioning)

    def as_stored(self, tree: Tree) -> Tree:
        """Return a conditioning as it is cached: in the network's dtype."""
        return mapped(lambda leaf: leaf.to(self.dtype) if leaf.is_floating_point() else leaf, tree)

    def _load(self, name: str) -> None:
        if self._loaded is None:
            return
        with self._lock:
            if name in self._loaded:
                return
            kind, dtype = self.classes[name], self._dtype
            overflows = dtype == torch.float16 and name in self.encoders
            if name == AUTOENCODER or (
                overflows and not issubclass(kind, transformers.CLIPPreTrainedModel)
            ):
                dtype = torch.float32
            module = load_part(self.weights, name, kind, dtype, self.device)
            self.pipe.__dict__[name] = module
            self._loaded.add(name)

    @contextmanager
    def _text_encoders(self) -> Iterator[None]:
        """Load the text encoders, and free them at the end unless they are kept.

        One thread at a time: another would use the parts that this one frees.
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
