"""Surfaces of the cortex: meshes, labels, thickness, and the optional package that makes them."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import asdict
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.cifti2 import BrainModelAxis
from phantom import tiny_dataset
from scipy import ndimage
from scipy.spatial import ConvexHull, cKDTree

from tau_pipeline.atlas import atlas_files
from tau_pipeline.derivatives.names import AnatNames, PetNames, sidecar_path
from tau_pipeline.errors import ImageError, MissingInputError
from tau_pipeline.figures.planes import View
from tau_pipeline.figures.surfaces import cut
from tau_pipeline.files import read_json, write_json
from tau_pipeline.imaging.transforms import save_itk
from tau_pipeline.imaging.volume import Volume, image_on, save_volume
from tau_pipeline.pet.frames import plan_frames
from tau_pipeline.settings.spaces import parse_space
from tau_pipeline.surface import (
    average,
    cat,
    cifti,
    folded_atlas,
    freesurfer,
    labels,
    mesh,
    scale,
    spheres,
    thickness,
)
from tau_pipeline.surface.mesh import Mesh
from tau_workflows.cli import main
from tau_workflows.interfaces.own_process import in_own_process
from tau_workflows.interfaces.surface import MESHES
from tau_workflows.interfaces.surface_pet import SaveSurfacePet
from tau_workflows.levels.call import WRONG_CALL

HAS_CAT_SURF = importlib.util.find_spec("cat_surf") is not None


def sphere(n: int, radius: float = 10.0, turn: float = 0.0) -> Mesh:
    """Return a sphere of ``n`` evenly spread vertices (a Fibonacci lattice) with its convex hull as triangles."""
    points = radius * _directions(n, turn)
    faces = ConvexHull(points).simplices.astype(np.int32)
    a, b, c = (points[faces[:, corner]] for corner in range(3))
    inward = np.einsum("ij,ij->i", a, np.cross(b, c)) < 0
    faces[inward] = faces[inward][:, ::-1]
    return Mesh(points, faces)


def torus(n: int = 12) -> Mesh:
    i, j = np.meshgrid(np.arange(n), np.arange(n), indexing="ij")
    a, b = 2 * np.pi * i / n, 2 * np.pi * j / n
    points = np.stack([(3 + np.cos(b)) * np.cos(a), (3 + np.cos(b)) * np.sin(a), np.sin(b)], axis=-1).reshape(-1, 3)
    here, right, up = i * n + j, (i + 1) % n * n + j, i * n + (j + 1) % n
    corner = (i + 1) % n * n + (j + 1) % n
    faces = np.concatenate([np.stack([here, right, corner], -1), np.stack([here, corner, up], -1)]).reshape(-1, 3)
    return Mesh(points, faces.astype(np.int32))


def folded_sheet(thickness_mm: float, radius: float = 14.0, depth: float = 2.0) -> tuple[Volume, Volume]:
    """Return tissue and labels, on 1 mm voxels, of white matter with folds under gray matter of one thickness.

    The outer boundary is everywhere ``thickness_mm`` from the inner one: distances to 100,000 points of it decide.
    """

    def inner(direction: np.ndarray) -> np.ndarray:
        x, y, z = 4 * direction.T
        return radius + depth * np.sin(x) * np.sin(y + 0.5) * np.sin(z + 1)

    directions = _directions(100_000)
    end = int(np.ceil(radius + depth + thickness_mm + 3))
    axis = np.arange(-end, end + 1, dtype=float)
    voxels = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    distance, _ = cKDTree(directions * inner(directions)[:, None]).query(voxels)
    far = np.linalg.norm(voxels, axis=1)
    inside = far < inner(voxels / np.maximum(far, 1e-9)[:, None])
    signed = np.where(inside, -distance, distance)
    white, fluid = np.clip(0.5 - signed, 0, 1), np.clip(0.5 + signed - thickness_mm, 0, 1)
    shape = (len(axis),) * 3
    fractions = np.stack([fluid, 1 - white - fluid, white], axis=-1).reshape(*shape, 3).astype(np.float32)
    numbers = np.where(white > 0.5, 2, np.where(fluid < 0.5, 1028, 0)).reshape(shape).astype(np.int16)
    affine = np.eye(4)
    affine[:3, 3] = -end
    return image_on(fractions, affine), image_on(numbers, affine)


def _directions(n: int, turn: float = 0.0) -> np.ndarray:
    place = np.arange(n) + 0.5
    polar, around = np.arccos(1 - 2 * place / n), np.pi * (1 + 5**0.5) * place + turn
    return np.stack([np.sin(polar) * np.cos(around), np.sin(polar) * np.sin(around), np.cos(polar)], axis=1)


def test_the_euler_number_tells_a_sphere_from_a_torus() -> None:
    assert sphere(200).euler_number == 2
    assert torus().euler_number == 0


def test_areas_of_vertices_add_up_to_the_area_of_the_surface() -> None:
    areas = sphere(4000, radius=10.0).vertex_areas
    assert areas.sum() == pytest.approx(4 * np.pi * 100, rel=2e-3)
    assert areas.min() > 0


def test_values_go_from_a_fine_sphere_to_a_coarse_one_without_loss_and_back() -> None:
    fine, coarse = sphere(4000), sphere(300, radius=1.0, turn=0.3)
    height = fine.vertices[:, 2]
    found = spheres.values_on(coarse.vertices, fine.vertices, height)
    np.testing.assert_allclose(found, 10 * coarse.vertices[:, 2], atol=0.4)
    # Each fine vertex is in exactly one mean, beside the nearest one: a spike is never lost.
    spike = np.zeros(4000)
    spike[1234] = 1.0
    assert spheres.values_on(coarse.vertices, fine.vertices, spike).max() > 0.05
    back = spheres.values_on(fine.vertices, coarse.vertices, found)
    np.testing.assert_allclose(back, height, atol=1.5)
    np.testing.assert_array_equal(spheres.labels_on(fine, fine, np.arange(4000)), np.arange(4000))


def test_unknown_values_count_nowhere() -> None:
    fine, coarse = sphere(2000), sphere(100, turn=0.2)
    north = fine.vertices[:, 2] > 0
    found = spheres.values_on(coarse.vertices, fine.vertices, np.where(north, 2.0, np.nan))
    assert np.isnan(found[coarse.vertices[:, 2] < -3]).all()
    np.testing.assert_allclose(found[coarse.vertices[:, 2] > 3], 2.0)


def world_of(model: BrainModelAxis) -> np.ndarray:
    """Return the world coordinates of the voxels of a CIFTI file, ``(N, 3)``, mm."""
    return nib.affines.apply_affine(model.affine, model.voxel)


def surfaces_of_fsaverage(folder: Path) -> dict[str, list[str]]:
    """Write the surfaces of a participant that is fsaverage itself; the last vertices are not cortex."""
    both = {}
    for side in mesh.SIDES:
        target = average.fsaverage(side)
        files = [mesh.save_mesh(target.mesh, folder / f"{side}_{kind}.surf.gii", side, kind) for kind in MESHES[:3]]
        files.append(mesh.save_mesh(target.sphere, folder / f"{side}_sphere.surf.gii", side, "sphere"))
        files.append(mesh.save_values(np.ones(10_242), folder / f"{side}_t.shape.gii", side, "thickness"))
        cortex = np.where(np.arange(10_242) < 9_000, 1028, 0).astype(np.int32)
        files.append(mesh.save_labels(cortex, folder / f"{side}_l.label.gii", side))
        both[f"{side}_files"] = [str(file) for file in files]
    return both


@pytest.mark.slow
def test_pet_is_sampled_at_the_cortex_once_for_each_frame_and_written_on_average_surfaces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The surface of the participant is fsaverage itself, so that its values arrive where they were sampled."""
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    affine[:3, 3] = -140
    i, j, k = np.indices((71, 71, 71))
    data = (500 + i - 2 * j + 3 * k).astype(np.float32)
    pet_file = save_volume(image_on(np.stack([data, data], axis=-1), affine), tmp_path / "pet.nii")
    metadata = {"FrameTimesStart": [4800, 5100], "FrameDuration": [300, 300], "InjectionStart": 0}
    plan = plan_frames((71, 71, 71, 2), {**metadata, "TracerName": "AV1451"})
    moved, to_t1w = np.eye(4), np.eye(4)
    moved[:3, 3], to_t1w[:3, 3] = [2, 0, -4], [0, 3, 1]
    weights = [
        str(save_volume(image_on(np.full((70, 70, 70), value, np.float32), affine), tmp_path / f"weight{value}.nii"))
        for value in (0.5, 0.002)
    ]
    names, both = PetNames(tmp_path, {"sub": "01", "trc": "AV1451"}), surfaces_of_fsaverage(tmp_path)
    for path in (names.suvr(), names.suvr("Pons"), names.corrected("rbv")):
        write_json({"Description": "SUVR", "SpatialReference": "x"}, sidecar_path(path))
    interpolated = []
    sampled = ndimage.map_coordinates

    def counting(data: np.ndarray, *args: object, **options: object) -> np.ndarray:
        interpolated.extend([data] if options["order"] else [])
        return sampled(data, *args, **options)

    monkeypatch.setattr(ndimage, "map_coordinates", counting)
    step = SaveSurfacePet(
        **both,
        pet_file=str(pet_file),
        frames=asdict(plan),
        frame_xfms=[np.eye(4).tolist(), moved.tolist()],
        pet2t1w_xfm=str(save_itk(to_t1w, tmp_path / "pet.txt")),
        smoothing_fwhm=0.0,
        reference_value=[500.0, 250.0],
        reference=[{"ReferenceRegion": "CerebellarGM"}, {"ReferenceRegion": "Pons"}],
        weight_files={"rbv": weights},
        surfaces=["fsaverage:den-10k"],
        saved_files=[str(pet_file)],
        template_from_t1w=str(save_itk(np.diag([1, 0.9, 1.1, 1]), tmp_path / "template.txt")),
        output_dir=str(tmp_path),
        entities={"sub": "01", "trc": "AV1451"},
    )
    assert len(step.call(tmp_path)["out_files"]) == 3 * 3
    assert [len(one) for one in interpolated] == [71, 71]
    space = parse_space("fsaverage")
    for side in mesh.SIDES:
        at = (average.fsaverage(side).mesh.vertices - to_t1w[:3, 3] - moved[:3, 3] / 2 + 140) / 4
        truth = (500 + at @ [1, -2, 3]) / 500
        first, second = (mesh.read_values(names.surface_suvr(side, space, one)) for one in ("", "Pons"))
        np.testing.assert_allclose(first[:9_000], truth[:9_000], rtol=1e-4)
        assert np.isnan(first[9_000:]).all()
        np.testing.assert_allclose(second[:9_000], 2 * truth[:9_000], rtol=1e-4)
        corrected = mesh.read_values(names.surface_corrected(side, space, "rbv"))
        np.testing.assert_allclose(corrected[:9_000], 0.5 + 0.002 * 500 * truth[:9_000], rtol=1e-4)
    dense = nib.load(names.surface_suvr(None, space))
    brain = dense.header.get_axis(1)
    assert brain[: 2 * 10_242].surface_mask.all()
    # Points of the template, through the inverse of the transform to it.
    at = (world_of(brain[2 * 10_242 :]) / [1, 0.9, 1.1] - to_t1w[:3, 3] - moved[:3, 3] / 2 + 140) / 4
    np.testing.assert_allclose(dense.get_fdata()[0, 2 * 10_242 :], (500 + at @ [1, -2, 3]) / 500, rtol=1e-4)
    stated = read_json(sidecar_path(names.surface_suvr(None, space)))
    assert {"Density", "SpatialReference"} & stated.keys() == {"Density"}
    assert stated["Description"] == "SUVR by CerebellarGM in the middle of the cortex, on the surface fsaverage"


