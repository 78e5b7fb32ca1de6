"""Put results into the output folder under their BIDS names, complete or not at all.

These interfaces run at every call, so that a deleted output comes back from the work folder; an output that is already
a copy of the result is left alone. A sidecar goes just before its image, when there is space for both: where an image
is, its sidecar is.
"""

from __future__ import annotations

import gzip
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nipype.interfaces.base import BaseInterfaceInputSpec, File, TraitedSpec, traits

from tau_pipeline.atlas import dseg_table
from tau_pipeline.derivatives import columns
from tau_pipeline.derivatives.names import AnatNames, PetNames, sidecar_path
from tau_pipeline.derivatives.quality_checks import Quality, judge
from tau_pipeline.derivatives.quality_override import Decision, decided, read_decisions
from tau_pipeline.derivatives.sidecars import SuvrSidecar, bids_uri, image_sidecar, space_fields
from tau_pipeline.files import complete_file, read_tsv, write_changed, write_json, write_tsv
from tau_pipeline.pet.frames import FramePlan
from tau_pipeline.settings.spaces import parse_space
from tau_workflows.interfaces.base import LibraryInterface
from tau_workflows.interfaces.pet import frame_plan


def save_copy(source: str | Path, target: Path, sidecar: Mapping[str, Any] | None = None) -> None:
    """Copy ``source`` to ``target`` whole or not at all; the same content always gives the same bytes.

    The copy keeps the source's modification time, by which a later call sees that there is nothing to do. It is
    compressed where ``target`` ends in ``.gz`` and ``source`` does not.
    """
    modified = Path(source).stat().st_mtime_ns
    if target.is_file() and target.stat().st_mtime_ns == modified:
        _write_sidecar(target, sidecar)
        return
    with complete_file(target) as partial:
        if target.name.endswith(".gz") and not str(source).endswith(".gz"):
            # No file name and no time in the gzip header: the same image is the same file.
            with (
                Path(source).open("rb") as raw,
                partial.open("wb") as out,
                gzip.GzipFile(filename="", mode="wb", compresslevel=1, fileobj=out, mtime=0) as packed,
            ):
                shutil.copyfileobj(raw, packed, 1 << 20)
        else:
            shutil.copyfile(source, partial)
        os.utime(partial, ns=(modified, modified))
        _write_sidecar(target, sidecar)


def _write_sidecar(target: Path, sidecar: Mapping[str, Any] | None) -> None:
    if sidecar is not None:
        write_json(sidecar, sidecar_path(target))


_JACOBIAN = (
    "Volume in the T1w of what a voxel shows, over the volume of the voxel. Weighted by it, means over maps in this "
    "space are those over the T1w, as in the tables; plain means weigh each part by its volume in the template."
)


class _SaveOut(TraitedSpec):
    out_files = traits.List(File(), desc="what was written, without sidecars")


class _SaveAnatIn(BaseInterfaceInputSpec):
    output_dir = traits.Str(mandatory=True, desc="root of the derivatives")
    bids_dir = traits.Str(mandatory=True, desc="root of the raw dataset")
    entities = traits.Dict(mandatory=True, desc="entities of the T1w's name")
    raw_file = traits.Str(mandatory=True, desc="the raw T1w")
    settings_hash = traits.Str(mandatory=True, desc="hash of the settings")
    known_assumptions = traits.List(traits.Str(), desc="what was assumed before anything was computed")
    assumptions = traits.List(traits.Str(), desc="what was assumed on the way")
    labels_source = traits.Str(mandatory=True, desc="whose labels and mask were used")
    skull_stripped = traits.Bool(mandatory=True, desc="the T1w came without its skull")
    t1w_preproc_file = File(exists=True, mandatory=True, desc="T1w, bias-corrected")
    mask_file = File(exists=True, mandatory=True, desc="brain mask")
    dseg_file = File(exists=True, mandatory=True, desc="labels")
    t1w_from_template = File(exists=True, mandatory=True, desc="ITK transform, template to T1w")
    template_from_t1w = File(exists=True, mandatory=True, desc="ITK transform, T1w to template")
    reference_file = traits.List(File(exists=True), mandatory=True, desc="masks of the reference regions")
    reference = traits.List(traits.Dict(), mandatory=True, desc="descriptions of the reference regions")
    figure_files = traits.Dict(mandatory=True, desc="figures by their `desc` label")
    space_files = traits.Dict(desc="T1w and labels in the spaces of templates")


