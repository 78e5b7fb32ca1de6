"""The figure of a synthetic SUVR map: T1w, measured, synthetic and error in the same slices, with SSIM and PSNR."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tau_pipeline.figures.participant import SIDE_IN, WIDTH_IN, synthetic_figure
from tau_pipeline.imaging.volume import Volume

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def agreement_figure(
    synthetic: Volume, t1w: Volume, mask: Volume, measured: Volume | None, reference: str, said: str = ""
) -> Figure:
    """Draw `tau_pipeline.figures.participant.synthetic_figure` with a line of text at the top right.

    Parameters
    ----------
    synthetic, t1w, mask, measured, reference
        As there; ``measured`` is None where there is no PET.
    said
        What the line says: SSIM and PSNR with their mask and data range (`figures_of_merit`).

    Raises
    ------
    GridMismatchError, ImageError
        As there.
    """
    figure = synthetic_figure(synthetic, t1w, mask, measured=measured, reference=reference)
    x, y = 1 - SIDE_IN / WIDTH_IN, 1 - 0.13 / figure.get_figheight()
    figure.text(x, y, said, ha="right", va="top", fontsize=10, parse_math=False)
    return figure


def figures_of_merit(ssim: float, psnr: float, data_range: float) -> str:
    """SSIM and PSNR in words, with what they depend on.

    >>> figures_of_merit(0.9123, 28.04, 3.0)
    'SSIM 0.912, PSNR 28.0 dB (volume, in the brain; data range 3 SUVR)'
    """
    return f"SSIM {ssim:.3f}, PSNR {psnr:.1f} dB (volume, in the brain; data range {data_range:g} SUVR)"
