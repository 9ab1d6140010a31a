"""The text-conditioned denoiser: text encoder, UNet and noise schedule.

With `recipe.late_text`, no prompt enters the UNet's first half (the way down and the first residual
block of the middle). Training then computes the first half once per image and the second half once
per prompt.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn
from torch.nn.utils import parametrize
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from bench_plugins.training.recipes import Recipe

EPSILON = 1e-4  # added to variances


class Standardised(nn.Module):
    """Standardised kernel: zero mean and variance 1 / fan-in per output, times a learned gain."""

    def __init__(self, kernel: Tensor) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(len(kernel), 1, 1, 1))

    def forward(self, kernel: Tensor) -> Tensor:
        """Return the standardised kernel."""
        variance, mean = torch.var_mean(kernel, (1, 2, 3), keepdim=True, correction=0)
        fan_in = kernel[0].numel()
        return self.gain * (kernel - mean) * torch.rsqrt(variance * fan_in + EPSILON)


def standardise(network: nn.Module) -> None:
    """Standardise the kernel of every 3×3 convolution of `network`, in place."""
    for module in list(network.modules()):
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
            parametrize.register_parametrization(
                module, "weight", Standardised(module.weight.detach())
            )


@torch.no_grad()
def reset_norms(network: nn.Module) -> None:
    """Scale the standardised kernels to their initial norm, in place; outputs do not change.

    Kernels grow during training, and the same step turns a longer kernel less, so a new phase would
    learn several times more slowly than its learning rate suggests.
    """
    for module in network.modules():
        if parametrize.is_parametrized(module, "weight"):
            kernel = module.get_parameter("parametrizations.weight.original")
            fan_in = kernel[0].numel()
            kernel.div_(kernel.std() * (3 * fan_in) ** 0.5)


def bake(network: nn.Module) -> None:
    """Replace the parametrisation of `standardise` by ordinary weights, in place."""
    for module in list(network.modules()):
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)


class FirstHalf(NamedTuple):
    """Output of the UNet's first half, one row per noised latent, the same for every prompt."""

    hidden: Tensor
    skips: tuple[Tensor, ...]
    time: Tensor

    def rows(self, index: Tensor) -> FirstHalf:
        """Return the rows `index`, which may be repeated."""
        skips = tuple(skip[index] for skip in self.skips)
        return FirstHalf(self.hidden[index], skips, self.time[index])


