"""A noise model that is conditioned on class labels: class names stand for themselves."""

import numpy as np
import torch

from bench.contracts.levels import diffusion_levels

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


class Labels:
    latent_shape, resolution = (1, 8, 8), 8

    def __init__(self, weights, *, device, dtype):
        self.device = torch.device(device)
        self.levels = diffusion_levels(np.linspace(0.999, 0.001, 50), "epsilon")
        table = torch.linspace(-1, 1, 64 * 11).reshape(11, 1, 8, 8).sin()
        self.table = table.to(self.device)

    def encode_images(self, images):
        grey = [np.asarray(image.convert("L").resize((8, 8)), np.float32) for image in images]
        return torch.from_numpy(np.stack(grey))[:, None].to(self.device) / 127.5 - 1

    def encode_prompts(self, texts):
        found = [next(i for i, name in enumerate(NAMES) if name in text) for text in texts]
        return {"label": torch.tensor(found, device=self.device)}

    def encode_null(self):
        return {"label": torch.tensor([10], device=self.device)}

    def denoise(self, x_t, t, conditioning):
        return x_t * (t / 50)[:, None, None, None] - self.table[conditioning["label"]]
