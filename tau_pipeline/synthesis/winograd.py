"""Frozen 3 x 3 convolutions with 2.25 times fewer multiplications, for processors without a library that does it.

Winograd's minimal filtering (Lavin & Gray 2016, CVPR, arXiv 1509.09308, "F(2x2, 3x3)"): an output tile of 2 x 2 pixels
comes from an input tile of 4 x 4, and takes 16 multiplications for each pair of channels instead of 36. Tiles and
kernel are brought to a form in which a convolution is a product place by place, so that what is left for all channels
together is sixteen products of matrices. The factors of the transforms are 0, 1 and 1/2, so little precision is lost:
tests compare with the direct convolution.

GPU libraries choose this by themselves. On a CPU, oneDNN's direct convolution is at full speed with few channels, and
this is faster only where channels are many and images small.
"""

from __future__ import annotations

from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

#: Channels from which on the saved products outweigh the transforms, measured with AVX2 (docs/perceptual-loss.md).
_FEWEST_IN, _FEWEST_OUT = 128, 256
#: From the three taps of a kernel along one axis to the four numbers of its transform.
_KERNEL = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.0, 0.0, 1.0]])
#: The same for the nine taps along both axes: (16, 9).
_KERNEL_2D = torch.kron(_KERNEL, _KERNEL)


class WinogradConvolution(nn.Module):
    """A frozen convolution that is computed by Winograd's method on a CPU in float32, and as ever elsewhere.

    Parameters
    ----------
    convolution
        A convolution for which `is_suitable` is true; its parameters are shared, not copied.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.convolution = convolution

    def forward(self, images: Tensor) -> Tensor:
        """Responses ``(N, O, H, W)`` to images ``(N, C, H, W)``; the gradient goes to the images alone."""
        mixed = torch.is_autocast_enabled(images.device.type)
        if images.device.type != "cpu" or images.dtype != torch.float32 or mixed:
            responses: Tensor = self.convolution(images)
            return responses
        convolved: Tensor = _Convolve.apply(images, self.convolution.weight, self.convolution.bias)
        return convolved


def is_suitable(layer: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Whether a layer is a 3 x 3 convolution of the plain kind, with so many channels that this is faster."""
    return (
        isinstance(layer, nn.Conv2d)
        and layer.kernel_size == (3, 3)
        and (layer.stride, layer.padding, layer.dilation, layer.groups) == ((1, 1), (1, 1), (1, 1), 1)
        and layer.padding_mode == "zeros"
        and layer.in_channels >= _FEWEST_IN
        and layer.out_channels >= _FEWEST_OUT
    )


def with_winograd(features: nn.Module) -> nn.Module:
    """The same layers, with those convolutions that are suitable computed by Winograd's method.

    Only a plain sequence of layers is looked into; parameters are shared with ``features``.
    """
    if not isinstance(features, nn.Sequential) or not any(is_suitable(layer) for layer in features):
        return features
    return nn.Sequential(*(WinogradConvolution(layer) if is_suitable(layer) else layer for layer in features))


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.weight = weight
        responses = convolve(images, _transformed(weight).transpose(1, 2))
        return responses if bias is None else responses.add_(bias[:, None, None])

    @staticmethod
    def backward(ctx: Any, *outer: Any) -> Any:
        # The adjoint of a convolution is the one with its kernel turned by 180 degrees, and its channels swapped.
        return convolve(outer[0], _transformed(ctx.weight, turned=True)), None, None


def _transformed(weight: Tensor, turned: bool = False) -> Tensor:
    """Kernels ``(O, C, 3, 3)`` in the form for products, ``(16, O, C)``.

    Made anew in each call: this is a hundredth of the work, and kept, it would be twice the size of the weights.
    """
    out_channels, channels = weight.shape[:2]
    transform = _KERNEL_2D.flip(1) if turned else _KERNEL_2D
    return (transform @ weight.reshape(-1, 9).T).view(16, out_channels, channels)


def convolve(images: Tensor, kernels: Tensor) -> Tensor:
    """Convolution with zeros around the images.

    Parameters
    ----------
    images
        ``(N, C, H, W)`` in float32; fastest where the channels lie closest (channels_last).
    kernels
        Transformed kernels ``(16, C, O)``.

    Returns
    -------
    Tensor
        ``(N, O, H, W)``, with the channels closest.
    """
    n, channels, height, width = images.shape
    rows, columns = (height + 1) // 2, (width + 1) // 2
    padded = images.new_zeros(n, 2 * rows + 2, 2 * columns + 2, channels)
    padded[:, 1 : height + 1, 1 : width + 1] = images.permute(0, 2, 3, 1)
    products = torch.bmm(_tiles(padded, rows, columns).view(16, -1, channels), kernels)
    responses = _untiled(products.view(4, 4, n, rows, columns, -1))
    if responses.shape[2:] == (height, width):
        return responses
    return responses[:, :, :height, :width].clone(memory_format=torch.channels_last)


def _tiles(padded: Tensor, rows: int, columns: int) -> Tensor:
    """Input tiles of 4 x 4 in steps of 2, transformed: ``(4, 4, N, rows, columns, C)``."""
    n, _, _, channels = padded.shape
    tiles = padded.new_empty(4, 4, n, rows, columns, channels)
    lines = [padded[:, k : k + 2 * rows - 1 : 2] for k in range(4)]
    for a, (one, other, sign) in enumerate(_DIFFERENCES):
        line = torch.add(lines[one], lines[other], alpha=sign)
        places = [line[:, :, k : k + 2 * columns - 1 : 2] for k in range(4)]
        for b, (first, second, second_sign) in enumerate(_DIFFERENCES):
            torch.add(places[first], places[second], alpha=second_sign, out=tiles[a, b])
    return tiles


#: What each of the four numbers of a transformed tile is made of along one axis: two places, and the second's sign.
_DIFFERENCES = ((0, 2, -1), (1, 2, 1), (2, 1, -1), (1, 3, -1))


def _untiled(products: Tensor) -> Tensor:
    """Output tiles of 2 x 2 from products ``(4, 4, N, rows, columns, O)``, put together: ``(N, O, H, W)``."""
    _, _, n, rows, columns, channels = products.shape
    images = torch.empty((n, channels, 2 * rows, 2 * columns), memory_format=torch.channels_last, dtype=products.dtype)
    pixels = images.permute(0, 2, 3, 1)
    upper = (products[0] + products[1]).add_(products[2])
    lower = (products[1] - products[2]).sub_(products[3])
    for a, line in enumerate((upper, lower)):
        left, right = pixels[:, a::2, 0::2], pixels[:, a::2, 1::2]
        torch.add(line[0], line[1], out=left).add_(line[2])
        torch.sub(line[1], line[2], out=right).sub_(line[3])
    return images