def test_finer_meshes_of_fsaverage_are_those_of_freesurfer(tmp_path: Path) -> None:
    space = parse_space("fsaverage:den-41k")
    with pytest.raises(MissingInputError, match=r"put the folder fsaverage of FreeSurfer into .* fsaverage:den-10k"):
        average.target_spheres(space, tmp_path / "fsaverage", None)
    (tmp_path / "surf").mkdir()
    points = 100 * _directions(163_842)
    for hemi in ("lh", "rh"):
        nib.freesurfer.write_geometry(tmp_path / "surf" / f"{hemi}.sphere.reg", points, np.array([[0, 1, 2]]))
    found = average.target_spheres(space, tmp_path, None)
    np.testing.assert_allclose(found["right"], points[:40_962], atol=1e-4)


def test_spheres_of_fslr_are_looked_for_where_templateflow_keeps_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = parse_space("fsLR")
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(tmp_path))
    with pytest.raises(MissingInputError, match=r"has neither tpl-fsLR_space-fsaverage_hemi-L.* --fslr-dir"):
        average.target_spheres(space, None, None)
    for side, letter in (("left", "L"), ("right", "R")):
        file = tmp_path / "tpl-fsLR" / f"tpl-fsLR_space-fsaverage_hemi-{letter}_den-32k_sphere.surf.gii"
        mesh.save_mesh(sphere(60), file, side, "sphere")
    assert len(average.target_spheres(space, None, None)["left"]) == 60


