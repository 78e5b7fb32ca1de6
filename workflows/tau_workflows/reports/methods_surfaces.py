"""Sentences of the methods text on surfaces of the cortex."""

from __future__ import annotations

from tau_workflows.reports.bibliography import package_version


def surfaces_text(made: int, given: int, *, by_folds: bool) -> tuple[str, list[str]]:
    """Return the text on surfaces and its papers, from how many T1w images have surfaces made here and FreeSurfer's."""
    parts = []
    if made:
        parts.append(
            f"Surfaces of the cortex were made from the tissue with cat-surf {package_version('cat-surf')}: thickness "
            "and central surface by projection, registered to fsaverage by Spherical Demons."
        )
    if given:
        parts.append(f"For {given} T1w, surfaces and thickness are those of FreeSurfer.")
    if parts:
        parts.append(
            "Mean thickness is weighted by the areas of the vertices. SUVR was sampled at the central surface."
        )
    if by_folds:
        parts.append(
            "The labels of fsaverage named the cortex of the volume by the nearest vertex, except in the regions in "
            "which labels by the volume are more accurate."
        )
    return " ".join(parts), ["thickness by projection", "Spherical Demons"] if made else []
