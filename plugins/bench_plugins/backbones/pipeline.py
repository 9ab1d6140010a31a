"""Use a diffusers pipeline as a backbone, through its own `__call__` and VAE.

Everything between prompt, latents and network (packing, positions, masks, time scaling, signs) is
the pipeline's own code. A call is stopped when it reaches the scheduler (see `_calls`), so a
prediction is exactly what the scheduler would get during sampling.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from typing_extensions import override

from bench.contracts.backbone import Denoiser
from bench.contracts.levels import Levels
from bench.engine.images import preprocess
from bench.engine.trees import Tree
from bench_plugins.backbones._gate import check_pipeline, network_of, supported
from bench_plugins.backbones._labels import labels_in_memory
from bench_plugins.backbones._learning import CallFacts, learn, posterior_of
from bench_plugins.backbones._probing import check_assumptions, check_times, times_of
from bench_plugins.backbones._runner import UNGUIDED, Runner, at_step, default_call, parameters_of


class PipelineDenoiser(Denoiser):
    """A denoiser backbone made from any text-to-image pipeline.

    The pipeline is not changed: each call runs on a shallow copy of it, with its device and dtypes.
    A pipeline class without declared facts is tried and checked first; see `_probing`.

    Args:
        resolution: the side of the images in pixels; None for the pipeline's.
        normalize: see `bench.engine.images`.
        call: keywords of its `__call__`, which take precedence over declared ones.
        device: the device of its inputs; None for the pipeline's own.
        levels: the noise levels; None for those of its scheduler.
        learned: what trial calls of the same pipeline taught. Then none are made, and the other
            arguments but `normalize` and `device` do not count.

    Raises:
        UserError: the pipeline does not follow diffusers' conventions listed in `_calls`, or does
            not make images of this resolution.
    """

    can_linearise = True
    keeps_defaults = False  # of the pipeline's `__call__`, if its network is not guidance-distilled

    def __init__(
        self,
        pipe: Any,
        *,
        resolution: int | None = None,
        normalize: str = "half",
        call: Mapping[str, Any] | None = None,
        device: torch.device | None = None,
        levels: Levels | None = None,
        learned: CallFacts | None = None,
    ) -> None:
        self.pipe, self.normalize = pipe, normalize
        if learned is not None:
            self._follow(learned, device)
            return
        check_pipeline(pipe, f"The pipeline {type(pipe).__name__}")
        size: dict[str, Any] = {}
        if resolution is not None and "height" in parameters_of(pipe):
            size = {"height": resolution, "width": resolution}
        keywords = {**default_call(pipe, self.keeps_defaults), **(call or {}), **size}
        self._follow(learn(Runner(pipe, keywords, device), resolution, levels), device)
        who, is_declared = self.runner.who, self.runner.declared is not None
        with torch.no_grad(), supported(who, "several samples cannot be predicted as one is"):
            if not is_declared:
                times = times_of(self, self.runner.shortest)
                self._follow(replace(self.learned, times=times), device)
            if self.learned.times == "each":
                check_times(self.runner, self.levels)
        with supported(who, "its noise levels and autoencoder cannot be checked"):
            if not is_declared:
                check_assumptions(self, self.runner, normalize)

    def _follow(self, learned: CallFacts, device: torch.device | None) -> None:
        """Run the pipeline as trial calls taught."""
        self.learned, self.call = learned, dict(learned.call)
        self.runner = Runner(self.pipe, self.call, device, learned.slots)
        self.device = self.runner.device
        self.levels, self.resolution = learned.levels, learned.resolution
        self.latent_shape = learned.latent_shape
        self.order = None if learned.order is None else learned.order.to(self.device)

    @property
    def network(self) -> torch.nn.Module:
        """The denoising network: the pipeline's transformer or UNet."""
        return network_of(self.pipe)

    @property
    def vae(self) -> Any:
        """The autoencoder."""
        return self.pipe.vae

    # Methods of a backbone.

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the network."""
        return next(p.dtype for p in self.network.parameters() if p.is_floating_point())

    @torch.inference_mode()
    @override
    def encode_images(self, images: Sequence[Image.Image]) -> Tensor:
        return self.posterior(images)[0]

    @torch.inference_mode()
    def posterior(self, images: Sequence[Image.Image]) -> tuple[Tensor, Tensor]:
        """Return the posterior's mean and standard deviation, float32 [n, C, H, W] each.

        Both are normalised by the pipeline's rule. The deviation is 0 if the VAE has no posterior.
        """
        normalisation = self.learned.normalisation
        pixels = preprocess(images, self.resolution, self.normalize).to(self.device)
        pixels = pixels.unsqueeze(2) if normalisation.has_frames else pixels
        mean, deviation = normalisation.latents(*posterior_of(self.vae, pixels))
        return mean.view(-1, *self.latent_shape), deviation.view(-1, *self.latent_shape)

    def encode_prompts(self, texts: Sequence[str]) -> Tree:
        """Return the conditioning: the results of `encode_prompt` as a tree, one row per text."""
        if (slots := self.learned.slots) is None:
            return {"label": torch.tensor(self.labels(texts), device=self.device)}
        return slots.tree(texts, self.runner.encoded_prompts)

    def labels(self, texts: Sequence[str]) -> list[int]:
        """Return the class label of each text. Raises UserError if it has none."""
        return labels_in_memory(self.pipe, texts)

    def encode_null(self) -> Tree:
        """Return the unconditional conditioning, one row.

        It is that of the pipeline's empty negative prompt; of the empty prompt if the pipeline has
        no negative prompt; or of the null label of a class-conditional model.
        """
        if (slots := self.learned.slots) is None:
            config: Any = network_of(self.pipe).config
            return {"label": torch.tensor([config.num_embeds_ada_norm], device=self.device)}
        parameters, encode = self.runner.parameters, self.runner.encoded_prompts
        guided = {name: parameters[name].default for name in UNGUIDED if name in parameters}
        return slots.rows([slots.negative(encode([""]), encode([""], **guided))], [[""]])

    def mix_rest(self, rest: Any, weights: Tensor) -> Tree:
        """Return a mixture's masks and lengths. A token counts if it counts for any prompt."""
        return {name: leaf[weights > 0].amax(dim=0, keepdim=True) for name, leaf in rest.items()}

    def denoise(self, x_t: Tensor, t: Tensor, conditioning: Any) -> Tensor:
        """Return the model output that the pipeline passes to its scheduler, [B, C, H, W].

        If one call of the pipeline cannot take different times or prompt lengths, samples are
        predicted in groups that have them in common.
        """
        lengths: list[tuple[int, ...]] = [()] * len(x_t)
        keys: list[Any] = lengths
        if (slots := self.learned.slots) is not None:
            lengths = slots.lengths(conditioning)
            keys = [slots.batch_key(length) for length in lengths]
        if self.learned.times == "one":
            keys = list(zip(keys, t.tolist(), strict=True))
        if len(set(keys)) == 1:
            return self._predict(x_t, t, conditioning, lengths)

        def predict(rows: list[int]) -> Tensor:
            index = torch.tensor(rows, device=x_t.device)
            tree = {name: leaf[index] for name, leaf in conditioning.items()}
            return self._predict(x_t[index], t[index], tree, [lengths[row] for row in rows])

        return _grouped(keys, predict)

    @override
    def save_memory(self) -> bool | None:
        network: Any = self.network
        network.enable_gradient_checkpointing()
        return None

    def _predict(
        self, x_t: Tensor, t: Tensor, conditioning: Any, lengths: list[tuple[int, ...]]
    ) -> Tensor:
        """Return the prediction of samples that fit into one call of the pipeline."""
        if (slots := self.learned.slots) is None:
            encodings, prompts = None, conditioning["label"].tolist()
        else:
            encodings, prompts = slots.returned(conditioning, lengths), [""] * len(x_t)
        times = t[:1] if len(t) == 1 or self.learned.times == "one" else t[None]
        call = self.runner.run(encodings, prompts, times, at_step, latents=x_t)
        flat: Tensor = call.prediction.reshape(len(x_t), -1)
        if self.order is not None:
            flat = torch.empty_like(flat).index_copy(1, self.order, flat)
        return flat[:, : prod(self.latent_shape)].view(-1, *self.latent_shape)


def _grouped(keys: list[Any], predict: Callable[[list[int]], Tensor]) -> Tensor:
    """Return the predictions of all rows, [B, …]. Rows with equal keys are predicted together."""
    by_key: dict[Any, list[int]] = {}
    for row, key in enumerate(keys):
        by_key.setdefault(key, []).append(row)
    predictions = [predict(rows) for rows in by_key.values()]
    order = torch.tensor([row for rows in by_key.values() for row in rows])
    return torch.cat(predictions)[order.argsort().to(predictions[0].device)]