def test_a_process_that_crashes_is_told_in_one_sentence_and_an_error_arrives() -> None:
    with pytest.raises(ImageError, match="the surface of the left hemisphere was not made: the process"):
        in_own_process(os.abort, "the surface of the left hemisphere")
    with pytest.raises(ImageError, match="no cortex"):
        in_own_process(partial(_raise, ImageError("no cortex")), "it")
    assert in_own_process(os.getpid, "it") != os.getpid()


def _raise(error: Exception) -> None:
    raise error


def test_a_plane_cuts_a_sphere_in_a_circle() -> None:
    ball = sphere(4000, radius=10.0)
    view = View("coronal", 6.0, np.arange(-20.0, 21.0), np.arange(-20.0, 21.0))
    segments = cut((ball.vertices, ball.faces), view)
    np.testing.assert_allclose(np.linalg.norm(segments.reshape(-1, 2), axis=1), 8.0, atol=0.1)
    length = np.linalg.norm(segments[:, 0] - segments[:, 1], axis=1).sum()
    assert length == pytest.approx(2 * np.pi * 8.0, rel=0.01)


def test_the_surface_names_the_cortex_but_for_the_regions_of_the_volume() -> None:
    numbers = np.zeros((8, 4, 4), np.int16)
    numbers[:, 1, 1] = [1028, 1028, 1006, 1028, 1028, 2, 17, 2028]
    points = np.array([[0, 1, 1], [2, 1, 1], [3.4, 1, 1], [7, 1, 1]], dtype=float)
    of_vertex = np.array([1024, 1024, 1006, 1022], np.int32)
    surface = Mesh(points, np.zeros((0, 3), np.int32))
    found = labels.hybrid_labels(image_on(numbers, np.eye(4)), {"left": (surface, of_vertex)})
    # Entorhinal stays where the volume has it, and the surface makes none; the right side has no surface here.
    np.testing.assert_array_equal(np.asarray(found.dataobj)[:, 1, 1], [1024, 1024, 1006, 1024, 1024, 2, 17, 2028])
    assert np.count_nonzero(np.asarray(found.dataobj)) == 8


