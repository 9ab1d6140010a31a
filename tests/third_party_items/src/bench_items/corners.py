"""Views: the four corners of an image."""


class Corners:
    count = 4

    def __init__(self, share=0.8):
        if not 0 < share <= 1:
            raise ValueError(f"share={share} must be above 0 and at most 1")
        self.share = share

    def of(self, image, seed):
        width, height = (max(1, round(self.share * side)) for side in image.size)
        right, below = image.width - width, image.height - height
        places = [(x, y) for x in (0, right) for y in (0, below)]
        return [image.crop((x, y, x + width, y + height)) for x, y in places]
