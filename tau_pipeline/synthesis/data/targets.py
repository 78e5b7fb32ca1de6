"""Targets of synthesis: T1w derivatives without a tau PET, or all."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tau_pipeline.derivatives.index import find_outputs
from tau_pipeline.derivatives.names import AnatNames, PetNames, SyntheticNames, sidecar_path
from tau_pipeline.derivatives.read import read_regions
from tau_pipeline.errors import MissingInputError, UnknownNameError
from tau_pipeline.files import read_json
from tau_pipeline.settings.cohort import Group
from tau_pipeline.settings.synthesis import Synthesize
from tau_pipeline.synthesis.data.pairs import UNKNOWN, FoundPairs, Pair, Subject, search_pairs

#: Entities that distinguish synthetic scans; a second run or reconstruction of a PET has the same T1w.
_ENTITIES = ("sub", "ses", "trc")


@dataclass(frozen=True)
class Target:
    """One synthetic scan to be made.

    Attributes
    ----------
    names
        Of its files.
    anat
        Of the T1w's files.
    session
        Label of the session that it stands for; None where there are none.
    tracer
        As the measured scans' tables spell it.
    manufacturer
        Of the participant's own PET; None without PET.
    diagnosis
        ``n/a`` if not known.
    measured
        Scans to compare with; empty without PET.
    covariates
        Numbers by name, as in `tau_pipeline.synthesis.data.pairs.Pair`.
    """

    names: SyntheticNames
    anat: AnatNames
    session: str | None
    tracer: str
    manufacturer: str | None
    diagnosis: str
    measured: tuple[Pair, ...] = ()
    covariates: Mapping[str, float] = field(default_factory=dict, compare=False)

    @property
    def subject(self) -> Subject:
        """Labels and covariates, for models that use them."""
        return Subject(self.anat.dseg, self.anat.mask, self.covariates)

    @property
    def participant_id(self) -> str:
        """With ``sub-``."""
        return f"sub-{self.names.entities['sub']}"


@dataclass(frozen=True)
class ModelTarget:
    """Tracer and reference region of a model; empty where its card does not say."""

    tracer: str
    reference_region: str


def measured_scans(
    output_dir: Path,
    model_target: ModelTarget,
    diagnoses: Mapping[str, str] | None = None,
    group: Group | None = None,
    bids_dir: Path | None = None,
) -> FoundPairs:
    """Return the measured scans of the model's kind, as `search_pairs`; finding none is no error."""
    try:
        return search_pairs(
            output_dir,
            tracer=model_target.tracer or None,
            reference_region=model_target.reference_region or None,
            diagnoses=diagnoses,
            group=group,
            bids_dir=bids_dir,
        )
    except (MissingInputError, UnknownNameError):
        return FoundPairs((), ())


def find_targets(
    output_dir: Path,
    pairs: Sequence[Pair],
    model_target: ModelTarget,
    synthesize: Synthesize = "missing",
    diagnoses: Mapping[str, str] | None = None,
) -> list[Target]:
    """Find every synthetic scan to be made, sorted by name.

    Parameters
    ----------
    output_dir
        The derivatives.
    pairs
        The measured scans of the model's kind (`measured_scans`).
    model_target
        Tracer and reference region of the model.
    synthesize
        ``missing``: T1w images whose session has no such PET; ``all``: those with PET too.
    diagnoses
        By participant, with or without ``sub-``.

    Raises
    ------
    MissingInputError
        There is no folder, or no T1w derivative in it.
    """
    root = Path(output_dir)
    t1ws = find_outputs(root, "t1w")
    if not t1ws:
        raise MissingInputError(
            f"{root} holds no T1w derivative (sub-*/anat/*_desc-preproc_T1w.nii.gz); run the participant level first"
        )
    tracer = _spelling(pairs, model_target)
    found: dict[str, Target] = {}
    for pair in pairs if synthesize == "all" else ():
        target = _with_pet(pair)
        before = found.get(target.names.key)
        found[target.names.key] = target if before is None else replace(before, measured=(*before.measured, pair))
    by_id = {f"sub-{who.removeprefix('sub-')}": label for who, label in (diagnoses or {}).items()}
    used = {pair.t1w_file for pair in pairs}
    sessions = {(pair.participant, pair.session) for pair in pairs}
    for path in t1ws:
        anat = AnatNames.of(path)
        if path not in used and (anat.entities["sub"], anat.entities.get("ses")) not in sessions:
            target = _without_pet(anat, tracer, by_id)
            # Of several T1w images of one session the first by name stands for the session.
            found.setdefault(target.names.key, target)
    return [found[key] for key in sorted(found)]


def still_there(targets: Sequence[Target], bids_dir: Path) -> tuple[list[Target], list[str]]:
    """Return the targets of participants who are in the raw dataset, and a sentence on those who are not.

    Where nobody is in it, the folder is not the dataset that the T1w images are from, and all are returned.
    """
    known = {target.names.entities["sub"] for target in targets}
    there = {label for label in known if (bids_dir / f"sub-{label}").is_dir()} or known
    gone = ", ".join(f"sub-{label}" for label in sorted(known - there))
    told = [f"left out, since they are no longer in the dataset: {gone}"] if gone else []
    return [target for target in targets if target.names.entities["sub"] in there], told


def _spelling(pairs: Sequence[Pair], model_target: ModelTarget) -> str:
    """Return the tracer as the measured scans' tables spell it, or as the model's card does."""
    for pair in pairs:
        if pair.rois_file is not None and len(spelt := read_regions(pair.rois_file)["tracer"].dropna()):
            return str(spelt.iloc[0])
    return model_target.tracer or UNKNOWN


def _with_pet(pair: Pair) -> Target:
    pet = PetNames.of(pair.suvr_file)
    own = {key: pet.entities[key] for key in _ENTITIES if key in pet.entities}
    name = read_json(sidecar_path(pair.suvr_file)).get("TracerName")
    return Target(
        names=SyntheticNames(pet.output_dir, own),
        anat=AnatNames.of(pair.t1w_file),
        session=pair.session,
        tracer=str(name or pair.tracer),
        manufacturer=None if pair.manufacturer == UNKNOWN else pair.manufacturer,
        diagnosis=pair.diagnosis,
        measured=(pair,),
    )


def _without_pet(anat: AnatNames, tracer: str, diagnoses: Mapping[str, str]) -> Target:
    label = re.sub(r"[^0-9A-Za-z]", "", "" if tracer == UNKNOWN else tracer)
    entities = anat.entities
    own = {key: entities[key] for key in _ENTITIES if key in entities} | ({"trc": label} if label else {})
    return Target(
        names=SyntheticNames(anat.output_dir, own),
        anat=anat,
        session=entities.get("ses"),
        tracer=tracer,
        manufacturer=None,
        diagnosis=diagnoses.get(f"sub-{entities['sub']}", UNKNOWN),
    )
