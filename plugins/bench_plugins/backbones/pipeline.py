"""Use a diffusers pipeline as a backbone, through its own `__call__` and VAE.

Everything between prompt, latents and network (packing, positions, masks, time scaling, signs) is
the pipeline's own code. A call is stopped when it reaches the scheduler (see `calls`), so a
prediction is exactly what the scheduler would get during sampling.
"""

import copy
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from math import prod
from pathlib import Path
from threading import RLock
from typing import Any, Self

import torch
from PIL import Image
from torch import Tensor
from typing_extensions import override

from bench.contracts.backbone import Denoiser
from bench.engine import trees
from bench.engine.images import preprocess
from bench.engine.transfer import to_device
from bench.engine.trees import Tree
from bench.machine.cache import read_cached, write_cached
from bench_plugins.backbones._pipelines.gate import (
    CLASS_LABELS,
    check_pipeline,
    network_of,
    supported,
    unusable,
)
from bench_plugins.backbones._pipelines.learning import CallFacts, learn, posterior_of
from bench_plugins.backbones._pipelines.probing import check_assumptions, is_batchable
from bench_plugins.backbones._pipelines.runner import (
    UNGUIDED,
    Runner,
    at_step,
    default_call,
    parameters_of,
)

TRIAL_SIDE = 128  # pixels; larger images are halved to no less for the trial of a batch


