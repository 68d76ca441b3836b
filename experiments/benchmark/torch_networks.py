"""The shallow CNN and ResNet-18 in PyTorch, and steps of their training."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from experiments.benchmark.training_step import (
    CLASSES,
    LEARNING_RATE,
    MOMENTUM,
    SIZE,
    steps_a_call,
)

if TYPE_CHECKING:
    import torch

TORCH, CHANNELS_LAST = "PyTorch", "PyTorch, channels last"


def programs(name: str, batch_size: int) -> dict[str, Callable[[], float]]:
    """The steps of `training_step` on the CPU or the first GPU."""
    import torch

    formats = {TORCH: torch.contiguous_format, CHANNELS_LAST: torch.channels_last}
    images = torch.randn(2, batch_size, 3, SIZE, SIZE)
    labels = torch.randint(CLASSES, (2, batch_size))
    return {
        program: steps(network(name), images, labels, memory_format)
        for program, memory_format in formats.items()
    }


def steps(
    model: Any, images: "torch.Tensor", labels: "torch.Tensor", memory_format: Any
) -> Callable[[], float]:
    """Trains a network some steps further at each call, on two batches in turn."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cudnn.benchmark = True
    model = model.to(device=device, memory_format=memory_format)
    batches = [
        batch.to(device).contiguous(memory_format=memory_format) for batch in images
    ]
    labels = labels.to(device)
    optimizer = torch.optim.SGD(model.parameters(), LEARNING_RATE, MOMENTUM)

    def call() -> float:
        for number in range(steps_a_call()):
            optimizer.zero_grad()
            with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
                logits = model(batches[number % 2])
                loss = torch.nn.functional.cross_entropy(logits, labels[number % 2])
            loss.backward()
            optimizer.step()
        return loss.item()  # waits for the device

    return call


def network(name: str, width: float = 1.0) -> "torch.nn.Module":
    """A network with the parameters of that name in `experiments.models`, in their order.

    Args:
        name: cnn or resnet18.
        width: multiplies the channels.
    """
    return {"cnn": cnn, "resnet18": resnet18}[name](
        [int(width * channels) for channels in (32, 64, 128, 256, 512)]
    )


def cnn(widths: Sequence[int]) -> "torch.nn.Module":
    """The shallow CNN, for images of 32x32."""
    from torch import nn

    layers: list[nn.Module] = []
    for C, M in zip((3, *widths), widths[:3], strict=False):
        layers += [*conv(C, M, 3), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(4 * 4 * widths[2], CLASSES))


def resnet18(widths: Sequence[int]) -> "torch.nn.Module":
    """ResNet-18 in the form for CIFAR-10."""
    from torch import nn

    class Block(nn.Module):
        def __init__(self, C: int, M: int, stride: int) -> None:
            super().__init__()
            self.maps = nn.Sequential(*conv(C, M, 3, stride), nn.ReLU(), *conv(M, M, 3))
            self.shortcut = nn.Sequential(*(conv(C, M, 1, stride) if C != M else []))

        def forward(self, x: "torch.Tensor") -> "torch.Tensor":
            return nn.functional.relu(self.maps(x) + self.shortcut(x))

    C = widths[1]
    layers = [*conv(3, C, 3), nn.ReLU()]
    for stage, M in enumerate(widths[1:]):
        layers += [Block(C, M, 2 if stage else 1), Block(M, M, 1)]
        C = M
    pool = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, *pool, nn.Linear(C, CLASSES))


def conv(C: int, M: int, window: int, stride: int = 1) -> "list[torch.nn.Module]":
    """A convolution and its batch normalisation."""
    from torch import nn

    return [
        nn.Conv2d(C, M, window, stride, padding=window // 2, bias=False),
        nn.BatchNorm2d(M),
    ]
