"""CIFAR-10, VGG-19 with batch normalisation: the paper's classification experiment.

    python -m experiments.train --config cifar10_vgg19

The recipe of `cifar10_resnet18`.

Time: not yet measured; made for a GPU or TPU. Test accuracy: not yet run.
"""

from dataclasses import replace

from experiments.configs.cifar10_resnet18 import CONFIG as RESNET18

CONFIG = replace(RESNET18, model="vgg19")
