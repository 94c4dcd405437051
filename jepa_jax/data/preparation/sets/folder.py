"""Any folder of classes, videos or images: RAW/CLASS/file, or RAW/SPLIT/CLASS/file (see `data/listing/layout.py`).

Without split folders everything is in the split "train", and an evaluation's `holdout` selects its test clips. Files
outside class folders have the label −1. Classes are numbered by sorted name. A folder of GIF files contains videos,
unless there are other images in it. Files that are left out are counted in the notes.
"""

from jepa_jax.data import sources
from jepa_jax.data.listing import layout
from jepa_jax.data.preparation import annotations
from jepa_jax.data.preparation.raw import Item, PrepareError, RawSet
from jepa_jax.files.remote.any_path import AnyPath


def open_raw(root: AnyPath) -> RawSet:
    """Opens the raw set below `root`.

    Raises:
        PrepareError: `root` is not a folder, is empty, has both videos and images, or has ambiguous split folders.
    """
    annotations.require_folder(root)
    try:
        files = layout.find_files(root)
        arranged = layout.arrange(files.paths, files.unreadable)
    except layout.LayoutError as error:
        raise PrepareError(f"--source={root}: {error}") from error
    classes = sorted({name for listed in arranged.splits.values() for _, name in listed if name is not None})
    numbers = annotations.label_of_class(classes)
    notes = [f"The split {split} is the folder {folder}/." for split, folder in arranged.folders.items()]
    if left_over := layout.left_over([*files.others, *arranged.outside]):
        notes.append(left_over)
    return RawSet(
        name="folder",
        kind=files.kind,
        classes=tuple(classes),
        parts={
            split: [
                Item(path, sources.UNLABELLED if name is None else numbers[name], str(root / path))
                for path, name in listed
            ]
            for split, listed in arranged.splits.items()
        },
        splits={split: [[split]] for split in arranged.splits},
        notes=tuple(notes),
    )
