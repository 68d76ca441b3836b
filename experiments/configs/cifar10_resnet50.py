"""CIFAR-10, ResNet-50 with a 3x3 stem: the paper's classification experiment.

    python -m experiments.train --config cifar10_resnet50

From the paper's code (arXiv 2411.03226): batches of 128, SGD with momentum 0.9, learning
rate 0.1, divided by 10 at epochs 100 and 150, no weight decay, no augmentation, three
repetitions (`--seeds 3`). Its other rate: `--learning-rate 0.01 --schedule constant`.
Methods and activation as in `cifar10_cnn`. Ours: 200 epochs, and the validation images
and normalisation of `cifar10_cnn`.

Time: not yet measured; made for a GPU or TPU. Seen on a CPU: three steps of 16 images,
the scores and the report. Test accuracy: not yet run.
"""

from experiments.options import Config

CONFIG = Config(
    dataset="cifar10",
    model="resnet50",
    epochs=200,
    batch_size=128,
    learning_rate=0.1,
    schedule="step",
    milestones=(100, 150),
)
