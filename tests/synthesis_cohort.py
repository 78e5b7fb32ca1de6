"""Derivatives of a handful of tiny made-up participants, as the participant level would have written them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, ornt_transform

from tau_pipeline.derivatives.names import AnatNames, PetNames, sidecar_path
from tau_pipeline.derivatives.sidecars import bids_uri
from tau_pipeline.files import write_json, write_text
from tau_pipeline.imaging.volume import Volume, image_on, save_volume

#: Half axes of the brain, an ellipsoid about world (3, -2, 4), in mm.
BRAIN_MM = np.array([14.0, 17.0, 12.0])
CENTRE_MM = np.array([3.0, -2.0, 4.0])


def oriented(codes: str, shape: tuple[int, int, int], voxel_mm: float = 2.0) -> np.ndarray:
    """An affine with axes along ``codes``, whose box has its middle near the brain's."""
    base = np.diag([voxel_mm, voxel_mm, voxel_mm, 1.0])
    change = ornt_transform(axcodes2ornt(tuple("RAS")), axcodes2ornt(tuple(codes)))
    affine = base @ inv_ornt_aff(change, shape)
    middle = affine @ [*(np.array(shape) - 1) / 2, 1.0]
    affine[:3, 3] += CENTRE_MM + 0.5 - middle[:3]
    return affine


def oblique(shape: tuple[int, int, int], voxel_mm: float = 2.0) -> np.ndarray:
    """The same, turned by 20 and -35 degrees about two axes."""
    a, b = np.deg2rad(20), np.deg2rad(-35)
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    affine = np.eye(4)
    affine[:3, :3] = about_z @ about_x * voxel_mm
    affine[:3, 3] = CENTRE_MM + 0.5 - affine[:3, :3] @ (np.array(shape) - 1) / 2
    return affine


def world_of(shape: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
    """World coordinates of each voxel, ``(I, J, K, 3)``, in mm."""
    voxels = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), axis=-1)
    return voxels @ affine[:3, :3].T + affine[:3, 3]


@dataclass(frozen=True)
class Head:
    """A head on one grid; everything is a smooth function of the world's coordinates."""

    t1w: Volume
    mask: Volume
    dseg: Volume
    suvr: Volume


def head(shape: tuple[int, int, int], affine: np.ndarray, level: float = 1.0) -> Head:
    """Sample the made-up head on a grid; ``level`` multiplies its SUVR."""
    x, y, z = np.moveaxis((world_of(shape, affine) - CENTRE_MM) / BRAIN_MM, -1, 0)
    inside = x**2 + y**2 + z**2 < 1
    t1w = 500 + 200 * np.cos(2 * x + 0.5 * y) + 100 * np.sin(2 * z)
    suvr = level * (1.2 + 0.3 * np.sin(2 * y) + 0.2 * x * z)
    labels = np.where(x < 0, 1006, 2006) + 9 * (y > 0)
    return Head(
        image_on(t1w.astype(np.float32), affine),
        image_on(inside, affine),
        image_on(np.where(inside, labels, 0).astype(np.int16), affine),
        image_on(suvr.astype(np.float32), affine),
    )


@dataclass(frozen=True)
class Person:
    """Files of one participant."""

    label: str
    orientation: str = "RAS"
    manufacturer: str | None = "SIEMENS"
    level: float = 1.0
    shape: tuple[int, int, int] = (20, 22, 18)
    session: str | None = None
    t1w_session: str | None = None
    tracer: str = "AV1451"
    regions: tuple[str, ...] = ("CerebellarGM",)

    @property
    def affine(self) -> np.ndarray:
        """Of the T1w."""
        return oblique(self.shape) if self.orientation == "oblique" else oriented(self.orientation, self.shape)

    def entities(self, session: str | None) -> dict[str, str]:
        """Of a file of this participant."""
        return {"sub": self.label, **({"ses": session} if session else {})}

    def anat(self, root: Path) -> AnatNames:
        """Names of the T1w's files."""
        return AnatNames(root, self.entities(self.t1w_session or self.session))

    def pet(self, root: Path) -> PetNames:
        """Names of the PET's files."""
        return PetNames(root, {**self.entities(self.session), "trc": self.tracer})


def write_person(root: Path, person: Person) -> None:
    """Write T1w, mask, labels, SUVR maps and their sidecars."""
    images, anat, pet = head(person.shape, person.affine, person.level), person.anat(root), person.pet(root)
    for img, path in ((images.t1w, anat.t1w), (images.mask, anat.mask), (images.dseg, anat.dseg)):
        save_volume(img, path)
    for rank, region in enumerate(person.regions):
        path = pet.suvr(region if rank else "")
        save_volume(images.suvr, path)
        content = {
            "SpatialReference": bids_uri(anat.t1w, root, ""),
            "TracerName": person.tracer,
            "ReferenceRegion": region,
            "Manufacturer": person.manufacturer or "n/a",
        }
        write_json(content, sidecar_path(path))
    write_text("participant_id\n", pet.rois)


#: Four participants with grids of four kinds, from two manufacturers.
PEOPLE = (
    Person("01", "RAS", "SIEMENS", 1.0),
    Person("02", "LPS", "GE MEDICAL SYSTEMS", 1.3, (18, 24, 20)),
    Person("03", "LIA", "Siemens", 1.1, (20, 18, 22)),
    Person("04", "oblique", "GE", 1.2, (24, 24, 24)),
)


def write_cohort(root: Path, people: tuple[Person, ...] = PEOPLE) -> Path:
    """Write several participants; returns the folder."""
    for person in people:
        write_person(root, person)
    return root