def test_the_table_of_thickness_weighs_by_area_and_leaves_out_what_is_not_there() -> None:
    surface = sphere(500)
    areas = surface.vertex_areas
    own = np.where(np.arange(500) % 2, 1028, 1006).astype(np.int32)
    values = 2.0 + surface.vertices[:, 2] / 10
    left = thickness.Cortex(surface, values, own)
    right = thickness.Cortex(surface, np.full(500, 3.0), np.where(own == 1028, 2028, 0).astype(np.int32))
    table = thickness.thickness_table({"left": left, "right": right}, "sub-01", None).set_index(
        ["region", "hemisphere"]
    )
    entorhinal = own == 1006
    row = table.loc[("ctx-lh-entorhinal", "left")]
    assert row["thickness_mean"] == pytest.approx((areas * values)[entorhinal].sum() / areas[entorhinal].sum())
    assert row["area_mm2"] == pytest.approx(areas[entorhinal].sum())
    same = table.loc[("ctx-rh-superiorfrontal", "right"), ["thickness_mean", "thickness_sd"]]
    assert same.tolist() == pytest.approx([3.0, 0.0], abs=1e-6)
    assert np.isnan(table.loc[("ctx-rh-entorhinal", "right"), "thickness_mean"])
    both = table.loc[("cortex", "both")]
    assert both["n_vertices"] == 750
    weights = np.concatenate([areas, areas[own == 1028]])
    expected = np.average(np.concatenate([values, np.full((own == 1028).sum(), 3.0)]), weights=weights)
    assert both["thickness_mean"] == pytest.approx(expected)
    assert len(table[table["index"].notna()]) == 68