class SaveAnat(LibraryInterface):
    """Write everything that belongs to one T1w."""

    _always_run = True
    input_spec = _SaveAnatIn
    output_spec = _SaveOut

    def call(self, folder: Path) -> dict[str, Any]:
        given = self.inputs
        names = AnatNames(Path(given.output_dir), dict(given.entities))
        self._written: list[Path] = []
        self._save(given.t1w_preproc_file, names.t1w, skull_stripped=given.skull_stripped)
        self._save(given.mask_file, names.mask, skull_stripped=True, Type="Brain", MadeBy=given.labels_source)
        write_tsv(dseg_table(), names.dseg_table)
        self._save(given.dseg_file, names.dseg, skull_stripped=True, Manual=False, MadeBy=given.labels_source)
        for mask_file, described in zip(given.reference_file, given.reference, strict=True):
            target = names.reference_mask(described["ReferenceRegion"])
            self._save(mask_file, target, skull_stripped=True, Type="ROI", **described)
        for key, files in (self.optional("space_files") or {}).items():
            space = parse_space(key)
            own = space_fields(space)
            self._save(files["t1w"], names.t1w_in(space), skull_stripped=given.skull_stripped, **own)
            self._save(
                files["dseg"],
                names.dseg_in(space),
                skull_stripped=True,
                Manual=False,
                MadeBy=given.labels_source,
                **own,
            )
            self._save(files["jacobian"], names.jacobian_in(space), skull_stripped=False, Description=_JACOBIAN, **own)
        save_copy(given.template_from_t1w, names.to_template())
        save_copy(given.t1w_from_template, names.from_template())
        for desc, figure in given.figure_files.items():
            save_copy(figure, names.figure(desc))
        return {"out_files": [str(path) for path in self._written]}

    def _save(self, source: str, target: Path, **more: Any) -> None:
        given = self.inputs
        uri = bids_uri(Path(given.raw_file), Path(given.bids_dir))
        assumptions = [*(self.optional("known_assumptions") or []), *(self.optional("assumptions") or [])]
        save_copy(source, target, image_sidecar([uri], given.settings_hash, assumptions=assumptions, **more))
        self._written.append(target)


class _SavePetIn(BaseInterfaceInputSpec):
    output_dir = traits.Str(mandatory=True, desc="root of the derivatives")
    bids_dir = traits.Str(mandatory=True, desc="root of the raw dataset")
    entities = traits.Dict(mandatory=True, desc="entities of the PET's name")
    t1w_entities = traits.Dict(mandatory=True, desc="entities of the T1w's name")
    raw_file = traits.Str(mandatory=True, desc="the raw PET")
    settings_hash = traits.Str(mandatory=True, desc="hash of the settings")
    identity = traits.Dict(mandatory=True, desc="participant_id, session_id, tracer, manufacturer, source")
    model = traits.Str(desc="scanner model")
    radionuclide = traits.Str(desc="radionuclide")
    reconstruction = traits.Dict(desc="what the sidecar of the PET states of its reconstruction")
    frames = traits.Dict(mandatory=True, desc="fields of a FramePlan")
    assumptions = traits.List(traits.Str(), mandatory=True, desc="what was assumed")
    labels_source = traits.Str(mandatory=True, desc="whose labels were used")
    registration_metric = traits.Float(mandatory=True, desc="normalized mutual information after coregistration")
    smoothing_fwhm = traits.Float(mandatory=True, desc="FWHM of the filter that was applied, mm")
    effective_fwhm = traits.Float(mandatory=True, desc="resolution of the result, mm")
    suvr_file = traits.List(File(exists=True), mandatory=True, desc="SUVR maps, one a reference region")
    reference = traits.List(traits.Dict(), mandatory=True, desc="descriptions of the reference regions")
    reference_value = traits.List(traits.Float(), mandatory=True, desc="mean activity in each reference region")
    rois_file = File(exists=True, mandatory=True, desc="region table")
    quality = traits.List(traits.Dict(), mandatory=True, desc="quality measures of each SUVR map")
    quality_figures = traits.List(traits.Dict(), desc="further figures of quality checks, of the PET")
    anat_quality_figures = traits.List(traits.Dict(), desc="further figures of quality checks, of the T1w")
    known_quality_figures = traits.Dict(desc="figures of quality checks that the metadata give")
    corrected_files = traits.Dict(desc="maps corrected for partial volume effects, by method")
    pet2t1w_xfm = File(exists=True, mandatory=True, desc="ITK transform for resampling PET onto the T1w")
    figure_files = traits.Dict(mandatory=True, desc="figures by their `desc` label")
    space_files = traits.Dict(desc="SUVR maps in the spaces of templates")


