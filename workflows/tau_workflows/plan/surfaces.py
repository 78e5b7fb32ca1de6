"""Check what surfaces need, before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tau_pipeline.anatomy.freesurfer import FreeSurferFiles, parse_derivatives
from tau_pipeline.errors import SettingError
from tau_pipeline.settings.configuration import Configuration
from tau_pipeline.settings.participant import Settings
from tau_pipeline.surface.average import target_spheres
from tau_pipeline.surface.cat import require_cat_surf
from tau_pipeline.surface.freesurfer import has_surfaces
from tau_pipeline.words import counted, form
from tau_workflows.graphs.job import ParticipantJob


def check_surfaces(config: Configuration) -> None:
    """Refuse surfaces that cannot be made, and average surfaces that are not there.

    Raises
    ------
    MissingInputError
        The optional package that makes surfaces is not installed, or the sphere of an average surface is missing.
    SettingError
        Labels or maps by surfaces are asked for, and nothing gives surfaces.
    """
    settings, selection = config.settings, config.selection
    if settings.surfaces:
        require_cat_surf()
    elif settings.cortex_labels == "hybrid":
        raise SettingError("cortex_labels is 'hybrid', which takes labels from surfaces; add --surfaces")
    elif settings.sampled_surfaces and not selection.derivatives:
        asked = ", ".join(map(str, settings.sampled_surfaces))
        raise SettingError(
            f"output_spaces has {asked}, and nothing gives surfaces of the participants; add --surfaces, or give "
            "FreeSurfer's results with -d freesurfer=FOLDER"
        )
    for space in settings.sampled_surfaces:
        target_spheres(space, fsaverage_dir(selection.derivatives), selection.fslr_dir)


def fsaverage_dir(derivatives: Sequence[str]) -> Path | None:
    """Return FreeSurfer's own folder ``fsaverage`` in one of the derivatives; None if none has it."""
    folders = [folder / "fsaverage" for folder in parse_derivatives(derivatives).values()]
    return next((folder for folder in folders if folder.is_dir()), None)


def makes_surfaces(settings: Settings, freesurfer: FreeSurferFiles | None) -> bool:
    """Return whether surfaces are made for a T1w, and not taken from FreeSurfer's results."""
    return settings.surfaces and (freesurfer is None or not has_surfaces(freesurfer.subject_dir))


def without_surfaces(jobs: Sequence[ParticipantJob]) -> str:
    """Say how many T1w images get no surfaces, where those of FreeSurfer are asked for; empty if all have them."""
    asked = [job for job in jobs if job.settings.sampled_surfaces and not job.settings.surfaces]
    given = [t1w_job.freesurfer for job in asked for t1w_job in job.t1ws]
    missing = sum(one is None or not has_surfaces(one.subject_dir) for one in given)
    if not missing:
        return ""
    return (
        f"{missing} of {counted(len(given), 'T1w image')} {form(missing, 'has', 'have')} no surfaces of FreeSurfer, so "
        "that their PET is not written on surfaces; --surfaces makes them"
    )
