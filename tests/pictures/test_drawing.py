"""Values, masks, sheets and films as arrays."""

import av
import numpy as np
import pytest
from PIL import Image

from jepa_jax.pictures import colour_map, film, overlay, sheet, upsample


def test_values_have_the_colours_of_cividis():
    painted = colour_map.paint(np.array([0, 0.25, 0.5, 1, np.nan]), 0.0, 1.0)
    stored = [[0, 34, 78], [67, 78, 108], [125, 124, 120], [254, 232, 56], [200, 200, 200]]
    assert np.abs(painted.astype(int) - stored).max() <= 1


def test_larger_values_are_lighter():
    luminance = colour_map.paint(np.linspace(-1, 1, 200), -1.0, 1.0) @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(luminance) >= -1).all()
    assert np.ptp(luminance) > 150


def test_equal_values_can_be_painted_and_a_reversed_range_cannot():
    assert colour_map.paint(np.array([2.0]), 2.0, 2.0).shape == (1, 3)
    with pytest.raises(ValueError, match=r"low is 1\.0 and high is 0\.0"):
        colour_map.paint(np.zeros(1), 1.0, 0.0)


def test_masks_darken_unused_tokens_and_tint_targets():
    video = np.full((2, 4, 4, 3), 100, np.uint8)
    context = overlay.is_in(np.array([0]), (1, 2, 2))
    target = overlay.is_in(np.array([3]), (1, 2, 2))
    unused, tinted = [36, 36, 36], [201, 158, 113]
    stored = np.array([[[100] * 3, unused], [unused, tinted]])
    painted = overlay.masked(video, context, target)
    np.testing.assert_array_equal(painted, np.broadcast_to(stored.repeat(2, 0).repeat(2, 1), (2, 4, 4, 3)))


def test_positions_outside_of_the_grid_raise():
    with pytest.raises(ValueError, match=r"positions are 4 to 4; a grid of \(1, 2, 2\) has 0 to 3"):
        overlay.is_in(np.array([4]), (1, 2, 2))


def test_outline_surrounds_one_token():
    framed = overlay.outline(np.zeros((32, 32, 3), np.uint8), row=1, column=0, grid=(1, 2, 2), colour=(9, 8, 7))
    assert (framed[:16] == 0).all()
    assert (framed[:, 16:] == 0).all()
    assert framed[16, 3].tolist() == [9, 8, 7]
    assert framed[24, 8].tolist() == [0, 0, 0]


def test_tokens_become_pixels():
    values = np.arange(4.0).reshape(1, 2, 2, 1)
    sharp = upsample.to_pixels(values, 4, 4, smooth=False)
    np.testing.assert_array_equal(sharp[0, ..., 0], [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]])
    smooth = upsample.to_pixels(values, 4, 4, smooth=True)[0, ..., 0]
    np.testing.assert_allclose(smooth[0], [0, 0.25, 0.75, 1])
    with pytest.raises(ValueError, match="2×2 tokens does not divide 5×4 pixels"):
        upsample.to_pixels(values, 5, 4, smooth=False)


def test_sheet_places_every_image():
    red, blue = (np.full((20, 30, 3), colour, np.uint8) for colour in ((255, 0, 0), (0, 0, 255)))
    rows = [sheet.Row("first", [red, blue], notes=("a", "b")), sheet.Row("second", [blue], heading="clip")]
    options = {"title": "title", "columns": ("one", "two"), "footer": "said below\nin two lines"}
    made = sheet.sheet(rows, **options)
    for colour, count in (((255, 0, 0), 600), ((0, 0, 255), 1200)):
        assert (made == colour).all(-1).sum() == count
    np.testing.assert_array_equal(made, sheet.sheet(rows, **options))
    with pytest.raises(ValueError, match="a sheet needs rows"):
        sheet.sheet([])


def test_long_names_keep_their_end():
    assert sheet.shorten("a/clip.mp4", 500) == "a/clip.mp4"
    short = sheet.shorten("a very long folder name/clip.mp4", 90)
    assert short.startswith("…")
    assert short.endswith("clip.mp4")


def test_images_are_stacked_on_white():
    small, large = np.zeros((2, 3, 3), np.uint8), np.zeros((2, 5, 3), np.uint8)
    assert sheet.stacked([small, large]).shape == (2 + sheet.GAP + 2, 5, 3)
    assert (sheet.stacked([small, large])[0, 3:] == 255).all()
    assert sheet.side_by_side([large, large]).shape == (2, 5 + sheet.GAP + 5, 3)


@pytest.mark.parametrize("write", [film.write_gif, film.write_mp4])
def test_films_hold_the_frames_and_no_time(tmp_path, write, grey):
    frames = [grey(number, 33, 48) for number in (0, 10, 20)]
    ending = "gif" if write is film.write_gif else "mp4"
    for name in ("a", "b"):
        write(tmp_path / "films" / name / f"film.{ending}", frames)
    first, second = sorted((tmp_path / "films").rglob("*.*"))
    assert first.read_bytes() == second.read_bytes()
    with av.open(str(first)) as container:
        read = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(read) == 3
    for frame, written in zip(read, frames, strict=True):
        assert np.abs(frame[:33, :48].astype(int) - written).max() <= 3


def test_png_holds_the_pixels(tmp_path, grey):
    film.write_png(tmp_path / "new" / "image.png", grey(3))
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "new" / "image.png")), grey(3))