def test_files_of_a_surface_are_read_by_other_software(tmp_path: Path) -> None:
    surface = sphere(60)
    own = np.where(np.arange(60) < 30, 1006, 0).astype(np.int32)
    again = mesh.read_mesh(mesh.save_mesh(surface, tmp_path / "a.surf.gii", "left", "pial"))
    np.testing.assert_allclose(again.vertices, surface.vertices, atol=1e-5)
    assert again.euler_number == 2
    image = nib.load(mesh.save_labels(own, tmp_path / "a.label.gii", "right"))
    assert image.meta["AnatomicalStructurePrimary"] == "CortexRight"
    assert image.labeltable.get_labels_as_dict() == {0: "unknown", 1006: "ctx-lh-entorhinal"}
    np.testing.assert_array_equal(image.darrays[0].data, own)
    values = {"left": np.arange(5.0), "right": np.array([np.nan, 7.0, 8.0])}
    voxels = cifti.subcortical_model()
    dense = nib.load(cifti.save_dscalar(values, np.arange(len(voxels)), tmp_path / "a.dscalar.nii", "SUVR"))
    brain = dense.header.get_axis(1)
    found = {name: dense.get_fdata()[0, part] for name, part, _ in brain.iter_structures()}
    assert [*found][:2] == ["CIFTI_STRUCTURE_CORTEX_LEFT", "CIFTI_STRUCTURE_CORTEX_RIGHT"]
    np.testing.assert_array_equal(found["CIFTI_STRUCTURE_CORTEX_RIGHT"], values["right"])
    np.testing.assert_array_equal(np.concatenate([*found.values()][2:]), np.arange(len(voxels)))


def test_subcortical_voxels_of_a_cifti_file_lie_where_the_atlas_has_the_structure() -> None:
    atlas = nib.load(atlas_files().desikan_killiany)
    labels = np.asanyarray(atlas.dataobj)
    # FreeSurfer numbers of the 19 subcortical structures of the 91k standard, in its order.
    numbers = [26, 58, 18, 54, 16, 11, 50, 8, 47, 28, 60, 17, 53, 13, 52, 12, 51, 10, 49]
    structures = [*cifti.subcortical_model().iter_structures()]
    assert len(structures) == len(numbers)
    for (name, _, model), number in zip(structures, numbers, strict=True):
        world = world_of(model)
        at = np.round(nib.affines.apply_affine(np.linalg.inv(atlas.affine), world)).astype(int)
        assert (labels[tuple(at.T)] == number).all()
        assert model.volume_shape == (91, 109, 91)
        middle = world[:, 0].mean()
        assert ("LEFT" in name, "RIGHT" in name) == (middle < -5, middle > 5)
        # One voxel of 8 mm^3 for eight of the atlas.
        assert len(model) == pytest.approx((labels == number).sum() / 8, rel=0.15)


