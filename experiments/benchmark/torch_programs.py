"""The same in PyTorch, on the CPU or the first GPU: what a user would write there."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from experiments.benchmark.networks import Kernels
from experiments.benchmark.updates import LEARNING_RATE, MOMENTUM, STRENGTH

if TYPE_CHECKING:
    import torch

SGD = "PyTorch: SGD with momentum"


def adjacent(weight: "torch.Tensor") -> "torch.Tensor":
    """The adjacent pairs' loss of a kernel, by one grouped convolution."""
    import torch

    M, C, height, width = weight.shape
    correlations = torch.nn.functional.conv2d(
        weight[:-1].reshape(1, (M - 1) * C, height, width),
        weight[1:].reshape((M - 1) * C, 1, height, width),
        padding=(height - 1, width - 1),
        groups=(M - 1) * C,
    )
    return correlations.square().sum()


def ocnn(weight: "torch.Tensor") -> "torch.Tensor":
    """The penalty of convolutional orthogonality of a kernel."""
    import torch

    padding = (weight.shape[2] - 1, weight.shape[3] - 1)
    correlations = torch.nn.functional.conv2d(weight, weight, padding=padding)
    identity = torch.zeros_like(correlations)
    identity[:, :, padding[0], padding[1]] = torch.eye(len(weight), device=weight.device)
    return (correlations - identity).square().sum()


LOSSES = {SGD: None, "PyTorch: adjacent pairs": adjacent, "PyTorch: OCNN": ocnn}


def update(kernels: Kernels, loss: Callable | None) -> Callable[[], float]:
    """SGD with momentum on kernels, alone, or with a loss's gradient added to theirs."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    layout = [np.asarray(kernel).transpose(3, 2, 0, 1) for kernel in kernels.values()]
    weights = [torch.tensor(x, device=device).contiguous() for x in layout]
    for weight in weights:
        weight.requires_grad_()
        weight.grad = STRENGTH * weight.detach()
    optimizer = torch.optim.SGD(weights, LEARNING_RATE, MOMENTUM)

    def call() -> float:
        if loss is not None:
            total = torch.stack([loss(weight) for weight in weights]).sum()
            (STRENGTH * total).backward()  # to the gradient that is there
        optimizer.step()
        return weights[-1].flatten()[0].item()  # waits for the device

    return call
