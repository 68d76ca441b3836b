"""Opens a dataset by name: digits, one of one's own, a folder of images, or TFDS's."""

from pathlib import Path

from experiments.data.source import Source
from experiments.own_code import is_own


def open_source(
    name: str, *, data_dir: Path | None = None, download: bool = False
) -> Source:
    """Opens a dataset, and reads its first and last images.

    The name is `"digits"`; a folder of images, if it begins with `/`, `~` or `.` or is
    there; a function of one's own as `"package.module:function"`; or TFDS's name of a
    dataset, such as `"cifar10"`, that is prepared in `data_dir` or may be downloaded.
    Whatever is wrong with it is a ValueError.
    """
    # Each kind has its own dependencies, some of which take a second to import.
    if name == "digits":
        from experiments.data.digits import digits
        from experiments.data.own import from_splits

        return from_splits(name, digits(), "digits")
    if name.startswith(("/", "~", ".")) or (name and Path(name, "train").is_dir()):
        from experiments.data.image_folder import image_folder

        return image_folder(name)
    if is_own(name):
        from experiments.data.own import own_dataset

        return own_dataset(name)
    from experiments.data.prepared import prepared

    return prepared(name, data_dir, download=download)
