"""The text-conditioned denoiser: text encoder, UNet and noise schedule."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn
from torch.nn.utils import parametrize
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from bench_plugins.training.recipes import Recipe

EPSILON = 1e-4


class Standardised(nn.Module):
    """A kernel ``[out, in, h, w]``: zero mean and variance 1 / fan-in an output, times a gain."""

    def __init__(self, kernel: Tensor) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(len(kernel), 1, 1, 1))

    def forward(self, kernel: Tensor) -> Tensor:
        """Return the kernel that convolves."""
        variance, mean = torch.var_mean(kernel, (1, 2, 3), keepdim=True, correction=0)
        fan_in = kernel[0].numel()
        return self.gain * (kernel - mean) * torch.rsqrt(variance * fan_in + EPSILON)


def standardise(network: nn.Module) -> None:
    """Give every 3×3 convolution of `network` a standardised kernel, in place."""
    for module in list(network.modules()):
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
            parametrize.register_parametrization(
                module, "weight", Standardised(module.weight.detach())
            )


@torch.no_grad()
def shorten(network: nn.Module) -> None:
    """Scale standardised kernels to the length that they began with, in place.

    What they compute stays the same. But a kernel grows as it learns, and the longer it is, the
    less a step turns it: a new phase would learn several times slower than its learning rate says.
    """
    for module in network.modules():
        if parametrize.is_parametrized(module, "weight"):
            kernel = module.get_parameter("parametrizations.weight.original")
            fan_in = kernel[0].numel()
            kernel.div_(kernel.std() * (3 * fan_in) ** 0.5)


def bake(network: nn.Module) -> None:
    """Make the kernels that `standardise` computes ordinary weights, in place."""
    for module in list(network.modules()):
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)


@dataclass(frozen=True)
class Seen:
    """What the UNet computes of a noised latent before a prompt enters, one row per latent."""

    deepest: Tensor
    skipped: tuple[Tensor, ...]
    time: Tensor

    def rows(self, index: Tensor) -> Seen:
        """Return some rows, which may repeat."""
        return Seen(
            self.deepest[index], tuple(skip[index] for skip in self.skipped), self.time[index]
        )


class TextDenoiser(nn.Module):
    """Text encoder, UNet and noise schedule, which predict the target under a prompt."""

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
            "CrossAttnDownBlock2D" if heard else "DownBlock2D" for heard in recipe.down_attention
        )
        up = tuple(
            "CrossAttnUpBlock2D" if heard else "UpBlock2D"
            for heard in reversed(recipe.up_attention)
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
        # Fused attention's backward pass costs five times the plain one's on a few tokens (CPU).
        self.unet.set_attn_processor(AttnProcessor())
        if recipe.standardised:
            standardise(self.unet)
        self.deafen()

    @torch.no_grad()
    def deafen(self) -> None:
        """Keep the pooled text from the UNet's first half, in place; after every step.

        The text is added to the second half of the time embedding only, and the blocks before the
        prompt read the first only. So the UNet stays an ordinary one.
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
        """Return the conditioning of each prompt, padded: ``[prompts, length, width]``."""
        tokens = self.tokenizer(prompts, padding="max_length", truncation=True, return_tensors="pt")
        hidden: Tensor = self.text_encoder(tokens.input_ids).last_hidden_state
        return hidden

    def corrupt(self, x_0: Tensor, noise: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return the noised latent x_t, and the target in the space of the prediction."""
        alpha = self.alphas_cumprod[t].view(-1, 1, 1, 1)
        signal, sigma = alpha.sqrt(), (1 - alpha).sqrt()
        x_t = signal * x_0 + sigma * noise
        if self.scheduler.config.prediction_type == "v_prediction":
            return x_t, signal * noise - sigma * x_0
        return x_t, noise

    def forward(self, x_t: Tensor, t: Tensor, text: Tensor) -> Tensor:
        """Return the prediction for each cell, of the shape of `x_t`."""
        output: Tensor = self.unet(x_t, t, text).sample
        return output

    def see(self, x_t: Tensor, t: Tensor) -> Seen:
        """Return the first half of `forward`, the same for every prompt.

        Only where the prompt first enters in the middle: no attention on the way down, and pooled
        text, if any, late.
        """
        time = self.unet.time_embedding(self.unet.time_proj(t).to(x_t.dtype))
        hidden = self.unet.conv_in(x_t)
        skipped = [hidden]
        for block in self.unet.down_blocks:
            hidden, outputs = block(hidden_states=hidden, temb=time)
            skipped += outputs
        return Seen(self.unet.mid_block.resnets[0](hidden, time), tuple(skipped), time)

    def tell(self, seen: Seen, text: Tensor) -> Tensor:
        """Return the second half: the prediction for each row of `seen` under its row of `text`."""
        hidden, skipped, time = seen.deepest, seen.skipped, seen.time
        if self.late_text:
            time = time + self.unet.add_embedding(text)
        middle = self.unet.mid_block
        for attention, resnet in zip(middle.attentions, middle.resnets[1:], strict=True):
            hidden = resnet(attention(hidden, encoder_hidden_states=text).sample, time)
        for block in self.unet.up_blocks:
            count = len(block.resnets)
            skipped, skips = skipped[:-count], skipped[-count:]
            heard = getattr(block, "has_cross_attention", False)
            options = {"encoder_hidden_states": text} if heard else {}
            hidden = block(
                hidden_states=hidden, temb=time, res_hidden_states_tuple=skips, **options
            )
        output: Tensor = self.unet.conv_out(self.unet.conv_act(self.unet.conv_norm_out(hidden)))
        return output

    def fit(self, seen: Seen, text: Tensor) -> Tensor:
        """Return how well each text fits what was seen: logits ``[n, prompts]``.

        They are the logits of the middle's cross-attention, queries against keys, averaged over
        heads, places and tokens, less those of the start token, which is the same in every prompt.
        Where they tell classes apart, the attention itself turns from the start token to the
        prompt's own as far as the prompt fits, and what the denoiser says can depend on that.
        """
        transformer = self.unet.mid_block.attentions[0]
        block = transformer.transformer_blocks[0]
        hidden = transformer.proj_in(transformer.norm(seen.deepest)).flatten(2).mT
        hidden = hidden + block.attn1(block.norm1(hidden))
        query = block.attn2.to_q(block.norm2(hidden)).mean(1)
        keys = block.attn2.to_k(text)
        own = keys[:, 1:].mean(1) - keys[:, 0]
        logits: Tensor = query @ own.mT * (block.attn2.scale / block.attn2.heads)
        return logits
