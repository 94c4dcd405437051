"""What `VideoEncoder` is called with: paths and arrays, read as clips in batches, ahead of the device."""

import collections
import concurrent.futures
import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from jaxtyping import Num, UInt8

from jepa_jax.config import ClipConfig
from jepa_jax.data import augment, faults, sampling
from jepa_jax.data.decode import images, videos
from jepa_jax.data.listing import file_types
from jepa_jax.preprocessing import Preprocessing

Path = str | os.PathLike[str]
Frames = UInt8[np.ndarray, "F Y X 3"]
Clips = Path | Frames | UInt8[np.ndarray, "B F Y X 3"] | Sequence[Path] | Sequence[Frames]
AHEAD = 2  # batches that are read before they are needed
MOST_THREADS = 8
SHAPES = {4: "[frames, height, width, 3]", 5: "[clips, frames, height, width, 3]"}


@dataclasses.dataclass(frozen=True)
class ClipReader:
    """Clips of one shape.

    Attributes:
        count: of clips.
        shape: of a clip, [F, Y, X, 3].
        read: number of a clip → its frames in 0…255.
    """

    count: int
    shape: tuple[int, int, int, int]
    read: Callable[[int], Num[np.ndarray, "F Y X 3"]]

    def batches(self, size: int) -> Iterator[tuple[int, Num[np.ndarray, "B F Y X 3"]]]:
        """Yields (number of clips, batch of `size`) in order; the last clip is repeated to fill the last batch."""
        starts = iter(range(0, self.count, size))
        with concurrent.futures.ThreadPoolExecutor(min(MOST_THREADS, os.cpu_count() or 1)) as threads:
            pending: collections.deque[list[concurrent.futures.Future]] = collections.deque()

            def submit() -> None:
                start = next(starts, None)
                if start is not None:
                    numbers = range(start, min(start + size, self.count))
                    pending.append([threads.submit(self.read, number) for number in numbers])

            try:
                for _ in range(1 + AHEAD):
                    submit()
                while pending:
                    clips = [clip.result() for clip in pending.popleft()]
                    submit()
                    yield len(clips), np.stack([*clips, *clips[-1:] * (size - len(clips))])
            finally:
                threads.shutdown(cancel_futures=True)


def open_clips(clips: Clips, clip: ClipConfig, preprocessing: Preprocessing) -> ClipReader:
    """Returns a reader of arrays, as they are, or of files, as the encoder's own evaluation reads them.

    Args:
        clips: frames or paths, one clip or several.
        clip: frames and size of clips from files.
        preprocessing: of clips from files.

    Raises:
        ValueError: no clips, arrays of another type or shape, or videos and images together.
    """
    if isinstance(clips, str | os.PathLike):
        clips = [clips]
    elif hasattr(clips, "shape"):
        array = np.asarray(clips)
        _check(array, (4, 5))
        clips = array[None] if array.ndim == 4 else array
    if not len(clips):
        raise ValueError("there are no clips; expected at least one.")
    if isinstance(clips[0], str | os.PathLike):
        return _of_files([os.fspath(path) for path in clips], clip, preprocessing)  # pyright: ignore
    arrays = [np.asarray(each) for each in clips]
    for array in arrays:
        _check(array, (4,))
        if array.shape != arrays[0].shape:
            raise ValueError(
                f"clips have the shapes {list(arrays[0].shape)} and {list(array.shape)}; encode them separately."
            )
    return ClipReader(len(arrays), arrays[0].shape, arrays.__getitem__)


def _check(array: np.ndarray, dimensions: tuple[int, ...]) -> None:
    if array.dtype != np.uint8 or array.ndim not in dimensions or array.shape[-1] != 3:
        expected = " or ".join(SHAPES[number] for number in dimensions)
        raise ValueError(f"clips are {array.dtype} {list(array.shape)}; expected uint8 (0 to 255) {expected}.")


def _of_files(paths: Sequence[str], clip: ClipConfig, preprocessing: Preprocessing) -> ClipReader:
    are_images = [os.path.splitext(path)[1].lower() in file_types.IMAGE_SUFFIXES for path in paths]
    if any(are_images) and not all(are_images):
        raise ValueError(
            f"{paths[are_images.index(True)]} is an image and {paths[are_images.index(False)]} a video; encode them "
            "separately."
        )

    def read(number: int) -> Num[np.ndarray, "F Y X 3"]:
        path = paths[number]
        with faults.as_decode_error(path):
            if are_images[number]:
                image = images.read_image(path)
                return augment.centre_view_of_image(image, clip.height, clip.width, preprocessing)[None]
            frames = videos.read_clip(path, lambda count, _: sampling.spread_window(count, clip.frames))
            return augment.centre_view(frames, clip.height, clip.width, preprocessing=preprocessing)

    return ClipReader(len(paths), (1, *clip.shape[1:]) if are_images[0] else clip.shape, read)
