"""Folders of tiny clips and images."""

import pytest
from PIL import Image


@pytest.fixture(scope="session")
def clips(tmp_path_factory, write_video):
    """A folder of eight readable videos in two classes: a (5 clips of 24 frames) and b (3 clips of 4 frames)."""
    folder = tmp_path_factory.mktemp("clips")
    for k in range(5):
        write_video(folder / "a" / f"{k}.mp4")
    for k in range(3):
        write_video(folder / "b" / f"{k} with space.avi", frames=4)
    return folder


@pytest.fixture(scope="session")
def pictures(tmp_path_factory, grey):
    """A folder of six images in two classes."""
    folder = tmp_path_factory.mktemp("pictures")
    for k in range(6):
        path = folder / "xy"[k % 2] / f"{k}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(grey(k)).save(path)
    return folder
