"""CIFAR-10, ResNet-18 with a 3x3 stem: the paper's classification experiment.

    python -m experiments.train --config cifar10_resnet18

From the paper's code (arXiv 2411.03226): batches of 128, SGD with momentum 0.9, learning
rate 0.1, divided by 10 at epochs 100 and 150, no weight decay, no augmentation, three
repetitions (`--seeds 3`). Its other rate: `--learning-rate 0.01 --schedule constant`.
Methods and activation as in `cifar10_cnn`. Ours: 200 epochs, and the validation images
and normalisation of `cifar10_cnn`.

Time: on 2 CPU cores about 2.3 days, by the benchmark's 46 images a second (2.5 GB of
memory, by one epoch of 512 made-up images of that size); on a GPU not yet run.
Test accuracy: not yet run.
"""

from experiments.options import Config

CONFIG = Config(
    dataset="cifar10",
    model="resnet18",
    epochs=200,
    batch_size=128,
    learning_rate=0.1,
    schedule="step",
    milestones=(100, 150),
)
