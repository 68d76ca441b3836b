"""Handwritten digits, the small CNN: no download, to see that everything works.

    python -m experiments.train --config digits

Time: half a minute on 2 CPU cores. Test accuracy: not yet run.
"""

from experiments.train.config import Config

CONFIG = Config(seeds=3)
