import numpy as np
import pytest
from PIL import Image

from jepa_jax import config
from jepa_jax.data import augment, sampling
from jepa_jax.models import pixels

SETTINGS = config.AugmentConfig()


def views(frames, size, settings, rng):
    view = augment.RandomView(size, size, settings, rng)
    return np.stack([view(frame) for frame in frames])


@pytest.mark.parametrize("case", ["21to16_crop32", "9to16_crop24"])
def test_evaluation_view_matches_the_reference(golden, case):
    arrays = golden("eval_preprocessing")
    count = int(case.split("to")[0])
    frames = arrays["frames_uint8"][:count]
    window = sampling.spread_window(count, 16)
    np.testing.assert_array_equal(window, arrays[f"indices_{case.split('_')[0]}"])
    clip = augment.centre_view(frames[window], *[int(case.split("crop")[1])] * 2)
    expected_FxYxXxC = np.moveaxis(arrays[f"clip_{case}"], 0, -1)
    np.testing.assert_allclose(pixels.normalise(clip[None])[0], expected_FxYxXxC, atol=1e-5, rtol=0)


def test_uint8_training_view_is_close_to_the_float_view(golden):
    """For the same square crops and size, they differ by at most 1.5 of 255 levels, including rounding."""
    frames = golden("eval_preprocessing")["frames_uint8"]
    side = min(frames.shape[1:3])
    square = config.AugmentConfig(crop_area=(1.0, 1.0), crop_aspect=(1.0, 1.0), flip_probability=0.0)
    for size in (side // 2, side, side + 7):
        rounded = views(frames[:, :side, :side], size, square, np.random.default_rng(0)).astype(float)
        assert np.abs(rounded - augment.centre_view(frames[:, :side, :side], size, size)).max() <= 1.5


def test_images_are_antialiased_and_centre_cropped():
    stripes = np.zeros((400, 800, 3), np.uint8)
    stripes[:, ::2] = 255
    stripes[:, :100] = stripes[:, 700:] = 0
    view = augment.centre_view_of_image(stripes, 40, 40)
    assert view.shape == (40, 40, 3)
    assert abs(view[:, 2:-2].astype(int) - 127).max() <= 2
    picture = np.random.default_rng(0).integers(0, 255, (50, 30, 3), np.uint8)
    whole = np.asarray(Image.fromarray(picture).resize((20, 33), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(augment.centre_view_of_image(picture, 20, 20), whole[6:26])


@pytest.mark.parametrize(("height", "width"), [(240, 320), (32, 32), (320, 180), (2, 3)])
def test_random_boxes_fit_and_have_the_requested_area_and_aspect(height, width):
    rng = np.random.default_rng(0)
    boxes = [augment.random_box(height, width, SETTINGS, rng) for _ in range(2000)]
    for top, left, h, w in boxes:
        assert 0 <= top <= height - h
        assert 0 <= left <= width - w
        # Sides are rounded to whole pixels, so they are off by at most half a pixel.
        assert (h + 0.5) * (w + 0.5) >= 0.3 * height * width
        assert (w + 0.5) / (h - 0.5) >= 0.75
        assert (w - 0.5) / (h + 0.5) <= 1.35
    assert len({(b.top, b.left) for b in boxes}) > min(3, height)


def test_box_areas_are_uniform_and_aspects_log_uniform_if_all_fit():
    settings = config.AugmentConfig(crop_area=(0.1, 0.5), crop_aspect=(0.5, 2.0))
    rng = np.random.default_rng(0)
    boxes = [augment.random_box(1000, 1000, settings, rng) for _ in range(4000)]
    area = np.array([b.height * b.width for b in boxes]) / 1e6
    log_aspect = np.log([b.width / b.height for b in boxes]) / np.log(2)
    for values, low, high in ((area, 0.1, 0.5), (log_aspect, -1, 1)):
        quartiles = (np.quantile(values, [0.25, 0.5, 0.75]) - low) / (high - low)
        np.testing.assert_allclose(quartiles, [0.25, 0.5, 0.75], atol=0.03)


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [(100, 1000, (0, 432, 100, 135)), (1000, 100, (433, 0, 133, 100)), (100, 110, (0, 0, 100, 110))],
)
def test_largest_centred_box_is_used_if_no_draw_fits(height, width, expected):
    # A crop of the whole area fits only at the aspect ratio of the image.
    settings = config.AugmentConfig(crop_area=(1.0, 1.0))
    assert augment.random_box(height, width, settings, np.random.default_rng(0)) == expected


def test_crop_and_flip_are_equal_in_all_frames_and_depend_only_on_the_seed():
    frame = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
    clip = np.repeat(frame[None], 5, axis=0)
    seen = set()
    for seed in range(20):
        a = views(clip, 16, SETTINGS, np.random.default_rng(seed))
        assert a.shape == (5, 16, 16, 3)
        assert (a == a[:1]).all()
        np.testing.assert_array_equal(a, views(clip, 16, SETTINGS, np.random.default_rng(seed)))
        seen.add(a.tobytes())
    assert len(seen) == 20


def test_flips_occur_with_the_flip_probability():
    ramp = np.broadcast_to(np.arange(0, 240, 10, dtype=np.uint8)[None, None, :, None], (1, 24, 24, 3)).copy()
    for probability, low, high in ((0.0, 0, 0), (1.0, 400, 400), (0.5, 160, 240)):
        settings = config.AugmentConfig(flip_probability=probability)
        rng = np.random.default_rng(0)
        flipped = sum(np.diff(views(ramp, 8, settings, rng)[0, 0, :, 0].astype(int)).sum() < 0 for _ in range(400))
        assert low <= flipped <= high


def test_resizing_is_bilinear_with_half_pixel_centres_without_antialiasing():
    settings = config.AugmentConfig(crop_area=(1.0, 1.0), crop_aspect=(1.0, 1.0), flip_probability=0.0)
    frame = np.random.default_rng(0).integers(0, 255, (30, 30, 3), np.uint8)
    result = views(frame[None], 12, settings, np.random.default_rng(0))[0]
    at = (np.arange(12) + 0.5) * 30 / 12 - 0.5
    low, part = np.floor(at).astype(int), at - np.floor(at)
    rows = frame[low] * (1 - part)[:, None, None] + frame[low + 1] * part[:, None, None]
    expected = rows[:, low] * (1 - part)[None, :, None] + rows[:, low + 1] * part[None, :, None]
    assert abs(result - expected).max() <= 1


@pytest.mark.parametrize("shape", [(12, 30), (30, 12)])
def test_crops_are_spread_over_the_long_side(shape):
    frames = np.random.default_rng(0).integers(256, size=(1, *shape, 3), dtype=np.uint8)
    crops = [augment.centre_view(frames, 12, 12, crop, 3)[0] for crop in range(3)]
    axis = int(np.argmax(shape))
    for crop, start in zip(crops, (0, 9, 18), strict=True):
        np.testing.assert_array_equal(crop, np.take(frames[0], range(start, start + 12), axis))
    np.testing.assert_array_equal(crops[1], augment.centre_view(frames, 12, 12)[0])


@pytest.mark.parametrize(("height", "width"), [(24, 40), (40, 24), (32, 32)])
def test_training_views_have_the_requested_size_and_aspect_ratio(height, width):
    """With a crop aspect of 1, a crop has the aspect ratio of its view, so squares stay square."""
    undistorted = config.AugmentConfig(crop_area=(0.3, 0.5), crop_aspect=(1.0, 1.0), flip_probability=0.0)
    boxes = [
        augment.random_box(240, 320, undistorted, np.random.default_rng(seed), width / height) for seed in range(50)
    ]
    assert all(abs(box.width / width - box.height / height) <= 1 / min(height, width) for box in boxes)
    frames = np.random.default_rng(0).integers(0, 256, (2, 48, 64, 3), np.uint8)
    view = augment.RandomView(height, width, SETTINGS, np.random.default_rng(0))
    assert [view(frame).shape for frame in frames] == [(height, width, 3)] * 2


@pytest.mark.parametrize(("height", "width"), [(24, 40), (40, 24), (33, 47)])
@pytest.mark.parametrize("old", [(48, 64), (64, 48), (40, 40), (20, 100)])
def test_evaluation_views_are_the_largest_centre_crop(old, height, width):
    """The centre of the view is the centre of the frame, measured with a ramp along each axis."""
    for axis in (0, 1):
        ramp = np.linspace(0, 250, old[axis]).astype(np.uint8)
        picture = np.broadcast_to(np.expand_dims(ramp, (1 - axis, 2)), (*old, 3))
        view = augment.centre_view(np.ascontiguousarray(picture)[None], height, width)[0]
        image = augment.centre_view_of_image(np.ascontiguousarray(picture), height, width)
        for shown in (view, image.astype(np.float32)):
            assert shown.shape == (height, width, 3)
            assert abs(np.mean(shown) - 125) <= 8
    # The axis that limits the crop keeps both of its ends.
    tight = 0 if old[1] * height >= old[0] * width else 1
    ramp = np.linspace(0, 250, old[tight]).astype(np.uint8)
    picture = np.ascontiguousarray(np.broadcast_to(np.expand_dims(ramp, (1 - tight, 2)), (*old, 3)))
    shown = augment.centre_view(picture[None], height, width)[0].mean((1 - tight, 2))
    assert shown[0] < 250 / min(height, width, *old)
    assert shown[-1] > 250 - 2 * 250 / min(height, width, *old)


def test_rectangular_crops_are_spread_over_the_long_side():
    frames = np.random.default_rng(0).integers(0, 255, (1, 12, 40, 3), np.uint8)
    crops = [augment.centre_view(frames, 12, 16, crop, 3)[0] for crop in range(3)]
    for crop, start in zip(crops, (0, 12, 24), strict=True):
        np.testing.assert_array_equal(crop, frames[0, :, start : start + 16])
