import numpy as np
import pytest

from jepa_jax.pictures import pca

# Eight tokens on a line and, less far, across it.
TOKENS_8x2 = np.array([[-4, 0], [-3, 1], [-2, -1], [-1, 1], [1, -1], [2, 1], [3, -1], [4, 0]], np.float32)
COLOURS_8x3 = np.array(
    [
        *([15, 54, 48], [120, 31, 67], [0, 110, 88], [179, 68, 109]),
        *([0, 179, 155], [255, 128, 179], [94, 226, 204], [255, 216, 227]),
    ]
)


def test_colours_are_those_stored():
    assert np.abs(pca.colours(TOKENS_8x2).astype(int) - COLOURS_8x3).max() <= 1


def test_first_component_sets_the_lightness():
    red, green, blue = pca.colours(TOKENS_8x2).T.astype(float)
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    order = pca.project(pca.fit(TOKENS_8x2), TOKENS_8x2)[:, 0].argsort()
    assert (np.diff(luminance[order]) > 0).all()


def test_basis_is_the_same_whatever_the_order_of_the_tokens():
    basis, reversed_ = pca.fit(TOKENS_8x2), pca.fit(TOKENS_8x2[::-1])
    for one, other in zip(basis, reversed_, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-12)


def test_components_have_the_variance_of_the_tokens():
    tokens_SxE = np.random.default_rng(0).normal(size=(500, 6)) * [5, 3, 2, 0.1, 0.1, 0.1]
    basis = pca.fit(tokens_SxE)
    np.testing.assert_allclose(basis.variance_3, np.array([25, 9, 4]) / 38.03, atol=0.05)
    np.testing.assert_allclose(np.abs(basis.axes_3xE[:, :3]), np.eye(3), atol=0.1)


def test_basis_fits_several_clips_at_once():
    tokens_IxTxHxWxE = np.random.default_rng(1).normal(size=(2, 2, 3, 3, 5))
    together = pca.colours(tokens_IxTxHxWxE)
    basis = pca.fit(tokens_IxTxHxWxE)
    np.testing.assert_array_equal(together[1], pca.colours(tokens_IxTxHxWxE[1], basis))


@pytest.mark.parametrize("width", [1, 2, 5])
def test_equal_tokens_are_grey(width):
    assert len(np.unique(pca.colours(np.ones((4, width))))) <= 3
    assert np.ptp(pca.colours(np.ones((4, width))).astype(int), axis=-1).max() <= 1


def test_tokens_that_are_not_finite_raise():
    with pytest.raises(ValueError, match="tokens are not finite"):
        pca.fit(np.array([[1.0, np.nan]]))
    with pytest.raises(ValueError, match="there are no tokens"):
        pca.fit(np.zeros((0, 3)))


def test_foreground_is_the_object_inside_of_the_frame():
    tokens_TxHxWxE = np.random.default_rng(2).normal(size=(2, 6, 6, 4)) * 0.05
    tokens_TxHxWxE[:, 2:4, 1:5] += [3, -2, 1, 0]
    expected = np.zeros((2, 6, 6), bool)
    expected[:, 2:4, 1:5] = True
    np.testing.assert_array_equal(pca.foreground(tokens_TxHxWxE), expected)
    np.testing.assert_array_equal(pca.foreground(-tokens_TxHxWxE), expected)