def test_names_are_those_of_bids(tmp_path: Path) -> None:
    pet = PetNames(tmp_path, {"sub": "01", "trc": "AV1451"})
    name = pet.surface_suvr("left", parse_space("fsLR"), "Pons").name
    assert name == "sub-01_trc-AV1451_hemi-L_space-fsLR_den-32k_desc-suvrPons_pet.func.gii"
    fsaverage = parse_space("fsaverage")
    assert pet.surface_suvr(None, fsaverage).name.endswith("_space-fsaverage_den-10k_desc-suvr_pet.dscalar.nii")
    assert pet.surface_corrected("right", fsaverage, "rbv").name.endswith("_den-10k_desc-pvcRBV_pet.func.gii")
    anat = AnatNames(tmp_path, {"sub": "01"})
    assert anat.surface("right", "labels").name == "sub-01_hemi-R_seg-DesikanKilliany_dseg.label.gii"
    assert anat.surface("right", "sphere").name == "sub-01_hemi-R_space-fsaverage_desc-reg_sphere.surf.gii"


def test_annotation_of_freesurfer_gives_the_numbers_of_fsaverage(tmp_path: Path) -> None:
    (tmp_path / "label").mkdir()
    entries = np.random.default_rng(3).integers(0, 3, 163_842)
    colors = np.array([[25, 5, 25, 0, 0], [220, 20, 10, 0, 0], [20, 220, 160, 0, 0]])
    file = tmp_path / "label" / "lh.aparc.annot"
    nib.freesurfer.write_annot(file, entries, colors, ["unknown", "entorhinal", "superiorfrontal"], fill_ctab=True)
    found = average.fsaverage_labels(tmp_path, "left")
    np.testing.assert_array_equal(found, np.array([0, 1006, 1028])[entries[:10_242]])
    assert average.fsaverage_labels(tmp_path, "right") is None


