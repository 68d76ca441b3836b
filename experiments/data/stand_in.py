"""Makes images of ImageNet's shape, to try what streams images.

    python -m experiments.data.stand_in FOLDER

writes `FOLDER/train/<label>/<number>.jpg`, and `test` alike: photographs are stood in for
by clouds of two colours, which differ between labels, under noise. The sizes are those of
photographs on the web. The same options make the same images.
"""

import colorsys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import PIL.Image
import rich.progress
import tyro
from rich.console import Console

from experiments import command_line
from experiments.command_line import check_least

COMMAND = "python -m experiments.data.stand_in"
QUALITY = 90


@dataclass(frozen=True)
class Config:
    """How many images, and where they go.

    Attributes:
        folder: A new folder.
        train: Images to train on.
        test: Images to score.
        classes: Number of labels, which have equally many images.
        shortest: Pixels of the shortest side.
        longest: Pixels of the longest side.
        seed: Of the random draw.
    """

    folder: Annotated[Path, tyro.conf.Positional] = Path("stand-in")
    train: int = 300
    test: int = 100
    classes: int = 10
    shortest: int = 250
    longest: int = 500
    seed: int = 0

    def check(self) -> None:
        """Raises a ValueError that names the first option out of range."""
        check_least(self, train=self.classes, test=self.classes, classes=2)
        check_least(self, shortest=8, longest=self.shortest, seed=0)
        if self.folder.exists() and (
            not self.folder.is_dir() or any(self.folder.iterdir())
        ):
            raise ValueError(f"{self.folder} is not empty; expected a new folder")


def main(config: Config) -> None:
    """Makes the folder, complete or not at all."""
    config.check()
    parent = config.folder.absolute().parent
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent, prefix=".stand-in-") as scratch:
        root = Path(scratch, "images")
        counts = {"train": config.train, "test": config.test}
        jobs = [(split, i) for split, count in counts.items() for i in range(count)]
        console = Console(stderr=True)
        for split, number in rich.progress.track(jobs, "images", console=console):
            label = number % config.classes
            folder = root / split / f"class-{label:02d}"
            folder.mkdir(parents=True, exist_ok=True)
            generator = np.random.default_rng((config.seed, split == "test", number))
            width, height = generator.integers(config.shortest, config.longest + 1, 2)
            image = clouds(generator, width, height, label / config.classes)
            image.save(folder / f"{number:05d}.jpg", quality=QUALITY)
        root.replace(config.folder)
    print(f"{config.train} + {config.test} images: {config.folder}")


def clouds(
    generator: np.random.Generator, width: int, height: int, hue: float
) -> PIL.Image.Image:
    """Clouds of a hue, before a sky of another."""
    cells = generator.integers(2, 9, 2)
    coarse = PIL.Image.fromarray(generator.uniform(size=cells).astype(np.float32))
    smooth = coarse.resize((width, height), PIL.Image.Resampling.BICUBIC)
    share = np.asarray(smooth)[..., None]
    cloud, sky = (
        np.array(colorsys.hsv_to_rgb(h % 1, 0.6, generator.uniform(0.4, 0.9)))
        for h in (hue, hue + 0.2)
    )
    noise = generator.normal(scale=0.1, size=(height, width, 3))
    pixels = share * cloud + (1 - share) * sky + noise
    return PIL.Image.fromarray((255 * pixels).clip(0, 255).astype(np.uint8))


if __name__ == "__main__":
    DESCRIPTION = __doc__ or ""
    code = command_line.run(main, Config, prog=COMMAND, description=DESCRIPTION)
    command_line.leave(code)
