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

import math
import threading
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

#: Channels from which on the saved products outweigh the transforms, measured with AVX2.
_FEWEST_IN, _FEWEST_OUT = 128, 256
#: From the three taps of a kernel along one axis to the four numbers of its transform.
_KERNEL = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.0, 0.0, 1.0]])
#: The same for the nine taps along both axes: (16, 9).
_KERNEL_2D = torch.kron(_KERNEL, _KERNEL)
#: Output channels whose kernels are transformed together: 2 MB for 512 input channels.
_KERNELS_TOGETHER = 64
#: Pixels of images from which on transforming the kernels is little work beside the rest.
_FEW_PIXELS = 400


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
        """Return responses ``(N, O, H, W)`` to images ``(N, C, H, W)``; only images get a gradient."""
        responses: Tensor
        if not _is_ours(images):
            responses = self.convolution(images)
        else:
            responses, _ = _Convolve.apply(images, images[:0], self.convolution.weight.detach(), self.convolution.bias)
        return responses

    def of_both(self, images: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
        """Return responses to images, and to others of that size without a gradient; kernels are transformed once."""
        if not _is_ours(images) or images[:, 0].numel() > _FEW_PIXELS:
            with torch.no_grad():
                expected = self(others)
            return self(images), expected
        both: tuple[Tensor, Tensor] = _Convolve.apply(
            images, others, self.convolution.weight.detach(), self.convolution.bias
        )
        return both


def _is_ours(images: Tensor) -> bool:
    kind = images.device.type
    return kind == "cpu" and images.dtype == torch.float32 and not torch.is_autocast_enabled(kind)


def is_suitable(layer: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Return whether a layer is a plain 3 x 3 convolution with enough channels for this to be faster."""
    return (
        isinstance(layer, nn.Conv2d)
        and layer.kernel_size == (3, 3)
        and (layer.stride, layer.padding, layer.dilation, layer.groups) == ((1, 1), (1, 1), (1, 1), 1)
        and layer.padding_mode == "zeros"
        and layer.in_channels >= _FEWEST_IN
        and layer.out_channels >= _FEWEST_OUT
    )


def with_winograd(features: nn.Module) -> nn.Module:
    """Return the same layers, with suitable convolutions computed by Winograd's method.

    Only a plain sequence of layers is looked into; parameters are shared with ``features``.
    """
    if not isinstance(features, nn.Sequential) or not any(is_suitable(layer) for layer in features):
        return features
    return nn.Sequential(*(WinogradConvolution(layer) if is_suitable(layer) else layer for layer in features))


def responses_to_both(features: nn.Module, images: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Return a network's responses to images, and to others of the same size without a gradient.

    Up to the first layer that gains by it the others go first, so that memory holds only one of the two; then both go
    from layer to layer together.
    """
    layers = list(features) if isinstance(features, nn.Sequential) else [features]
    n_alone = next((k for k, layer in enumerate(layers) if isinstance(layer, WinogradConvolution)), len(layers))
    with torch.no_grad():
        for layer in layers[:n_alone]:
            others = layer(others)
    for layer in layers[:n_alone]:
        images = layer(images)
    for layer in layers[n_alone:]:
        if isinstance(layer, WinogradConvolution):
            images, others = layer.of_both(images, others)
            continue
        images = layer(images)
        with torch.no_grad():
            others = layer(others)
    return images, others


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, others: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        ctx.weight = weight
        both = convolve(torch.cat([images, others]) if len(others) else images, weight)
        if bias is not None:
            both.add_(bias[:, None, None])
        if not len(others):
            return both, others
        # Not two views of one tensor: what comes after may be a ReLU in place, which such views would not bear.
        responses, expected = both[: len(images)].clone(memory_format=torch.channels_last), both[len(images) :]
        ctx.mark_non_differentiable(expected)
        return responses, expected

    @staticmethod
    def backward(ctx: Any, *outer: Any) -> Any:
        return convolve(outer[0], ctx.weight, adjoint=True), None, None, None


def convolve(images: Tensor, weight: Tensor, adjoint: bool = False) -> Tensor:
    """Convolve images with zeros around them.

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
    padded = _room.of("padded", n, 2 * rows + 2, 2 * columns + 2, channels).zero_()
    padded[:, 1 : height + 1, 1 : width + 1] = images.permute(0, 2, 3, 1)
    # A kernel's transform has the first and last number swapped where the kernel is turned.
    order = (3, 1, 2, 0) if adjoint else (0, 1, 2, 3)
    tiles = _tiles(padded, order)
    # Not made as a view: what comes after may be a ReLU in place, which a view from here would not bear.
    shape = (n, weight.shape[1 if adjoint else 0], 2 * rows, 2 * columns)
    responses = torch.empty(shape, memory_format=torch.channels_last)
    blocks = weight.split(_KERNELS_TOGETHER)
    if adjoint:
        products = _room.of("products", 16, tiles.shape[1], weight.shape[1])
        for k, (block, part) in enumerate(zip(blocks, tiles.split(_KERNELS_TOGETHER, dim=2), strict=True)):
            torch.baddbmm(products, part, _transformed(block), beta=min(k, 1), out=products)
        _put_together(products.view(4, 4, n, rows, columns, -1), order, responses)
    else:
        for block, part in zip(blocks, responses.split(_KERNELS_TOGETHER, dim=1), strict=True):
            products = _room.of("products", 16, tiles.shape[1], len(block))
            torch.bmm(tiles, _transformed(block).transpose(1, 2), out=products)
            _put_together(products.view(4, 4, n, rows, columns, -1), order, part)
    if (height, width) == responses.shape[2:]:
        return responses
    return responses[:, :, :height, :width].clone(memory_format=torch.channels_last)


def _transformed(weight: Tensor) -> Tensor:
    """Return transforms ``(16, O, C)`` of kernels ``(O, C, 3, 3)``, until the next call."""
    taps = weight.reshape(-1, 9).T
    transforms = _room.of("transforms", 16, taps.shape[1])
    torch.mm(_KERNEL_2D, taps, out=transforms)
    return transforms.view(16, *weight.shape[:2])


class _Room(threading.local):
    """Memory of a thread for what lives within one convolution: fresh memory costs as much time as filling it."""

    def __init__(self) -> None:
        self.buffers: dict[str, Tensor] = {}

    def of(self, name: str, *shape: int) -> Tensor:
        """Return a tensor of float32 of any content, which the next call with the same name uses again."""
        n = math.prod(shape)
        if name not in self.buffers or len(self.buffers[name]) < n:
            # What is made in inference mode could not be written to outside of it.
            with torch.inference_mode(False):
                self.buffers[name] = torch.empty(n)
        return self.buffers[name][:n].view(shape)


_room = _Room()


#: What each of the four numbers of a transformed tile is made of along one axis: two places, and the second's sign.
_DIFFERENCES = ((0, 2, -1), (1, 2, 1), (2, 1, -1), (1, 3, -1))


def _tiles(padded: Tensor, order: tuple[int, ...]) -> Tensor:
    """Return transformed tiles of 4 x 4 pixels, one every 2 pixels: ``(16, N * rows * columns, C)``.

    ``order`` says at which place along an axis of a tile each of the four numbers goes.
    """
    n, height, width, channels = padded.shape
    rows, columns = height // 2 - 1, width // 2 - 1
    tiles = _room.of("tiles", 4, 4, n, rows, columns, channels)
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
