"""Twelve images, one colour on the left and one on the right, each with two captions."""

import datasets
import numpy as np
from PIL import Image

COLOURS = {"red": (220, 40, 40), "green": (40, 200, 60), "blue": (50, 60, 230)}


class Halves:
    def load(self, split, data_dir=None):
        rng = np.random.default_rng(0)
        rows = {"image": [], "texts": [], "label": [], "group": []}
        for number in range(12):
            left, right = rng.choice(list(COLOURS), 2, replace=False).tolist()
            pixels = np.empty((20, 30, 3))
            pixels[:, :15], pixels[:, 15:] = COLOURS[left], COLOURS[right]
            pixels += rng.normal(0, 40, pixels.shape)
            texts = [f"{left} left of {right}", f"{right} left of {left}"]
            rows["image"].append(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)))
            rows["texts"].append(texts if number % 2 else texts[::-1])
            rows["label"].append(1 - number % 2)
            rows["group"].append("with red" if "red" in texts[0] else "without red")
        return datasets.Dataset.from_dict(rows, split=split)
