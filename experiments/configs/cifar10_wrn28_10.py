"""CIFAR-10, WideResNet-28-10: the paper's classification experiment.

    python -m experiments.train --config cifar10_wrn28_10

The recipe of `cifar10_resnet18`, and a factor of 10: the paper's code builds the network
with a factor of 1, here `--model wrn28-1`.

Time: not yet measured; made for a GPU or TPU. Seen on a CPU: three steps of 16 images,
the scores and the report. Test accuracy: not yet run.
"""

from dataclasses import replace

from experiments.configs.cifar10_resnet18 import CONFIG as RESNET18

CONFIG = replace(RESNET18, model="wrn28-10")
