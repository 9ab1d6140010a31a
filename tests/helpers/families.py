"""Small pipelines of every family: diffusers' own classes, random weights, saved as users do.

Each is as small as its configs allow, and keeps the traits that matter: several text encoders,
masks, packed latents, a learned variance. `save(kind, folder)` returns the pipeline too, for
computations that do without the toolkit.
"""

import inspect
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import diffusers
import tokenizers
import torch
import transformers
from helpers.parts import clip_config, kl_config, save_clip_tokenizer, t5_tokenizer

WIDTH = 16
LABELS = {
    "3": "cat, house cat",
    "11": "fir tree",
    "12": "dog",
    "13": "crane",
    "14": "crane, lifter",
}
DDIM: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}


def save(kind: str, folder: Path) -> Any:
    """Save the small pipeline of a family, and return it, in float32."""
    torch.manual_seed(0)
    pipeline = finished(_MAKERS[kind]())
    pipeline.save_pretrained(folder)
    if kind == "dit":  # as its repositories have it
        index = folder / "model_index.json"
        index.write_text(json.dumps({**json.loads(index.read_text()), "id2label": LABELS}))
    return pipeline


def finished(pipeline: Any, dtype: torch.dtype = torch.float32) -> Any:
    """Return a pipeline whose parameters are all random; its autoencoder is in float32."""
    for name, part in pipeline.components.items():
        if isinstance(part, torch.nn.Module):
            roughen(part.eval())
            part.to(torch.float32 if name == "vae" else dtype)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def roughen(module: torch.nn.Module) -> None:
    """Move every parameter: those that start at zero or one would hide what is left out."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))


def vae(channels: int = 4, **config: Any) -> Any:
    """Return an autoencoder that halves the picture's sides once."""
    return diffusers.AutoencoderKL(
        **kl_config((8, 8), channels, norm_num_groups=4, sample_size=16, **config)
    )


def clip(projected: bool = False, width: int = WIDTH) -> tuple[Any, Any]:
    """Return a CLIP text encoder and its tokenizer."""
    with TemporaryDirectory() as scratch:
        tokenizer = save_clip_tokenizer(Path(scratch, "words"))
    made = transformers.CLIPTextModelWithProjection if projected else transformers.CLIPTextModel
    config = clip_config(
        tokenizer,
        hidden_size=width,
        intermediate_size=width,
        num_hidden_layers=2,
        num_attention_heads=2,
        projection_dim=width,
    )
    return made(config), tokenizer


def t5(width: int = WIDTH) -> tuple[Any, Any]:
    """Return a T5 encoder and its tokenizer."""
    tokenizer = t5_tokenizer()
    config = transformers.T5Config(
        vocab_size=len(tokenizer) + 5,
        d_model=width,
        d_kv=8,
        d_ff=width,
        num_layers=2,
        num_heads=2,
        feed_forward_proj="gated-gelu",
    )
    return transformers.T5EncoderModel(config), tokenizer


def gemma() -> tuple[Any, Any]:
    """Return a Gemma 2 decoder and its tokenizer, which makes a token of a character."""
    pieces = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "\n", "▁", *map(chr, range(33, 127))]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    spoken = tokenizers.Tokenizer(
        tokenizers.models.BPE(vocabulary, [], unk_token="<unk>", fuse_unk=True)
    )
    spoken.normalizer = tokenizers.normalizers.Replace(" ", "▁")
    spoken.pre_tokenizer = tokenizers.pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer = transformers.GemmaTokenizerFast(tokenizer_object=spoken)
    lines = inspect.signature(diffusers.SanaPipeline.__call__).parameters[
        "complex_human_instruction"
    ]
    words = {word for line in lines.default for word in line.split() if len(word) > 3}
    tokenizer.add_tokens(sorted(words))  # its instruction has 1,100 characters
    config = transformers.Gemma2Config(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
    )
    return transformers.Gemma2Model(config), tokenizer


def unet_told_sizes(**config: Any) -> Any:
    """Return a network that is told the picture's sizes, as SDXL's."""
    return diffusers.UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(16, 32),
        layers_per_block=1,
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        norm_num_groups=8,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        **config,
    )


