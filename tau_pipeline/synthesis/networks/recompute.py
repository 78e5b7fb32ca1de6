"""Activation checkpointing: a block's activations are computed again in the backward pass instead of being kept.

Memory for the activations of a whole network becomes memory for those between its blocks, at the price of a second
forward pass (Chen et al. 2016, arXiv 1604.06174).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

from monai.networks.blocks import Convolution, ResidualUnit, TransformerBlock, UnetBasicBlock, UnetResBlock
from monai.networks.nets.swin_unetr import SwinTransformerBlock
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

#: MONAI's blocks of convolutions or attention; what the networks here are made of.
_BLOCKS = (Convolution, ResidualUnit, TransformerBlock, UnetBasicBlock, UnetResBlock, SwinTransformerBlock)


def checkpoint_activations(network: nn.Module) -> int:
    """Let the outermost blocks of a network compute their activations again instead of keeping them.

    A block with batch normalization is left alone: its running statistics would be updated twice. Dropout draws the
    same again. The state dict stays as it is.

    Returns
    -------
    int
        How many blocks were changed.
    """
    found = list(_outermost_blocks(network))
    for block in found:
        block.forward = _recomputed(block, block.forward)
    return len(found)


def _outermost_blocks(module: nn.Module) -> Iterator[nn.Module]:
    if isinstance(module, _BLOCKS):
        if not any(isinstance(part, _BatchNorm) for part in module.modules()):
            yield module
        return
    for child in module.children():
        yield from _outermost_blocks(child)


def _recomputed(block: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(forward)
    def run(*inputs: Any, **named: Any) -> Any:
        if not block.training:
            return forward(*inputs, **named)
        return checkpoint(forward, *inputs, use_reentrant=False, **named)

    return run
