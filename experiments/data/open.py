"""Opens a dataset by name: digits, one of one's own, a folder of images, or TFDS's."""

from pathlib import Path

from experiments.data.source import Source
from experiments.own_code import is_own


def open_source(
    name: str, *, data_dir: Path | None = None, download: bool = False
) -> Source:
    """Opens a dataset, and reads its first and last images.

    Args:
        name: `"digits"`; a path to a folder of images, `train/<class>/<image>` and
            `test/<class>/<image>`, which begins with `/`, `~` or `.` unless such a folder
            is there; a function of one's own as `"package.module:function"`, see
            `experiments.data.own`; or the name of a TFDS dataset, such as `"cifar10"`.
        data_dir: folder of prepared TFDS datasets, default `TFDS_DATA_DIR` or
            `~/tensorflow_datasets`.
        download: let TFDS download and prepare a dataset that is not there.

    Raises:
        ValueError: the dataset is unknown, not prepared, damaged or no image
            classification.
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
