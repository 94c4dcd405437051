"""Principal components of tokens as colours: the first sets the lightness, the second and third set the hue.

Lightness carries the first component, so that a picture can be read in greyscale and by colour-blind people.
"""

from typing import NamedTuple

import cv2
import numpy as np
import scipy.linalg
from jaxtyping import Bool, Float, UInt8

COMPONENTS = 3
LIGHTNESS = (20.0, 90.0)  # CIELAB L* of the smallest and the largest value of the first component
CHROMA = 60.0  # CIELAB |a*| and |b*| at the ends of the second and third component
_OUTLIERS = 1.0  # percent of the tokens at each end that are clipped


class Basis(NamedTuple):
    """The first three principal components of a set of tokens, and the range of values that colours cover."""

    mean_E: Float[np.ndarray, "E"]
    axes_3xE: Float[np.ndarray, "3 E"]
    low_3: Float[np.ndarray, "3"]
    high_3: Float[np.ndarray, "3"]
    variance_3: Float[np.ndarray, "3"]  # share of the tokens' variance, 0 to 1


def fit(tokens: Float[np.ndarray, "*S E"]) -> Basis:
    """Fits the basis of all given tokens. Fit once for all pictures that are to be compared.

    The sign of a component is such that its largest loading is positive. Directions without variance are zero.

    Raises:
        ValueError: there are no tokens, or values that are not finite.
    """
    tokens_SxE = tokens.reshape(-1, tokens.shape[-1]).astype(np.float64)
    if not len(tokens_SxE):
        raise ValueError("there are no tokens; expected at least one.")
    if not np.isfinite(tokens_SxE).all():
        raise ValueError("tokens are not finite; the encoder's parameters or the clips are damaged.")
    mean_E = tokens_SxE.mean(0)
    covariance_ExE = np.cov(tokens_SxE, rowvar=False, bias=True).reshape(len(mean_E), len(mean_E))
    count = min(COMPONENTS, len(mean_E))
    values, vectors = scipy.linalg.eigh(covariance_ExE, subset_by_index=(len(mean_E) - count, len(mean_E) - 1))
    axes_3xE, variance_3 = np.zeros((COMPONENTS, len(mean_E))), np.zeros(COMPONENTS)
    total = float(np.trace(covariance_ExE))
    for number, (value, vector_E) in enumerate(zip(values[::-1], vectors.T[::-1], strict=True)):
        if value > 1e-12 * max(total, 1e-300) and value > 1e-24:
            axes_3xE[number] = vector_E * np.sign(vector_E[np.abs(vector_E).argmax()])
            variance_3[number] = value / total
    projected_Sx3 = (tokens_SxE - mean_E) @ axes_3xE.T
    low_3, high_3 = np.percentile(projected_Sx3, (_OUTLIERS, 100 - _OUTLIERS), axis=0)
    return Basis(mean_E, axes_3xE, low_3, high_3, variance_3)


def project(basis: Basis, tokens: Float[np.ndarray, "*S E"]) -> Float[np.ndarray, "*S 3"]:
    """Returns the components of tokens, scaled so that 0 and 1 are the ends of the colours; ½ without variance."""
    components = (tokens.astype(np.float64) - basis.mean_E) @ basis.axes_3xE.T
    span_3 = basis.high_3 - basis.low_3
    scaled = (components - basis.low_3) / np.where(span_3 > 0, span_3, 1.0)
    return np.where(span_3 > 0, np.clip(scaled, 0.0, 1.0), 0.5)


def paint(components: Float[np.ndarray, "*S 3"]) -> UInt8[np.ndarray, "*S 3"]:
    """Returns the RGB colours of components in 0…1 (`project`)."""
    low, high = LIGHTNESS
    lightness = low + (high - low) * components[..., 0]
    chroma = CHROMA * (2 * components[..., 1:] - 1)
    lab = np.concatenate([lightness[..., None], chroma], axis=-1).astype(np.float32)
    rgb = cv2.cvtColor(lab.reshape(1, -1, 3), cv2.COLOR_LAB2RGB).reshape(lab.shape)
    return np.rint(255 * np.clip(rgb, 0, 1)).astype(np.uint8)


def colours(tokens: Float[np.ndarray, "*S E"], basis: Basis | None = None) -> UInt8[np.ndarray, "*S 3"]:
    """Returns a colour for each token, in the basis of these tokens unless another is given.

    Example:
        >>> import numpy as np
        >>> tokens_TxHxWxE = np.random.default_rng(0).normal(size=(2, 4, 4, 8))
        >>> colours(tokens_TxHxWxE).shape
        (2, 4, 4, 3)
    """
    return paint(project(fit(tokens) if basis is None else basis, tokens))


def foreground(tokens: Float[np.ndarray, "*B H W E"]) -> Bool[np.ndarray, "*B H W"]:
    """Returns which tokens are foreground, by the first principal component (after DINOv2, arXiv:2304.07193).

    Otsu's threshold splits the component in two; the side that holds less of the frames' borders is the foreground.
    """
    first = project(fit(tokens), tokens)[..., 0]
    levels = np.rint(255 * first).astype(np.uint8)
    threshold, _ = cv2.threshold(levels.reshape(1, -1), 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    above = levels > threshold
    border = np.ones(above.shape[-2:], bool)
    border[1:-1, 1:-1] = False
    return above if above[..., border].mean() <= 0.5 else ~above
