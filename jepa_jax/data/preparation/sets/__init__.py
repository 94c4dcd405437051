"""One module per dataset: reads its download layout into a `RawSet`."""

import pathlib
from collections.abc import Callable

from jepa_jax.data.preparation.raw import RawSet
from jepa_jax.data.preparation.sets import diving48, folder, imagenet100, something_something_v2, ucf101

OPEN: dict[str, Callable[[pathlib.Path], RawSet]] = {
    "ucf101": ucf101.open_raw,
    "something_something_v2": something_something_v2.open_raw,
    "diving48": diving48.open_raw,
    "imagenet100": imagenet100.open_raw,
    "folder": folder.open_raw,
}
