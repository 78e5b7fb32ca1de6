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
#: Output channels whose kernels are transformed together: 2 MB for 512 input channels.
_KERNELS_TOGETHER = 64


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
        convolved: Tensor = _Convolve.apply(images, self.convolution.weight.detach(), self.convolution.bias)
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
        responses = convolve(images, weight)
        return responses if bias is None else responses.add_(bias[:, None, None])

    @staticmethod
    def backward(ctx: Any, *outer: Any) -> Any:
        return convolve(outer[0], ctx.weight, adjoint=True), None, None


def convolve(images: Tensor, weight: Tensor, adjoint: bool = False) -> Tensor:
    """Convolution with zeros around the images.

    Parameters
    ----------
    images
        ``(N, C, H, W)`` in float32; fastest where the channels lie closest (channels_last).
    weight
        Kernels ``(O, C, 3, 3)``. They are transformed in each call, a few at a time: the transformed kernels of a layer
        take 16/9 of its memory, and those of a few stay in the processor's cache until they are used.
    adjoint
        Whether to apply the adjoint, which leads gradients back: a convolution with the kernels turned by 180 degrees
        and their channels swapped, from ``(N, O, H, W)`` to ``(N, C, H, W)``.

    Returns
    -------
    Tensor
        ``(N, O, H, W)``, with the channels closest.
    """
    n, channels, height, width = images.shape
    rows, columns = (height + 1) // 2, (width + 1) // 2
    padded = images.new_zeros(n, 2 * rows + 2, 2 * columns + 2, channels)
    padded[:, 1 : height + 1, 1 : width + 1] = images.permute(0, 2, 3, 1)
    # A kernel's transform has the first and last number swapped where the kernel is turned.
    order = (3, 1, 2, 0) if adjoint else (0, 1, 2, 3)
    tiles = _tiles(padded, order)
    del padded
    # Not made as a view: what comes after may be a ReLU in place, which a view from here would not bear.
    shape = (n, weight.shape[1 if adjoint else 0], 2 * rows, 2 * columns)
    responses = torch.empty(shape, memory_format=torch.channels_last)
    blocks = weight.split(_KERNELS_TOGETHER)
    if adjoint:
        parts = tiles.split(_KERNELS_TOGETHER, dim=2)
        products = torch.bmm(parts[0], _transformed(blocks[0]))
        for block, part in zip(blocks[1:], parts[1:], strict=True):
            products.baddbmm_(part, _transformed(block))
        _put_together(products.view(4, 4, n, rows, columns, -1), order, responses)
    else:
        for block, part in zip(blocks, responses.split(_KERNELS_TOGETHER, dim=1), strict=True):
            products = torch.bmm(tiles, _transformed(block).transpose(1, 2))
            _put_together(products.view(4, 4, n, rows, columns, -1), order, part)
    if (height, width) == responses.shape[2:]:
        return responses
    return responses[:, :, :height, :width].clone(memory_format=torch.channels_last)


def _transformed(weight: Tensor) -> Tensor:
    """Transforms ``(16, O, C)`` of kernels ``(O, C, 3, 3)``."""
    return (_KERNEL_2D @ weight.reshape(-1, 9).T).view(16, *weight.shape[:2])


#: What each of the four numbers of a transformed tile is made of along one axis: two places, and the second's sign.
_DIFFERENCES = ((0, 2, -1), (1, 2, 1), (2, 1, -1), (1, 3, -1))


def _tiles(padded: Tensor, order: tuple[int, ...]) -> Tensor:
    """Transformed tiles of 4 x 4 pixels, one every 2 pixels: ``(16, N * rows * columns, C)``.

    ``order`` says at which place along an axis of a tile each of the four numbers goes.
    """
    n, height, width, channels = padded.shape
    rows, columns = height // 2 - 1, width // 2 - 1
    tiles = padded.new_empty(4, 4, n, rows, columns, channels)
    lines = [padded[:, k : k + 2 * rows - 1 : 2] for k in range(4)]
    for row, (one, other, sign) in zip(order, _DIFFERENCES, strict=True):
        line = torch.add(lines[one], lines[other], alpha=sign)
        places = [line[:, :, k : k + 2 * columns - 1 : 2] for k in range(4)]
        for column, (first, second, second_sign) in zip(order, _DIFFERENCES, strict=True):
            torch.add(places[first], places[second], alpha=second_sign, out=tiles[row, column])
    return tiles.view(16, -1, channels)


def _put_together(products: Tensor, order: tuple[int, ...], images: Tensor) -> None:
    """Write output tiles of 2 x 2 pixels, from products ``(4, 4, N, rows, columns, O)``, to ``(N, O, H, W)``."""
    pixels = images.permute(0, 2, 3, 1)
    first, second, third, fourth = (products[k] for k in order)
    upper = (first + second).add_(third)
    lower = (second - third).sub_(fourth)
    for a, line in enumerate((upper, lower)):
        first, second, third, fourth = (line[k] for k in order)
        torch.add(first, second, out=pixels[:, a::2, 0::2]).add_(third)
        torch.sub(second, third, out=pixels[:, a::2, 1::2]).sub_(fourth)