class PipelineDenoiser(Denoiser):
    """A denoiser backbone made from any text-to-image pipeline.

    The pipeline is not changed: each call runs on a shallow copy of it, with its device and dtypes.
    A pipeline class without declared facts is tried and checked first; see `probing`.

    Args:
        resolution: the side of the images in pixels; None for the pipeline's.
        normalize: see `bench.engine.images`.
        call: keywords of its `__call__`, which take precedence over declared ones.
        device: the device of its inputs; None for the pipeline's own.
        dtype: the dtype of encoded prompts; None for that of their encoder.
        learned: what trial calls of the same pipeline taught. Then none are made, and `resolution`
            and `call` do not count.
        tried_path: the file that remembers that the network was tried, and what was found.
        source: where the pipeline was loaded from, for messages.

    Attributes:
        untried: the conditioning of one prompt, with which the network is tried when it is first
            read; None if that is not necessary.

    Raises:
        UserError: the pipeline does not follow diffusers' conventions listed in `calls`, or does
            not make images of this resolution.
    """

    can_linearise = True
    learned: CallFacts
    keeps_defaults = False  # of the pipeline's `__call__`, if its network is not guidance-distilled

    def __init__(
        self,
        pipe: Any,
        *,
        resolution: int | None = None,
        normalize: str = "half",
        call: Mapping[str, Any] | None = None,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
        learned: CallFacts | None = None,
        tried_path: Path | None = None,
        source: str = "",
    ) -> None:
        self.pipe, self.normalize, self.tried_path = pipe, normalize, tried_path
        self.lock = RLock()  # because threads share a backbone
        self.untried: Mapping[str, Tensor] | None = None
        self.runner = Runner(pipe, {}, device, dtype, source=source)
        if learned is not None:
            self._follow(learned)
            return
        check_pipeline(pipe, self.runner.who)
        size: dict[str, Any] = {}
        if resolution is not None and "height" in parameters_of(pipe):
            size = {"height": resolution, "width": resolution}
        keywords = {**default_call(pipe, self.keeps_defaults), **(call or {}), **size}
        self._follow(learn(replace(self.runner, call=keywords), resolution))
        self.untried = self.runner.shortest

    def _try_once(self, prompt: Mapping[str, Tensor]) -> None:
        """Check that two samples are predicted as each alone is, and what is assumed of the class.

        `prompt` is the conditioning of one prompt. Raises UserError if a check fails.
        """
        if self.tried_path and (found := read_cached(self.tried_path)):
            self.learned = replace(self.learned, times=found.decode())
            return
        who, slots = self.runner.who, self.learned.slots
        prompt = {name: leaf.to(self.device) for name, leaf in prompt.items()}
        with torch.inference_mode(False), torch.no_grad():
            with supported(who, "several samples cannot be predicted as one is"):
                labels = {name: leaf.expand(2) for name, leaf in prompt.items() if slots is None}
                prompts = labels if slots is None else slots.varied(prompt)
                for times in (self.learned.times, "one"):
                    self.learned = replace(self.learned, times=times)
                    with suppress(Exception):  # then it is tried at its own size
                        if is_batchable(self._small(), prompts, times):
                            break
                    if is_batchable(self, prompts, times):
                        break
                else:
                    raise unusable(
                        who, "two samples in one batch are not predicted as each alone is"
                    )
            with supported(who, "its noise levels and autoencoder cannot be checked"):
                if self.runner.declared is None:
                    check_assumptions(self, self.runner, self.normalize)
        if self.tried_path:
            write_cached(self.tried_path, self.learned.times)

    def _small(self) -> Self:
        """Return the denoiser of images below twice `TRIAL_SIDE`, which cost less to try.

        Elements of its predictions are in the order in which the network returns them.
        """
        side = self.resolution
        while side >= 2 * TRIAL_SIDE and side % (TRIAL_SIDE // 2) == 0:
            side //= 2
        *others, height, width = self.learned.sample_shape
        shape = *others, height * side // self.resolution, width * side // self.resolution
        call = {**self.runner.call, "height": side, "width": side}
        small, levels = copy.copy(self), self.levels
        small._follow(replace(self.learned, call=call, sample_shape=shape, order=None))
        small.levels = levels
        return small

    def _follow(self, learned: CallFacts) -> None:
        """Run the pipeline as trial calls taught."""
        self.device = self.runner.device
        self.learned = learned.on(self.device)
        self.runner = replace(self.runner, call=learned.call, slots=self.learned.slots)
        self.levels, self.resolution = learned.levels, learned.resolution
        self.latent_shape = learned.latent_shape

    @property
    def network(self) -> torch.nn.Module:
        """The denoising network: the pipeline's transformer or UNet, ready to be called."""
        return self.ready()

    def ready(self) -> torch.nn.Module:
        """Return the network. When it is first needed, it is tried; see `_try_once`."""
        with self.lock:
            prompt, self.untried = self.untried, None  # trying needs the network
            if prompt is not None:
                try:
                    self._try_once(prompt)
                except torch.OutOfMemoryError:
                    pass  # batches of one may follow
                except BaseException:
                    self.untried = prompt
                    raise
        return network_of(self.pipe)

    def autoencoder(self) -> Any:
        """Return the autoencoder, ready to be called."""
        return self.pipe.vae

    def whole(self) -> Any:
        """Return the pipeline with all of its components, ready to be called."""
        self.ready()
        return self.pipe

    # Methods of a backbone.

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the network."""
        parameters = network_of(self.pipe).parameters()
        return next(p.dtype for p in parameters if p.is_floating_point())

    @override
    def preprocess(self, images: Sequence[Image.Image]) -> Tensor:
        return preprocess(images, self.resolution, self.normalize)

    @torch.inference_mode()
    @override
    def encode_images(self, images: Sequence[Image.Image] | Tensor) -> Tensor:
        return self.posterior(images)[0]

    @torch.inference_mode()
    def posterior(self, images: Sequence[Image.Image] | Tensor) -> tuple[Tensor, Tensor]:
        """Return the posterior's mean and standard deviation, float32 [n, C, H, W] each.

        Both are normalised by the pipeline's rule. The deviation is 0 if the VAE has no posterior.
        """
        normalisation = self.learned.normalisation
        pixels = images if isinstance(images, Tensor) else self.preprocess(images)
        pixels = to_device(pixels, self.device)
        pixels = pixels.unsqueeze(2) if normalisation.has_frames else pixels
        mean, deviation = normalisation.latents(*posterior_of(self.autoencoder(), pixels))
        return mean.view(-1, *self.latent_shape), deviation.view(-1, *self.latent_shape)

    def encode_prompts(self, texts: Sequence[str]) -> Tree:
        """Return the conditioning: the results of `encode_prompt` as a tree, one row per text."""
        if (slots := self.runner.slots) is None:
            return {"label": torch.tensor(self.runner.labels(texts))}
        self.runner.check_tokens(texts)
        return slots.tree(texts, self.runner.encoded_prompts)

    def encode_null(self) -> Tree:
        """Return the unconditional conditioning, one row.

        It is that of the pipeline's empty negative prompt; of the empty prompt if the pipeline has
        no negative prompt; or of the null label of a class-conditional model.
        """
        if (slots := self.runner.slots) is None:
            config: Any = network_of(self.pipe).config
            return {"label": torch.tensor([config.num_embeds_ada_norm])}
        parameters, encode = self.runner.parameters, self.runner.encoded_prompts
        guided = {name: parameters[name].default for name in UNGUIDED if name in parameters}
        return slots.rows([slots.negative(encode([""]), encode([""], **guided))], [[""]])

    @property
    @override
    def one_level(self) -> bool:  # type: ignore[override]  # known once the network was tried
        self.ready()
        return self.learned.times == "one"

    @property
    @override
    def on_host(self) -> list[str]:  # type: ignore[override]  # of this pipeline's prompts
        slots = self.learned.slots
        return ["label"] if slots is None else slots.length_names

    @override
    def batch_keys(self, conditioning: Any) -> list[tuple[int, ...]]:
        if (slots := self.runner.slots) is None:
            return [()] * trees.count(conditioning)
        return [slots.batch_key(length) for length in slots.lengths(conditioning)]

    @override
    def prepare_compiling(self, conditioning: Any) -> bool:
        slots = self.learned.slots
        return slots is None or len(set(slots.lengths(conditioning))) == 1

    def mix_rest(self, rest: Any, weights: Tensor) -> Tree:
        """Return a mixture's masks and lengths. A token counts if it counts for any prompt."""
        return {name: leaf[weights > 0].amax(dim=0, keepdim=True) for name, leaf in rest.items()}

    def denoise(self, x_t: Tensor, t: Tensor, conditioning: Any) -> Tensor:
        """Return the model output that the pipeline passes to its scheduler, [B, C, H, W].

        If one call of the pipeline cannot take different times or prompt lengths, samples are
        predicted in groups that have them in common.
        """
        self.ready()
        lengths: list[tuple[int, ...]] = [()] * len(x_t)
        keys: list[Any] = lengths
        if (slots := self.runner.slots) is not None:
            lengths = slots.lengths(conditioning)
            keys = [slots.batch_key(length) for length in lengths]
        if self.learned.times == "one" and len(t) > 1 and t.stride() != (0,):  # no single value
            keys = list(zip(keys, t.tolist(), strict=True))
        if len(set(keys)) == 1:
            return self._predict(x_t, t, conditioning, lengths)
        predictions, order = [], []
        for key in dict.fromkeys(keys):
            rows = [row for row, other in enumerate(keys) if other == key]
            here = torch.tensor(rows)
            index = to_device(here, x_t.device)
            tree = trees.rows(conditioning, index, here)
            own_lengths = [lengths[row] for row in rows]
            predictions.append(self._predict(x_t[index], t[index], tree, own_lengths))
            order += rows
        return torch.cat(predictions)[to_device(torch.tensor(order).argsort(), x_t.device)]

    @override
    def generate(
        self, texts: Sequence[str], seeds: Sequence[int], steps: int, guidance: float
    ) -> list[Image.Image]:
        """Return the images of the pipeline's own call, in its sizes and with its sampler."""
        prompts: dict[str, Any] = {"prompt": list(texts)}
        if self.runner.takes_labels:
            prompts = {CLASS_LABELS: self.runner.labels(texts)}
        sides = {"height": self.resolution, "width": self.resolution}
        keywords = {**self.runner.call, **sides, "guidance_scale": guidance, "output_type": "pil"}
        keywords = {n: value for n, value in keywords.items() if n in self.runner.parameters}
        pipe = copy.copy(self.whole())
        pipe.set_progress_bar_config(disable=True)  # the toolkit counts images itself
        with torch.no_grad():
            output = pipe(
                **prompts,
                **keywords,
                num_inference_steps=steps,
                generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            )
        return list(output.images)

    @override
    def save_memory(self) -> bool | None:
        network: Any = self.ready()
        network.enable_gradient_checkpointing()
        return None

    def _predict(
        self, x_t: Tensor, t: Tensor, conditioning: Any, lengths: list[tuple[int, ...]]
    ) -> Tensor:
        """Return the prediction of samples that fit into one call of the pipeline."""
        if (slots := self.runner.slots) is None:
            encodings, prompts = None, conditioning["label"].tolist()
        else:
            encodings, prompts = slots.returned(conditioning, lengths), [""] * len(x_t)
        times = t[:1] if len(t) == 1 or self.learned.times == "one" else t[None]
        call = self.runner.run(encodings, prompts, times, at_step, latents=x_t)
        flat: Tensor = call.prediction.reshape(len(x_t), -1)
        predicted, wanted, order = flat.shape[1], prod(self.latent_shape), self.learned.order
        if predicted < wanted or (order is not None and len(order) != predicted):
            raise unusable(
                self.runner.who,
                f"its network predicts {predicted:,} values of a latent with {wanted:,}",
            )
        return self.learned.unpacked(flat)
