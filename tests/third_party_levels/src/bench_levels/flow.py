"""A rectified flow in pixels; its output is negated and its time runs backwards."""

import numpy as np
import torch

from bench.contracts.levels import flow_levels


class PixelFlow:
    latent_shape, resolution, can_linearise = (1, 8, 8), 8, True

    def __init__(self, weights, *, device, dtype):
        self.device = torch.device(device)
        flow = flow_levels({"num_train_timesteps": 100, "shift": 3.0}, scale=1.0, reverse=True)
        self.levels = flow.answering(-flow.p, -flow.q)
        self.network = torch.nn.Linear(4, 64).to(self.device).requires_grad_(False)
        with torch.no_grad():
            self.network.weight[:] = torch.linspace(-1, 1, 256).reshape(64, 4).sin()

    def encode_images(self, images):
        grey = [np.asarray(image.convert("L").resize((8, 8)), np.float32) for image in images]
        return torch.from_numpy(np.stack(grey))[:, None].to(self.device) / 127.5 - 1

    def encode_prompts(self, texts):
        codes = [[len(text), text.count("a"), text.count(" "), hash_of(text)] for text in texts]
        return {"code": torch.tensor(codes, dtype=torch.float32, device=self.device) / 10}

    def encode_null(self):
        return {"code": torch.zeros(1, 4, device=self.device)}

    def denoise(self, x_t, t, conditioning):
        guess = torch.tanh(self.network(conditioning["code"])).reshape(-1, 1, 8, 8)
        return guess - x_t * t[:, None, None, None]


def hash_of(text):
    return sum(map(ord, text)) % 10