class TextDenoiser(nn.Module):
    """A denoiser whose output, noise or velocity, is conditioned on a prompt."""

    alphas_cumprod: Tensor

    def __init__(self, recipe: Recipe, tokenizer: CLIPTokenizer) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.scheduler = DDPMScheduler(
            num_train_timesteps=1000,
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            prediction_type=recipe.prediction_type,
            clip_sample=False,
        )
        self.register_buffer(
            "alphas_cumprod", self.scheduler.alphas_cumprod.float(), persistent=False
        )
        self.text_encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(tokenizer),
                hidden_size=recipe.text_width,
                intermediate_size=4 * recipe.text_width,
                num_hidden_layers=recipe.text_layers,
                num_attention_heads=4,
                max_position_embeddings=recipe.text_length,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        )
        down = tuple(
            "CrossAttnDownBlock2D" if attention else "DownBlock2D"
            for attention in recipe.down_attention
        )
        up = tuple(
            "CrossAttnUpBlock2D" if attention else "UpBlock2D"
            for attention in reversed(recipe.up_attention)
        )
        self.time_width = 4 * recipe.unet_channels[0]
        self.late_text = recipe.late_text
        self.unet = UNet2DConditionModel(
            sample_size=recipe.latent_size,
            in_channels=recipe.latent_channels,
            out_channels=recipe.latent_channels,
            block_out_channels=recipe.unet_channels,
            down_block_types=down,
            up_block_types=up,
            layers_per_block=1,
            norm_num_groups=recipe.norm_groups,
            attention_head_dim=tuple(width // recipe.head_width for width in recipe.unet_channels),
            cross_attention_dim=recipe.text_width,
            dropout=recipe.dropout,
            resnet_time_scale_shift="scale_shift",
            time_embedding_dim=self.time_width * (2 if self.late_text else 1),
            addition_embed_type="text",
            addition_embed_type_num_heads=4,
        )
        # For a few tokens on CPU, the backward pass of fused attention takes five times as long.
        self.unet.set_attn_processor(AttnProcessor())
        if recipe.standardised:
            standardise(self.unet)
        self.mask_early_text()

    @torch.no_grad()
    def mask_early_text(self) -> None:
        """Zero the weights that carry pooled text into the UNet's first half, in place.

        Call it after every training step. The text is added to the second half of the time
        embedding's channels only, and the UNet's first half reads only the first, so the UNet keeps
        its usual architecture.
        """
        if not self.late_text:
            return
        text = self.unet.add_embedding.norm2
        text.weight[: self.time_width] = 0.0
        text.bias[: self.time_width] = 0.0
        resnets = [resnet for block in self.unet.down_blocks for resnet in block.resnets]
        for resnet in (*resnets, self.unet.mid_block.resnets[0]):
            resnet.time_emb_proj.weight[:, self.time_width :] = 0.0

    def encode(self, prompts: list[str]) -> Tensor:
        """Return the text conditioning of each prompt, padded, ``[prompts, length, width]``."""
        tokens = self.tokenizer(prompts, padding="max_length", truncation=True, return_tensors="pt")
        hidden: Tensor = self.text_encoder(tokens.input_ids).last_hidden_state
        return hidden

    def corrupt(self, x_0: Tensor, noise: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return the noised latents x_t and the targets, noise or velocity, of the same shape."""
        alpha = self.alphas_cumprod[t].view(-1, 1, 1, 1)
        signal, sigma = alpha.sqrt(), (1 - alpha).sqrt()
        x_t = signal * x_0 + sigma * noise
        if self.scheduler.config.prediction_type == "v_prediction":
            return x_t, signal * noise - sigma * x_0
        return x_t, noise

    def forward(self, x_t: Tensor, t: Tensor, text: Tensor) -> Tensor:
        """Return the prediction for each row of `x_t` under its row of `text`."""
        output: Tensor = self.unet(x_t, t, text).sample
        return output

    def first_half(self, x_t: Tensor, t: Tensor) -> FirstHalf:
        """Compute the first half of `forward`, which is the same for every prompt.

        Requires a recipe with late text and without attention on the way down.
        """
        time = self.unet.time_embedding(self.unet.time_proj(t).to(x_t.dtype))
        hidden = self.unet.conv_in(x_t)
        skips = [hidden]
        for block in self.unet.down_blocks:
            hidden, outputs = block(hidden_states=hidden, temb=time)
            skips += outputs
        return FirstHalf(self.unet.mid_block.resnets[0](hidden, time), tuple(skips), time)

    def second_half(self, first: FirstHalf, text: Tensor) -> Tensor:
        """Return the prediction for each row of `first` under its row of `text`."""
        hidden, skips, time = first
        if self.late_text:
            time = time + self.unet.add_embedding(text)
        middle = self.unet.mid_block
        for attention, resnet in zip(middle.attentions, middle.resnets[1:], strict=True):
            hidden = resnet(attention(hidden, encoder_hidden_states=text).sample, time)
        for block in self.unet.up_blocks:
            count = len(block.resnets)
            skips, own = skips[:-count], skips[-count:]
            attends = getattr(block, "has_cross_attention", False)
            options = {"encoder_hidden_states": text} if attends else {}
            hidden = block(hidden_states=hidden, temb=time, res_hidden_states_tuple=own, **options)
        output: Tensor = self.unet.conv_out(self.unet.conv_act(self.unet.conv_norm_out(hidden)))
        return output

    def fit(self, first: FirstHalf, text: Tensor) -> Tensor:
        """Return logits of how well each prompt fits each latent, ``[n, prompts]``.

        They are the attention logits (query times key) of the middle's cross-attention, averaged
        over heads, positions and tokens, minus those of the start token, which is the same in every
        prompt. If they separate the classes, attention moves from the start token to the tokens of
        a prompt that fits, and the prediction can depend on that.
        """
        transformer = self.unet.mid_block.attentions[0]
        block = transformer.transformer_blocks[0]
        hidden = transformer.proj_in(transformer.norm(first.hidden)).flatten(2).mT
        hidden = hidden + block.attn1(block.norm1(hidden))
        query = block.attn2.to_q(block.norm2(hidden)).mean(1)
        keys = block.attn2.to_k(text)
        own = keys[:, 1:].mean(1) - keys[:, 0]
        logits: Tensor = query @ own.mT * (block.attn2.scale / block.attn2.heads)
        return logits
