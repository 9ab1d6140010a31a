"""The denoiser, with its tokenizer, text encoder and noise schedule."""

from __future__ import annotations

from pathlib import Path

import torch
from data import Settings
from diffusers import DDPMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from torch.nn.utils import parametrize
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

EPSILON = 1e-4  # added to variances
WEIGHTS = Path(__file__).parents[2] / "plugins/bench_plugins/backbones/weights"  # included ones


class Standardised(nn.Module):
    """Standardised kernel: zero mean and variance 1 / fan-in per output, times a learned gain."""

    def __init__(self, kernel: Tensor) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(len(kernel), 1, 1, 1))

    def forward(self, kernel: Tensor) -> Tensor:
        """Return the standardised kernel."""
        variance, mean = torch.var_mean(kernel, (1, 2, 3), keepdim=True, correction=0)
        return self.gain * (kernel - mean) * torch.rsqrt(variance * kernel[0].numel() + EPSILON)


def standardise(network: nn.Module) -> None:
    """Standardise the kernel of every 3×3 convolution of `network`, in place."""
    for module in list(network.modules()):
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
            kernel = Standardised(module.weight.detach())
            parametrize.register_parametrization(module, "weight", kernel)


@torch.no_grad()
def reset_norms(network: nn.Module) -> None:
    """Scale standardised kernels, which grow, to their initial norm; outputs do not change."""
    for module in network.modules():
        if parametrize.is_parametrized(module, "weight"):
            kernel = module.get_parameter("parametrizations.weight.original")
            kernel.div_(kernel.std() * (3 * kernel[0].numel()) ** 0.5)


def bake(network: nn.Module) -> None:
    """Replace the parametrisation of `standardise` by ordinary weights, in place."""
    for module in list(network.modules()):
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)


class TextDenoiser(nn.Module):
    """A denoiser whose output, noise or velocity, is conditioned on a prompt."""

    average: EMAModel  # of the weights, in the current phase

    def __init__(self, recipe: Settings) -> None:
        super().__init__()
        self.late_text = recipe.late_text
        # The included one: training it again would break ties of equally frequent pairs at random.
        tokenizer = CLIPTokenizer.from_pretrained(WEIGHTS / f"tiny_{recipe.name}" / "tokenizer")
        self.tokenizer = tokenizer
        self.scheduler = DDPMScheduler(**recipe.networks["scheduler"])
        kinds = ("bos_token_id", "eos_token_id", "pad_token_id")
        texts = {"vocab_size": len(tokenizer), **{kind: getattr(tokenizer, kind) for kind in kinds}}
        self.text_encoder = CLIPTextModel(
            CLIPTextConfig(**texts, **recipe.networks["text_encoder"])
        )
        self.unet = UNet2DConditionModel(**recipe.networks["unet"])
        # For a few tokens on CPU, the backward pass of fused attention takes five times as long.
        self.unet.set_attn_processor(AttnProcessor())
        if recipe.standardised:
            standardise(self.unet)
        self.mask_early_text()

    @torch.no_grad()
    def mask_early_text(self) -> None:
        """Zero the weights that carry pooled text into the UNet's first half; call after each step.

        The text is added to the second half of the time embedding's channels only, and the UNet's
        first half reads only the first, so the UNet keeps its usual architecture.
        """
        if not self.late_text:
            return
        text = self.unet.add_embedding.norm2
        early = len(text.bias) // 2
        text.weight[:early] = 0.0
        text.bias[:early] = 0.0
        resnets = [resnet for block in self.unet.down_blocks for resnet in block.resnets]
        for resnet in (*resnets, self.unet.mid_block.resnets[0]):
            resnet.time_emb_proj.weight[:, early:] = 0.0

    def encode(self, prompts: list[str]) -> Tensor:
        """Return the text conditioning of each prompt, padded, ``[prompts, length, width]``."""
        tokens = self.tokenizer(prompts, padding="max_length", truncation=True, return_tensors="pt")
        hidden: Tensor = self.text_encoder(tokens.input_ids).last_hidden_state
        return hidden

    def corrupt(self, x_0: Tensor, noise: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return the noised latents x_t and the targets, noise or velocity, of the same shape."""
        x_t = self.scheduler.add_noise(x_0, noise, t)
        if self.scheduler.config.prediction_type == "v_prediction":
            return x_t, self.scheduler.get_velocity(x_0, noise, t)
        return x_t, noise

    def first_half(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, ...]:
        """Return hidden states, time embedding and skips after the UNet's first half.

        That is the way down, which must have no attention, and the middle's first residual block.
        With late text, it is the same for every prompt, and training computes it once per image.
        """
        time = self.unet.time_embedding(self.unet.time_proj(t).to(x_t.dtype))
        hidden = self.unet.conv_in(x_t)
        skips = [hidden]
        for block in self.unet.down_blocks:
            hidden, outputs = block(hidden, time)
            skips += outputs
        return self.unet.mid_block.resnets[0](hidden, time), time, *skips

    def second_half(self, first: tuple[Tensor, ...], text: Tensor) -> Tensor:
        """Return the prediction for each row of `first_half` under its row of `text`."""
        hidden, time, *skips = first
        time = time + self.unet.add_embedding(text)
        middle = self.unet.mid_block
        hidden = middle.attentions[0](hidden, encoder_hidden_states=text).sample
        hidden = middle.resnets[1](hidden, time)
        for block in self.unet.up_blocks:
            own = tuple(skips.pop() for _ in block.resnets)[::-1]
            options = {"encoder_hidden_states": text} if hasattr(block, "attentions") else {}
            hidden = block(hidden, own, time, **options)
        output: Tensor = self.unet.conv_out(self.unet.conv_act(self.unet.conv_norm_out(hidden)))
        return output

    def fit(self, first: tuple[Tensor, ...], text: Tensor) -> Tensor:
        """Return logits of how well each prompt fits each latent, ``[n, prompts]``.

        They are the logits (query times key) of the middle's cross-attention, averaged over heads,
        positions and tokens, minus those of the start token, which is the same in every prompt.
        """
        transformer = self.unet.mid_block.attentions[0]
        block = transformer.transformer_blocks[0]
        hidden = transformer.proj_in(transformer.norm(first[0])).flatten(2).mT
        hidden = hidden + block.attn1(block.norm1(hidden))
        query = block.attn2.to_q(block.norm2(hidden)).mean(1)
        keys = block.attn2.to_k(text)
        own = keys[:, 1:].mean(1) - keys[:, 0]
        logits: Tensor = query @ own.mT * (block.attn2.scale / block.attn2.heads)
        return logits
