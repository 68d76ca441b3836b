"""The conv kernels of well-known networks: shapes `(*window, C, M)`, no more.

ResNet: He et al., arXiv 1512.03385; VGG: Simonyan and Zisserman, arXiv 1409.1556;
WideResNet: Zagoruyko and Komodakis, arXiv 1605.07146.
"""

from collections.abc import Callable, Sequence

import jax
import numpy as np

Shape = tuple[int, ...]
Kernels = dict[str, jax.Array]


def resnet18() -> list[Shape]:
    """In the form for CIFAR-10: a 3x3 stem."""
    shapes: list[Shape] = [(3, 3, 3, 64)]
    C = 64
    for M in (64, 128, 256, 512):
        shapes += [(3, 3, C, M), (3, 3, M, M)]
        if C != M:
            shapes.append((1, 1, C, M))
        shapes += [(3, 3, M, M)] * 2
        C = M
    return shapes


def resnet50() -> list[Shape]:
    """In the form for ImageNet: a 7x7 stem."""
    shapes: list[Shape] = [(7, 7, 3, 64)]
    C = 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            M = 4 * width
            shapes += [(1, 1, C, width), (3, 3, width, width), (1, 1, width, M)]
            if block == 0:
                shapes.append((1, 1, C, M))
            C = M
    return shapes


def vgg19() -> list[Shape]:
    """Sixteen 3x3 convs."""
    shapes: list[Shape] = []
    C = 3
    for M, layers in ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4)):
        for _ in range(layers):
            shapes.append((3, 3, C, M))
            C = M
    return shapes


def wide_resnet28_10() -> list[Shape]:
    """Three stages of four blocks, ten times as wide as a ResNet's."""
    shapes: list[Shape] = [(3, 3, 3, 16)]
    C = 16
    for M in (160, 320, 640):
        for block in range(4):
            shapes += [(3, 3, C, M), (3, 3, M, M)]
            if block == 0:
                shapes.append((1, 1, C, M))
            C = M
    return shapes


NETWORKS: dict[str, Callable[[], list[Shape]]] = {
    "resnet18": resnet18,
    "resnet50": resnet50,
    "vgg19": vgg19,
    "wrn28-10": wide_resnet28_10,
}


def random_kernels(shapes: Sequence[Shape]) -> Kernels:
    """Kernels as an initializer draws them: of variance one over the fan-in."""
    random = np.random.default_rng(0)
    return {
        f"{layer:02d}/kernel": jax.device_put(
            (random.standard_normal(shape) / np.sqrt(np.prod(shape[:-1]))).astype("f4")
        )
        for layer, shape in enumerate(shapes)
    }


def small(kernels: Kernels, most: int) -> Kernels:
    """The kernels of 3x3 windows with so many weights at most."""
    return {
        path: kernel
        for path, kernel in kernels.items()
        if kernel.shape[:-2] == (3, 3) and kernel.size <= most
    }