class SavePet(LibraryInterface):
    """Write everything that belongs to one PET scan; the SUVR maps come last."""

    _always_run = True
    input_spec = _SavePetIn
    output_spec = _SaveOut

    def call(self, folder: Path) -> dict[str, Any]:
        given = self.inputs
        names = PetNames(Path(given.output_dir), dict(given.entities))
        for desc, figure in given.figure_files.items():
            save_copy(figure, names.figure(desc))
        save_copy(given.pet2t1w_xfm, names.to_t1w)
        decisions = read_decisions(names.output_dir)
        sidecars = [self._judged(rank, decisions, names.stem) for rank in range(len(given.suvr_file))]
        write_changed(_with_quality(given.rois_file, sidecars), names.rois)
        write_json(_described(names.rois), sidecar_path(names.rois))
        written = [names.rois, *self._save_corrected(names, sidecars[0]), *self._save_in_spaces(names, sidecars)]
        for rank, (suvr_file, sidecar) in enumerate(zip(given.suvr_file, sidecars, strict=True)):
            target = names.suvr(sidecar["ReferenceRegion"] if rank else "")
            save_copy(suvr_file, target, sidecar)
            written.append(target)
        return {"out_files": [str(path) for path in written]}

    def _save_corrected(self, names: PetNames, sidecar: Mapping[str, Any]) -> list[Path]:
        """Write the maps that are corrected for partial volume effects; they are by the first reference region."""
        written = []
        for method, file in (self.optional("corrected_files") or {}).items():
            save_copy(file, names.corrected(method), _of_correction(sidecar, method))
            written.append(names.corrected(method))
        return written

    def _save_in_spaces(self, names: PetNames, sidecars: Sequence[Mapping[str, Any]]) -> list[Path]:
        """Write the maps in the spaces of templates; what their sidecars say of quality is that of the T1w's map."""
        found: list[tuple[str, Path, dict[str, Any]]] = []
        for key, files in (self.optional("space_files") or {}).items():
            space = parse_space(key)
            for rank, (file, sidecar) in enumerate(zip(files["suvr"], sidecars, strict=True)):
                region = sidecar["ReferenceRegion"]
                text = f"SUVR by {region} in {space.name}"
                own = {**sidecar, "Description": text, **space_fields(space)}
                found.append((file, names.suvr_in(space, region if rank else ""), own))
            for method, file in files["corrected"].items():
                own = _of_correction(sidecars[0], method) | space_fields(space)
                found.append((file, names.corrected_in(space, method), own))
        for file, target, own in found:
            save_copy(file, target, own)
        return [target for _, target, _ in found]

    def _judged(self, rank: int, decisions: Sequence[Decision], stem: str) -> dict[str, Any]:
        """Return the sidecar of an SUVR map, with the quality checks and what people decided about them."""
        given = self.inputs
        figures = [*(self.optional("anat_quality_figures") or []), *(self.optional("quality_figures") or [])]
        content = self._sidecar(rank).content()
        content |= self.optional("reconstruction") or {}
        if "ReferenceRegionSpillIn" in given.reference[rank]:
            content["ReferenceRegionSpillIn"] = given.reference[rank]["ReferenceRegionSpillIn"]
        for own in (self.optional("known_quality_figures") or {}, *figures, given.quality[rank]):
            content |= {name: "n/a" if value is None else value for name, value in own.items()}
        checks = decided(judge(content), decisions, stem)
        return {**content, "Quality": Quality(tuple(checks)).verdict, "QualityChecks": checks}

    def _sidecar(self, rank: int) -> SuvrSidecar:
        given, described = self.inputs, self.inputs.reference[rank]
        output_dir = Path(given.output_dir)
        anat = AnatNames(output_dir, dict(given.t1w_entities))
        plan = frame_plan(given.frames)
        start_s, duration_s = frame_span(plan)
        own = [bids_uri(path, output_dir, "") for path in (anat.t1w, anat.dseg)]
        return SuvrSidecar(
            sources=(bids_uri(Path(given.raw_file), Path(given.bids_dir)), *own),
            reference_image=own[0],
            settings_hash=given.settings_hash,
            reference_region=described["ReferenceRegion"],
            reference_region_indices=tuple(described["ReferenceRegionIndices"]),
            reference_region_volume_mm3=described["ReferenceRegionVolume"],
            reference_value=given.reference_value[rank],
            frame_start_s=start_s,
            frame_duration_s=duration_s,
            frame_indices=plan.indices,
            tracer=given.identity["tracer"],
            radionuclide=self.optional("radionuclide"),
            manufacturer=given.identity["manufacturer"],
            model=self.optional("model"),
            smoothing_fwhm_mm=given.smoothing_fwhm,
            effective_fwhm_mm=round(given.effective_fwhm, 2),
            registration_metric=round(given.registration_metric, 4),
            labels=given.labels_source,
            assumptions=tuple(given.assumptions),
        )


