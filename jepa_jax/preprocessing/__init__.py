"""How an encoder's own evaluation turns decoded frames into its input."""

import dataclasses

Channels = tuple[float, float, float]  # red, green, blue

IMAGENET_MEAN: Channels = (0.485, 0.456, 0.406)
IMAGENET_STD: Channels = (0.229, 0.224, 0.225)


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """Size before the centre crop, and normalization.

    Attributes:
        resize: (a, b): the short side is resized to ⌊crop · a / b⌋ pixels, for a crop of any size. (1, 1): frames just
            cover the crop.
        mean: subtracted from RGB values in 0…1.
        std: they are divided by it.
    """

    resize: tuple[int, int] = (1, 1)
    mean: Channels = IMAGENET_MEAN
    std: Channels = IMAGENET_STD

    def resized(self, side: int) -> int:
        """Returns the pixels to which a side of the crop corresponds before the crop."""
        return side * self.resize[0] // self.resize[1]


TRAINED_HERE = Preprocessing()  # arXiv:2605.17165
VJEPA2 = Preprocessing(resize=(256, 224))  # arXiv:2506.09985
