"""A made-up run folder, as `experiments.train` leaves it."""

import numpy as np

from experiments.measurement import Layers
from experiments.record import Epoch, Outcome
from experiments.run_folder import write_json

OPTIONS = {
    "dataset": "cifar10",
    "train_size": None,
    "validation": 0.1,
    "augment": True,
    "model": "resnet18",
    "method": "scale-free-init",
    "seeds": 3,
    "epochs": 30,
    "milestones": [100, 150],
    "learning_rate": 0.05,
}
SHAPES = {
    "Conv_0/kernel": (3, 3, 3, 32),
    "Block_0/Conv_0/kernel": (3, 3, 32, 64),
    "Block_0/Conv_1/kernel": (1, 1, 64, 128),
}


def history(seeds=3, epochs=30, *, validation=True, diverged_at=None):
    """Curves that fall and rise as such curves do; with a row before training."""
    generator = np.random.default_rng(0)

    def noisy(number, value, known=True):
        values = value * (1 + 0.02 * generator.normal(size=seeds))
        gone = [number >= (diverged_at or {}).get(i, np.inf) for i in range(seeds)]
        return np.where(gone, np.nan, values) if known else np.full(seeds, np.nan)

    return [
        Epoch(
            epoch=number,
            seconds=12.5 * (number > 0),
            images_per_second=10800.0 if number else np.nan,
            learning_rate=0.05 * float(np.cos(np.pi * number / max(epochs, 1) / 2)),
            loss=noisy(number, 0.1 + 2.2 * np.exp(-number), number > 0),
            train_accuracy=noisy(number, 99 - 60 * np.exp(-number), number > 0),
            accuracy=noisy(number, 93 - 83 * np.exp(-number), validation),
            paper_loss=noisy(number, 719 * np.exp(-number) + 5),
            scale_free_loss=noisy(number, 2.5),
            norm=noisy(number, 15 + 3 * number),
        )
        for number in range(epochs + 1)
    ]


def layers(shapes, seeds, low, effective=False):
    generator = np.random.default_rng(1)
    numbers = low + 0.3 * generator.random((3, seeds, len(shapes)))
    scale_free, before, after = numbers
    norm = np.tile(
        [np.sqrt(np.prod(shape)) / 10 for shape in shapes.values()], (seeds, 1)
    )
    channels = np.array([shape[-1] for shape in shapes.values()])
    return Layers(
        names=list(shapes),
        shapes=[list(shape) for shape in shapes.values()],
        norm=norm,
        paper_loss=norm**4 / 30,
        scale_free_loss=scale_free,
        before=before,
        after=after,
        before_centered=before / 2,
        after_centered=after / 2,
        effective_before=before * channels if effective else None,
        effective_after=after * channels if effective else None,
    )


def outcome(seeds=3, shapes=SHAPES, diverged_at=None, effective=False, better=(0, 0, 0)):
    gone = np.array([float((diverged_at or {}).get(seed, 0)) for seed in range(seeds)])
    return Outcome(
        parameters=11_173_962,
        scored="test",
        images=10_000,
        accuracy=93.0 + 0.5 * np.arange(seeds) + np.array(better, float)[:seeds],
        chosen_epoch=28.0 - np.arange(seeds) % 3,
        diverged_at=gone,
        seconds=4000.0,
        start=layers(shapes, seeds, 0.5, effective),
        end=layers(shapes, seeds, 0.2, effective),
    )


def kernels(shapes=SHAPES):
    generator = np.random.default_rng(2)
    return {
        f"{when}/{name}": generator.normal(size=shape).astype(np.float32)
        for when in ("start", "end")
        for name, shape in shapes.items()
    }


def make_run(
    folder,
    *,
    seeds=3,
    epochs=30,
    shapes=SHAPES,
    validation=True,
    diverged_at=None,
    method="scale-free-init",
    **about,
):
    """Writes a finished run into `folder`; `about` is its outcome."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "options": {**OPTIONS, "method": method, "seeds": seeds, "epochs": epochs},
        "command": "python -m experiments.train --config cifar10-resnet18",
        "device": "cpu",
        "versions": {"python": "3.11.2", "jax": "0.10.2"},
    }
    write_json(folder / "config.json", config)
    curve = history(seeds, epochs, validation=validation, diverged_at=diverged_at)
    write_json(folder / "history.json", curve)
    write_json(folder / "results.json", outcome(seeds, shapes, diverged_at, **about))
    with (folder / "kernels.npz").open("wb") as file:
        np.savez(file, **kernels(shapes))
    return folder
