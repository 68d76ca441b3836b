r"""ImageNet, ResNet-50: as the paper's ImageNet script trains it, from disk.

    python -m experiments.train --config imagenet_resnet50

From the paper's code (arXiv 2411.03226): batches of 128, SGD with momentum 0.9 at a
constant learning rate of 0.1, 20 epochs, no weight decay, no augmentation. Ours: images
cut to 224x224, and 1 % of them, some 12,800, held out to choose the epoch by;
`--validation 0` holds out none. What is usual instead: `--augment --schedule cosine
--weight-decay 1e-4 --epochs 90`, and `--dtype bfloat16` on a GPU or TPU.

ImageNet must be prepared for TFDS (imagenet2012), or be a folder with `train/<label>/`
and `test/<label>/`: `--dataset FOLDER`. To see it work without it, in some minutes on 2
CPU cores:

    python -m experiments.train --config imagenet_resnet50 \
        --dataset experiments.data.stand_in:photographs --train-size 64 \
        --validation 0.1 --image-size 64 --batch-size 16 --epochs 1

Time: not yet measured; made for a GPU or TPU. Test accuracy: not yet run.
"""

from experiments.options import Config

CONFIG = Config(
    dataset="imagenet2012",
    image_size=224,
    validation=0.01,
    model="resnet50-imagenet",
    epochs=20,
    batch_size=128,
    learning_rate=0.1,
    schedule="constant",
)