def _of_correction(sidecar: Mapping[str, Any], method: str) -> dict[str, Any]:
    """Return the sidecar of a corrected map from that of the SUVR map by the same reference region."""
    name, region = columns.PVC_METHODS[method], sidecar["ReferenceRegion"]
    return {
        **sidecar,
        "Description": f"SUVR by {region}, corrected for partial volume effects by the {name} method",
        "PVCMethods": [method],
        "ReferenceValue": sidecar["PVCReferenceValue"][method],
        "SkullStripped": True,
    }


def _with_quality(rois_file: str, sidecars: Iterable[Mapping[str, Any]]) -> str:
    """Return a region table as text, in which the rows of each reference region have the quality of its map."""
    import pandas as pd

    verdicts = {str(one["ReferenceRegion"]): str(one["Quality"]) for one in sidecars}
    table = pd.read_csv(rois_file, sep="\t", dtype=str, keep_default_na=False)
    table["quality"] = table["reference_region"].map(verdicts)
    return table.to_csv(sep="\t", index=False, lineterminator="\n")


def _described(rois: Path) -> dict[str, Any]:
    """Return the data dictionary of a region table that was written, with the columns that only some tables have."""
    present = read_tsv(rois).columns
    further = {name: text for name, text in columns.FURTHER_COLUMNS.items() if name in present}
    return columns.column_descriptions() | further


def frame_span(plan: FramePlan) -> tuple[float, float]:
    """Start and length, in seconds after injection, of an SUVR map; the window where times are unknown."""
    if not plan.starts_s:
        return plan.window.start_min * 60.0, (plan.window.end_min - plan.window.start_min) * 60.0
    ends = [start + duration for start, duration in zip(plan.starts_s, plan.durations_s, strict=True)]
    return min(plan.starts_s), max(ends) - min(plan.starts_s)
