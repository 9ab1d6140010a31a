"""A classifier backbone without weights."""

import numpy as np


class Brightness:
    def __init__(self, weights, *, device, dtype):
        pass

    def score(self, images, texts):
        mean = np.array([np.asarray(image.convert("L")).mean() for image in images]) - 127
        signs = np.array([1 if "light" in text else -1 for text in texts])
        return (mean[:, None] * signs).astype(np.float32)
