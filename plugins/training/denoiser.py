"""The text-conditioned denoiser: text encoder, UNet and noise schedule."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffusers import DDPMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

    from bench_plugins.training.recipes import Recipe


class Denoiser(nn.Module):
    """Text encoder, UNet and noise schedule: predicts what was asked of it under a prompt."""

    alphas_cumprod: Tensor

    def __init__(self, recipe: Recipe, tokenizer: CLIPTokenizer) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.scheduler = DDPMScheduler(
            num_train_timesteps=1000, clip_sample=False, **recipe.scheduler
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
            "CrossAttnDownBlock2D" if heard else "DownBlock2D" for heard in recipe.attention
        )
        up = tuple(
            "CrossAttnUpBlock2D" if heard else "UpBlock2D" for heard in reversed(recipe.attention)
        )
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
            addition_embed_type="text" if recipe.pooled_text else None,
            addition_embed_type_num_heads=4,
        )
        # Fused attention's backward pass costs five times the plain one's on a few tokens (CPU).
        self.unet.set_attn_processor(AttnProcessor())

    def encode(self, prompts: list[str]) -> Tensor:
        """Text conditioning of each prompt, padded: ``[prompts, length, width]``."""
        tokens = self.tokenizer(prompts, padding="max_length", truncation=True, return_tensors="pt")
        hidden: Tensor = self.text_encoder(tokens.input_ids).last_hidden_state
        return hidden

    def corrupt(self, x_0: Tensor, noise: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The noised latent x_t, and the target in the space of the prediction."""
        alpha = self.alphas_cumprod[t].view(-1, 1, 1, 1)
        signal, sigma = alpha.sqrt(), (1 - alpha).sqrt()
        x_t = signal * x_0 + sigma * noise
        if self.scheduler.config.prediction_type == "v_prediction":
            return x_t, signal * noise - sigma * x_0
        return x_t, noise

    def forward(self, x_t: Tensor, t: Tensor, text: Tensor) -> Tensor:
        """Prediction for each cell, the shape of `x_t`."""
        output: Tensor = self.unet(x_t, t, text).sample
        return output
