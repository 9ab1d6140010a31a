"""Forty grey squares."""

import datasets
from PIL import Image


class Shades:
    def load(self, split, data_dir=None):
        shades = [*range(20, 100, 4), *range(250, 170, -4)]
        return datasets.Dataset.from_dict(
            {
                "image": [Image.new("RGB", (32, 32), (s, s, s)) for s in shades],
                "label": [int(s > 127) for s in shades],
            },
            split=split,
        )