def test_surfaces_of_freesurfer_arrive_on_the_t1w(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    voxel_to_world = np.array([[-1.0, 0, 0, 20], [0, 0, 1, -31], [0, -1, 0, 44], [0, 0, 0, 1]])
    image = nib.MGHImage(np.zeros((30, 40, 50), np.int32), voxel_to_world)
    labels_file = tmp_path / "aparc+aseg.mgz"
    nib.save(image, labels_file)
    for folder in ("surf", "label"):
        (tmp_path / folder).mkdir()
    assert not freesurfer.has_surfaces(tmp_path)
    own = sphere(50)
    voxels = {"white": rng.uniform(5, 25, (50, 3)), "pial": rng.uniform(5, 25, (50, 3))}
    # FreeSurfer counts in mm from the middle of the image: right is against the first axis, up against the second.
    half = np.array([15, 20, 25])
    for name, places in voxels.items():
        right, up, front = (places - half).T * [[-1], [-1], [1]]
        points = np.stack([right, front, up], axis=1)
        for hemi in ("lh", "rh"):
            nib.freesurfer.write_geometry(tmp_path / "surf" / f"{hemi}.{name}", points, own.faces)
    thick = rng.uniform(1, 4, 50).astype(np.float32)
    for hemi in ("lh", "rh"):
        nib.freesurfer.write_geometry(tmp_path / "surf" / f"{hemi}.sphere.reg", own.vertices, own.faces)
        nib.freesurfer.write_morph_data(tmp_path / "surf" / f"{hemi}.thickness", thick)
        colors = np.array([[25, 5, 25, 0, 0], [220, 20, 10, 0, 0]])
        file = tmp_path / "label" / f"{hemi}.aparc.annot"
        nib.freesurfer.write_annot(file, np.arange(50) % 2, colors, ["unknown", "entorhinal"], fill_ctab=True)
    assert freesurfer.has_surfaces(tmp_path)
    move = np.eye(4)
    move[:3, 3] = [3, -2, 1]
    found = freesurfer.read_hemisphere(tmp_path, labels_file, "right", move)
    expected = {name: nib.affines.apply_affine(move @ voxel_to_world, places) for name, places in voxels.items()}
    np.testing.assert_allclose(found.pial.vertices, expected["pial"], atol=1e-4)
    np.testing.assert_allclose(found.midthickness.vertices, (expected["white"] + expected["pial"]) / 2, atol=1e-4)
    np.testing.assert_allclose(found.sphere.vertices, own.vertices, atol=1e-5)
    np.testing.assert_array_equal(found.labels, np.where(np.arange(50) % 2, 2006, 0))
    np.testing.assert_allclose(found.thickness, thick)


@pytest.mark.slow
def test_the_image_of_a_hemisphere_holds_that_hemisphere_alone() -> None:
    tissue, dseg = folded_sheet(3.0, radius=8.0, depth=0.5)
    numbers = np.array(np.asanyarray(dseg.dataobj))
    middle = numbers.shape[0] // 2
    right = numbers[middle:]
    right[right == 2], right[right == 1028] = 41, 2028
    numbers[middle - 4 : middle - 1, middle, middle] = 10
    found = scale.hemisphere_scale(tissue, image_on(numbers, dseg.affine), "left")
    data = np.asanyarray(found.dataobj)
    at = np.linalg.inv(found.affine) @ [[-3, -6, -9.5, 3.0], [0, 0, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]]
    values = [float(data[tuple(place)]) for place in np.rint(at[:3]).astype(int).T]
    assert values[0] == 3
    assert values[1] == pytest.approx(3, abs=0.05)
    assert values[2] == pytest.approx(2, abs=0.2)
    assert at[0, 3] > data.shape[0] or values[3] == 1
    np.testing.assert_allclose(nib.affines.voxel_sizes(found.affine), 0.7)
    with pytest.raises(ImageError, match="no cortex on the right"):
        scale.hemisphere_scale(tissue, dseg, "right")


def test_vertices_take_the_label_of_the_nearest_cortex_of_their_side() -> None:
    numbers = np.zeros((9, 3, 3), np.int16)
    numbers[:4, 1, 1] = [1006, 1028, 2028, 2]
    surface = Mesh(np.array([[0, 1, 2.0], [1.8, 1, 1], [8, 1, 1]]), np.zeros((0, 3), np.int32))
    np.testing.assert_array_equal(
        folded_atlas.nearest_labels(image_on(numbers, np.eye(4)), surface, "left"), [1006, 1028, 0]
    )


def test_without_the_extra_one_sentence_says_how_to_install_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(cat.importlib.util, "find_spec", lambda name: None if name == "cat_surf" else find_spec(name))
    bids = tiny_dataset(tmp_path / "bids", ("01",))
    options = ["--skip-bids-validation", "-w", str(tmp_path / "work"), "--surfaces"]
    assert main([str(bids), str(tmp_path / "out"), "participant", *options]) == WRONG_CALL
    said = capfd.readouterr().err
    assert "pip install 'tau-pipeline[surface]'" in said
    assert len(said.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.skipif(not HAS_CAT_SURF, reason="cat-surf is not installed (pip install 'tau-pipeline[surface]')")
@pytest.mark.parametrize("truth", [2.0, 3.0])
def test_a_folded_sheet_of_known_thickness_is_measured_and_closed(truth: float) -> None:
    tissue, dseg = folded_sheet(truth)
    found = cat.central_surface(scale.hemisphere_scale(tissue, dseg, "left"))
    assert found.mesh.euler_number == 2
    assert np.average(found.thickness, weights=found.mesh.vertex_areas) == pytest.approx(truth, abs=0.1)
    assert np.percentile(np.abs(found.thickness - truth), 95) < 0.25
    assert cat.to_sphere(found.mesh).euler_number == 2