def _sdxl() -> Any:
    one, tokenizer = clip()
    two, tokenizer_2 = clip(projected=True, width=24)
    unet = unet_told_sizes(
        cross_attention_dim=WIDTH + 24,
        projection_class_embeddings_input_dim=24 + 6 * 8,
        transformer_layers_per_block=(1, 2),
    )
    autoencoder, scheduler = vae(scaling_factor=0.13025), diffusers.DDIMScheduler(**DDIM)
    return diffusers.StableDiffusionXLPipeline(
        autoencoder, one, two, tokenizer, tokenizer_2, unet, scheduler
    )


def _dit() -> Any:
    transformer = diffusers.DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=8,
        num_layers=2,
        sample_size=8,
        num_embeds_ada_norm=20,
    )
    scheduler = diffusers.DDIMScheduler(beta_start=0.0001, beta_end=0.02, clip_sample=False)
    return diffusers.DiTPipeline(transformer, vae(scaling_factor=0.18215), scheduler)


def _sd3() -> Any:
    one, tokenizer = clip(projected=True)
    two, tokenizer_2 = clip(projected=True, width=24)
    three, tokenizer_3 = t5(width=48)
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=16,
        out_channels=16,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=48,
        caption_projection_dim=16,
        pooled_projection_dim=WIDTH + 24,
        pos_embed_max_size=12,
    )
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    autoencoder = vae(16, scaling_factor=1.5305, shift_factor=0.0609)
    words = (one, tokenizer, two, tokenizer_2, three, tokenizer_3)
    return diffusers.StableDiffusion3Pipeline(transformer, scheduler, autoencoder, *words)


def _flux(guided: bool = True) -> Any:
    one, tokenizer = clip()
    two, tokenizer_2 = t5(width=32)
    transformer = diffusers.FluxTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=WIDTH,
        guidance_embeds=guided,
        axes_dims_rope=(2, 2, 4),
    )
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=guided, shift=3.0 if guided else 1.0
    )
    autoencoder = vae(4, scaling_factor=0.3611, shift_factor=0.1159)
    return diffusers.FluxPipeline(
        scheduler, autoencoder, one, tokenizer, two, tokenizer_2, transformer
    )


def _pixart(sigma: bool = False) -> Any:
    encoder, tokenizer = t5()
    transformer = diffusers.PixArtTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=8,
        num_layers=2,
        cross_attention_dim=24,
        caption_channels=WIDTH,
        sample_size=8 if sigma else 128,  # at 128, alpha is told the picture's size
        use_additional_conditions=not sigma,
        interpolation_scale=1,
    )
    made = diffusers.PixArtSigmaPipeline if sigma else diffusers.PixArtAlphaPipeline
    scheduler = diffusers.DDIMScheduler(beta_start=0.0001, beta_end=0.02, clip_sample=False)
    return made(tokenizer, encoder, vae(scaling_factor=0.13025), transformer, scheduler)


def _sana() -> Any:
    encoder, tokenizer = gemma()
    autoencoder = diffusers.AutoencoderDC(
        latent_channels=4,
        encoder_block_types="ResBlock",
        decoder_block_types="ResBlock",
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        encoder_qkv_multiscales=((), ()),
        decoder_qkv_multiscales=((), ()),
        scaling_factor=0.41407,
    )
    transformer = diffusers.SanaTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=4,  # fewer, and its attention divides by nearly nothing
        attention_head_dim=16,
        num_layers=2,
        num_cross_attention_heads=2,
        cross_attention_head_dim=8,
        cross_attention_dim=64,
        caption_channels=WIDTH,
        sample_size=16,
        timestep_scale=0.5,
    )
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    return diffusers.SanaPipeline(tokenizer, encoder, autoencoder, transformer, scheduler)


_MAKERS: dict[str, Callable[[], Any]] = {
    "sdxl": _sdxl,
    "dit": _dit,
    "sd3": _sd3,
    "flux": _flux,
    "schnell": partial(_flux, guided=False),
    "pixart": _pixart,
    "sigma": partial(_pixart, sigma=True),
    "sana": _sana,
}
KINDS = tuple(_MAKERS)
