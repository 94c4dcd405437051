"""One module per dataset: reads its download layout into a `RawSet`."""

import dataclasses
from collections.abc import Callable, Mapping

from jepa_jax.data.preparation.raw import RawSet
from jepa_jax.data.preparation.sets import diving48, folder, imagenet100, something_something_v2, ucf101
from jepa_jax.files.remote.any_path import AnyPath
from jepa_jax.files.remote.remote_path import RemotePath

Open = Callable[[AnyPath], RawSet]


def _with_listing(open_raw: Open) -> Open:
    def open_listed(root: AnyPath) -> RawSet:
        raw = open_raw(root)
        return dataclasses.replace(raw, remote=root) if isinstance(root, RemotePath) else raw

    return open_listed


OPEN: Mapping[str, Open] = {
    "ucf101": _with_listing(ucf101.open_raw),
    "something_something_v2": _with_listing(something_something_v2.open_raw),
    "diving48": _with_listing(diving48.open_raw),
    "imagenet100": _with_listing(imagenet100.open_raw),
    "folder": _with_listing(folder.open_raw),
}
