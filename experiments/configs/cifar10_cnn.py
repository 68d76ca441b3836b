"""CIFAR-10, the shallow CNN: the paper's classification experiment at its smallest.

    python -m experiments.train --config cifar10_cnn

From the paper (arXiv 2411.03226): batches of 128, SGD with momentum 0.9 at a constant
learning rate of 0.01, no weight decay, no augmentation, three repetitions. Its methods:
`--method paper-init` or `paper-reg`, with `--pairs adjacent` for the pairs that its code
takes, and `--activation elu` for its other activation. Ours: 200 epochs, the widths 32,
64 and 128, images normalised by their own means and deviations, and 5,000 images held out
to choose the epoch by. The paper holds out none: `--validation 0` trains on all 50,000
and scores the network of the last epoch.

Time: on 2 CPU cores about 6 hours, by the benchmark's 1,270 images a second; on a GPU
not yet run. Test accuracy: not yet run to the end. Early, with `--train-size 5000
--epochs 5`: 53.98 ± 3.15 % (95 % interval over the 3 seeds).
"""

from experiments.options import Config

CONFIG = Config(
    dataset="cifar10",
    model="cnn",
    seeds=3,
    epochs=200,
    batch_size=128,
    learning_rate=0.01,
    schedule="constant",
)
