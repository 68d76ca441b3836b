"""Where labelled images come from: digits, a TFDS dataset, or a folder of image files."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from experiments.data.examples import Examples


@dataclass(frozen=True)
class Source:
    """A dataset of which hardly anything is read yet.

    Attributes:
        name: as it was asked for.
        classes: number of classes.
        shape: `(height, width, channels)` of the images, with None for the height and
            the width where they differ.
        splits: the images to train on, `"train"`, and to score, `"test"`.
    """

    name: str
    classes: int
    shape: tuple[int | None, int | None, int]
    splits: Mapping[str, Examples]

    @property
    def sizes(self) -> dict[str, int]:
        """Number of images of each split."""
        return {split: len(examples) for split, examples in self.splits.items()}

    def examples(self, split: str) -> Examples:
        """The images of `"train"` or `"test"`."""
        return self.splits[split]


def open_source(
    name: str, *, data_dir: Path | None = None, download: bool = False
) -> Source:
    """Opens a dataset, and reads its first and last images.

    Args:
        name: `"digits"`; the name of a TFDS dataset, such as `"cifar10"`; or a path to a
            folder of images, `train/<label>/<image>` and `test/<label>/<image>`. A path
            begins with `/`, `~` or `.`, unless such a folder is there.
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

        return digits()
    if name.startswith(("/", "~", ".")) or (name and Path(name, "train").is_dir()):
        from experiments.data.image_folder import image_folder

        return image_folder(name)
    from experiments.data.prepared import prepared

    return prepared(name, data_dir, download=download)
