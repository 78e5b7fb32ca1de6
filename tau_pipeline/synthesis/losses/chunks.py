"""Number of slices that pass through a feature network together: as many as memory and processor allow."""

from __future__ import annotations

from typing import Any

import psutil
import torch
from torch import Tensor, nn

#: Slices that a GPU takes at a time, at most.
_LARGEST_CHUNK = 64
#: Pixels that each thread of a CPU takes at a time: an axial slice at 2 mm. With fewer, most of the time goes into
#: reading the weights again; more costs memory and saves nothing.
_PIXELS_OF_A_THREAD = 96 * 112


class SliceBudget:
    """Number of slices whose responses fit into memory together.

    On a GPU up to 64. On a CPU one for each of torch's threads, or as many small ones as make up 96 x 112 pixels: each
    thread takes different slices, which keeps all of them at work and gives the same values to the last bit for any
    number of threads.

    Parameters
    ----------
    features
        The feature network.
    """

    def __init__(self, features: nn.Module) -> None:
        self._features = features
        self._bytes_per_slice: dict[tuple[Any, ...], int] = {}

    def slices_together(self, image: Tensor) -> int:
        """Return how many slices to take together, so that their responses use at most a quarter of the free memory.

        Parameters
        ----------
        image
            One slice ``(1, 1, H, W)`` on its device.
        """
        key = (*image.shape, image.dtype, image.device)
        if key not in self._bytes_per_slice:
            self._bytes_per_slice[key] = _bytes_of_responses(self._features, image)
        fitting = _free_bytes(image.device) // 4 // self._bytes_per_slice[key]
        if image.device.type != "cpu":
            return max(1, min(fitting, _LARGEST_CHUNK))
        threads = torch.get_num_threads()
        of_a_thread = max(1, _PIXELS_OF_A_THREAD // image[0, 0].numel())
        return threads * of_a_thread if threads * of_a_thread <= fitting else max(1, min(fitting, threads))


@torch.no_grad()
def _bytes_of_responses(features: nn.Module, image: Tensor) -> int:
    """Return the memory of all layers' responses to one image and of their gradients: twice their sum."""
    sizes: list[int] = []

    def note(_module: nn.Module, _inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            sizes.append(output.numel() * output.element_size())

    layers = [layer for layer in features.modules() if not list(layer.children())]
    handles = [layer.register_forward_hook(note) for layer in layers]
    try:
        features(image.to(next(features.parameters()).dtype))
    finally:
        for handle in handles:
            handle.remove()
    return 2 * sum(sizes)


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0] + unused)
    return int(psutil.virtual_memory().available)
