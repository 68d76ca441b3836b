"""The same in PyTorch: what a user would write there."""

from collections.abc import Callable

import numpy as np

from experiments.benchmark.networks import Kernels

ADJACENT, OCNN = "PyTorch: adjacent pairs", "PyTorch: OCNN"


def programs(kernels: Kernels) -> dict[str, Callable[[], tuple[float, list]]]:
    """Value and gradients on the CPU or the first GPU."""
    import torch
    from torch.nn import functional

    device = "cuda" if torch.cuda.is_available() else "cpu"
    weights = [
        torch.tensor(np.asarray(kernel).transpose(3, 2, 0, 1), device=device)
        .contiguous()
        .requires_grad_()
        for kernel in kernels.values()
    ]

    def adjacent(weight: torch.Tensor) -> torch.Tensor:
        M, C, height, width = weight.shape
        correlations = functional.conv2d(
            weight[:-1].reshape(1, (M - 1) * C, height, width),
            weight[1:].reshape((M - 1) * C, 1, height, width),
            padding=(height - 1, width - 1),
            groups=(M - 1) * C,
        )
        return correlations.square().sum()

    def ocnn(weight: torch.Tensor) -> torch.Tensor:
        M, _, height, width = weight.shape
        correlations = functional.conv2d(weight, weight, padding=(height - 1, width - 1))
        identity = torch.zeros_like(correlations)
        identity[:, :, height - 1, width - 1] = torch.eye(M, device=device)
        return (correlations - identity).square().sum()

    def value_and_gradient(loss: Callable) -> Callable[[], tuple[float, list]]:
        def call() -> tuple[float, list]:
            for weight in weights:
                weight.grad = None
            value = torch.stack([loss(weight) for weight in weights]).sum()
            value.backward()
            return value.item(), [weight.grad for weight in weights]  # waits

        return call

    return {ADJACENT: value_and_gradient(adjacent), OCNN: value_and_gradient(ocnn)}
