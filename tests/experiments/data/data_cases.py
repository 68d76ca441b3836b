"""Small datasets: made by TFDS without TensorFlow, and folders of image files."""

import io

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

SHAPE = (8, 9, 3)


def examples(count, channels=3, seed=0):
    """Noise, and labels 0, 1, 2, 0 and so on."""
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 256, (count, *SHAPE[:2], channels), np.uint8)
    return images, np.arange(count) % 3


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    Image.fromarray(image.squeeze()).save(file, format=kind, **options)
    return file.getvalue()


def as_records(images, labels):
    return [
        {"image": encoded(image), "label": int(label)}
        for image, label in zip(images, labels, strict=True)
    ]


def features(shape=SHAPE, **image):
    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=shape, **image),
            "label": tfds.features.ClassLabel(num_classes=3),
        }
    )


def prepare(folder, splits, kinds=None, name="tiny"):
    """Writes a TFDS dataset."""
    path = folder / name / "1.0.0"
    path.mkdir(parents=True)
    identity = tfds.core.DatasetIdentity(
        name=name,
        version=tfds.core.Version("1.0.0"),
        data_dir=str(path),
        module_name=name,
    )
    writer = tfds.core.SequentialWriter(
        tfds.core.DatasetInfo(builder=identity, features=kinds or features()),
        max_examples_per_shard=1000,
        file_format=tfds.core.FileFormat.ARRAY_RECORD,
    )
    writer.initialize_splits(list(splits))
    writer.add_examples(splits)
    writer.close_all()


def write_folder(root, files):
    """Writes image files: `{"train/label/name.png": image or content}`."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, np.ndarray):
            content = encoded(content)
        path.write_bytes(content)
    return root
