"""The longitudinal stream: a halfway space that favors no visit, transforms carried back, and the graph of visits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import ants
import networkx as nx
import numpy as np
import pandas as pd
import pytest
from coarse_program import SEARCHED
from nipype.interfaces.utility import IdentityInterface
from nipype.pipeline import engine as pe
from scipy import ndimage
from scipy.linalg import logm
from test_graphs import mistakes

from tau_pipeline.anatomy import halfway
from tau_pipeline.anatomy.freesurfer import FreeSurferFiles
from tau_pipeline.anatomy.halfway import carried_back, halfway_space, mean_rigid, template_transforms
from tau_pipeline.bids.scans import Participant
from tau_pipeline.derivatives.names import AnatNames, HalfwayNames, PetNames, sidecar_path
from tau_pipeline.errors import ImageError
from tau_pipeline.files import read_json, read_tsv
from tau_pipeline.imaging.load import load_volume
from tau_pipeline.imaging.transforms import displacement_mm, load_itk, save_itk
from tau_pipeline.imaging.volume import Affine, Volume, image_like, image_on, save_volume
from tau_pipeline.pet.resolution import scanner_fwhm
from tau_pipeline.settings.configuration import Configuration
from tau_pipeline.settings.participant import Settings
from tau_pipeline.simulate.dataset import Simulation, simulate_dataset
from tau_pipeline.simulate.pet import rigid_about
from tau_workflows.cli import main
from tau_workflows.execution.participant import _stopped_by
from tau_workflows.graphs.job import HALFWAY_STEP, ParticipantJob, T1wJob, t1w_step
from tau_workflows.graphs.subject import init_subject_wf
from tau_workflows.interfaces.longitudinal import OnCommonVoxels
from tau_workflows.levels import participant
from tau_workflows.levels.call import DONE
from tau_workflows.plan.jobs import plan_participants

#: Center, radii, and intensity of the parts of a head, mm; no two of its halves are alike.
PARTS = (
    ((0, 0, 0), (66, 82, 62), 60),
    ((0, -4, 2), (56, 72, 52), 40),
    ((-14, 8, 8), (8, 26, 9), -70),
    ((15, 2, 6), (7, 22, 8), -70),
    ((-32, 30, -18), (12, 16, 10), 30),
    ((28, -44, 20), (16, 12, 14), -35),
    ((6, -50, -30), (20, 14, 12), 35),
)
CORNERS = np.array([[x, y, z] for x in (-60.0, 60) for y in (-75.0, 75) for z in (-55.0, 55)])


def move(shift: tuple[float, float, float], turn_deg: tuple[float, float, float]) -> Affine:
    return rigid_about(np.zeros(3), np.array(shift), np.deg2rad(turn_deg))


def head_at(to_head: Affine, voxel_mm: float, seed: int) -> tuple[Volume, Volume]:
    """Return a T1w and its brain mask, of a head that ``to_head`` takes the world of the image to; no interpolation."""
    shape = tuple(round(size / voxel_mm) for size in (170, 205, 165))
    affine = np.diag([voxel_mm] * 3 + [1.0])
    affine[:3, 3] = -(np.array(shape) - 1) / 2 * voxel_mm
    to_points = to_head @ affine
    points = np.einsum("ab,bijk->aijk", to_points[:3, :3], np.indices(shape)) + to_points[:3, 3][:, None, None, None]
    t1w = np.zeros(shape)
    depth = []
    for center, radii, intensity in PARTS:
        away = np.sqrt(sum(((points[k] - center[k]) / radii[k]) ** 2 for k in range(3)))
        depth.append((1 - away) * min(radii))
        t1w += intensity * np.clip(0.5 + depth[-1] / voxel_mm, 0, 1)
    noise = np.random.default_rng(seed).normal(0, 2, shape)
    return image_on((t1w + noise).astype(np.float32), affine), image_on((depth[0] > 0).astype(np.uint8), affine)


MOVES = (move((0, 0, 0), (0, 0, 0)), move((4, -3, 5), (4, -3, 5)), move((-5, 2, -4), (-3, 6, 2)))


@pytest.fixture(scope="module")
def visits() -> list[tuple[Volume, Volume]]:
    return [head_at(one, 4.0, seed) for seed, one in enumerate(MOVES)]


def test_the_mean_of_a_move_and_none_is_half_of_it_and_is_rigid() -> None:
    whole = move((10, -4, 6), (20, 10, -15))
    half = mean_rigid([np.eye(4), whole])
    np.testing.assert_allclose(half @ half, whole, atol=1e-9)
    np.testing.assert_allclose(half[:3, :3] @ half[:3, :3].T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(mean_rigid([whole, np.linalg.inv(whole)]), np.eye(4), atol=1e-12)


@pytest.mark.slow
def test_the_halfway_space_agrees_with_the_true_moves_and_is_in_the_middle(visits: list[tuple[Volume, Volume]]) -> None:
    # The world of the last visit lies far away.
    far = np.eye(4)
    far[:3, 3] = (400.0, -300, 200)
    t1ws, masks = [one for one, _ in visits], [mask for _, mask in visits]
    t1ws[2], masks[2] = (image_on(np.asanyarray(one.dataobj), far @ one.affine) for one in visits[2])
    found = halfway_space(t1ws, masks, ["a", "b", "c"])
    to_head = (MOVES[0], MOVES[1], MOVES[2] @ np.linalg.inv(far))
    back = [np.linalg.inv(own @ np.linalg.inv(one)) for own, one in zip(found.to_halfway, to_head, strict=True)]
    for one in back[1:]:
        assert displacement_mm(one, back[0], CORNERS).mean() < 0.3
    # The center of the brain is the origin of the halfway world, and the turns to it have no mean.
    from_head = np.linalg.inv(back[0])
    assert np.abs(from_head[:3, 3]).max() < 0.8
    turns = np.mean([np.real(logm((from_head @ one)[:3, :3])) for one in MOVES], axis=0)
    assert np.abs(np.rad2deg(turns)).max() < 0.3
    inside = np.asanyarray(found.mask.dataobj) > 0
    assert inside.sum() * 64 == pytest.approx(4 / 3 * np.pi * 66 * 82 * 62, rel=0.05)
    assert max(found.disagreement_mm) < 0.2


def test_each_visit_is_registered_to_the_others_alone_and_one_pass_brings_all_to_their_mean(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shifts = {"a": np.array([0.3, 0.0, -0.2]), "b": np.array([-0.1, 0.2, 0.0]), "c": np.array([0.1, 0.1, 0.5])}
    values = dict(zip(shifts, (1.0, 2.0, 4.0), strict=True))
    grid = image_on(np.zeros((5, 5, 5), np.uint8), np.eye(4))
    images = [image_on(np.full((5, 5, 5), value, np.float32), np.eye(4)) for value in values.values()]
    moves = [move(tuple(shift), (0, 0, 0)) for shift in shifts.values()]
    seen = {}

    def found(_moving: Volume, fixed: Volume, _mask: Volume, names: tuple[str, str], **_options: object) -> Affine:
        seen[names[0]] = float(np.asanyarray(fixed.dataobj)[2, 2, 2])
        others = np.mean([shift for name, shift in shifts.items() if name != names[0]], axis=0)
        return move(tuple(others - shifts[names[0]]), (0, 0, 0))

    monkeypatch.setattr(halfway, "_registered", found)
    corrected, distances, _ = halfway._corrected(images, moves, grid, image_like(np.ones((5, 5, 5)), grid), list("abc"))
    # A median with the visit itself in it would be 2 for all.
    assert seen == pytest.approx({"a": 3.0, "b": 2.5, "c": 1.5}, abs=1e-5)
    middle = np.mean(list(shifts.values()), axis=0)
    for one, distance, own in zip(corrected, distances, shifts.values(), strict=True):
        np.testing.assert_allclose(one[:3, 3], middle, atol=1e-9)
        assert distance == pytest.approx(np.linalg.norm(middle - own))


@pytest.mark.slow
def test_the_order_of_visits_changes_nothing(visits: list[tuple[Volume, Volume]]) -> None:
    pair = visits[:2]
    one = halfway_space([t1w for t1w, _ in pair], [mask for _, mask in pair], ["a", "b"])
    other = halfway_space([t1w for t1w, _ in pair[::-1]], [mask for _, mask in pair[::-1]], ["b", "a"])
    for own, swapped in zip(one.to_halfway, other.to_halfway[::-1], strict=True):
        assert displacement_mm(own, swapped, CORNERS).max() < 0.1
    assert one.image.shape == other.image.shape


def test_one_visit_has_no_halfway_space(visits: list[tuple[Volume, Volume]]) -> None:
    with pytest.raises(ImageError, match="two T1w images or more"):
        halfway_space([visits[0][0]], [visits[0][1]], ["a"])


def test_transforms_of_the_halfway_image_lead_on_to_a_visit(tmp_path: Path) -> None:
    """A field and a linear transform, as the registration to the template writes them, after the move of the visit."""
    rng = np.random.default_rng(3)
    field = ants.from_numpy(
        rng.normal(0, 1, (12, 12, 12, 3)).astype(np.float32),
        origin=(-60.0, -60, -60),
        spacing=(10.0,) * 3,
        has_components=True,
    )
    linear = ants.create_ants_transform("AffineTransform", precision="float", dimension=3)
    linear.set_parameters([1.1, 0.02, 0, 0, 0.9, 0.05, 0.01, 0, 1.05, 3, -2, 4])
    parts = [ants.transform_from_displacement_field(field), linear]
    there = tmp_path / "there.h5"
    ants.write_transform(ants.compose_ants_transforms(parts), str(there))
    back = tmp_path / "back.h5"
    ants.write_transform(ants.compose_ants_transforms([linear.invert()]), str(back))
    to_halfway = move((4, -3, 5), (4, -3, 5))
    onto_t1w, onto_template = template_transforms(there, back, to_halfway, tmp_path)
    lps = np.diag([-1.0, -1, 1, 1])
    composed, inverse = (ants.read_transform(str(path)) for path in (onto_t1w, onto_template))
    whole, alone = ants.read_transform(str(there)), ants.read_transform(str(back))
    for point in ([5.0, -12, 20], [-30.0, 22, 8]):
        halfway = (lps @ to_halfway @ lps @ [*point, 1.0])[:3]
        np.testing.assert_allclose(composed.apply_to_point(point), whole.apply_to_point(halfway.tolist()), atol=1e-3)
        expected = (lps @ np.linalg.inv(to_halfway) @ lps @ [*alone.apply_to_point(point), 1.0])[:3]
        np.testing.assert_allclose(inverse.apply_to_point(point), expected, atol=1e-3)


def test_labels_carried_back_keep_their_voxels() -> None:
    to_halfway = move((4, -3, 5), (4, -3, 5))
    labels = image_on(np.arange(27, dtype=np.int16).reshape(3, 3, 3), np.diag([2.0, 2, 2, 1]))
    found = carried_back(labels, to_halfway)
    np.testing.assert_array_equal(np.asanyarray(found.dataobj), np.asanyarray(labels.dataobj))
    np.testing.assert_allclose(to_halfway @ found.affine, labels.affine, atol=1e-6)


def of_two_visits(job: ParticipantJob, method: str) -> ParticipantJob:
    t1ws = []
    for label in ("a", "b"):
        (one,) = job.t1ws
        t1w = replace(one.t1w, session=label, entities={"sub": "01", "ses": label})
        scans = tuple(
            replace(
                own,
                scan=replace(own.scan, session=label, t1w=t1w, entities={"sub": "01", "ses": label, "trc": "AV1451"}),
            )
            for own in one.scans
        )
        t1ws.append(T1wJob(t1w, None, scans))
    return replace(job, t1ws=tuple(t1ws), settings=replace(job.settings, longitudinal=method))


@pytest.mark.parametrize("method", ["own-tissue", "fixed-labels"])
def test_every_field_of_the_longitudinal_graph_is_spelt_right_and_wired(job: ParticipantJob, method: str) -> None:
    wf = init_subject_wf(of_two_visits(job, method))
    assert mistakes(wf, is_part=False) == []
    names = [node.fullname for node in wf._create_flat_graph().nodes()]
    # One registration to the template for all visits, and one to its mirror image.
    assert sum(name.endswith((".template", ".mirror")) for name in names) == 2
    assert sum(name.endswith(".brain") for name in names) == 2


def origin(flat: nx.DiGraph, node: pe.Node, field: str) -> str:
    """Return the step that computes what a field gets, through the nodes that only pass values on."""
    (found,) = [
        (source, out)
        for source, _, data in flat.in_edges(node, data=True)
        for out, into in data["connect"]
        if into == field
    ]
    source, out = found
    return origin(flat, source, out) if isinstance(source.interface, IdentityInterface) else source.fullname


@pytest.mark.parametrize("method", ["own-tissue", "fixed-labels"])
def test_labels_of_a_visit_are_made_on_the_voxels_of_the_halfway_image(job: ParticipantJob, method: str) -> None:
    flat = init_subject_wf(of_two_visits(job, method))._create_flat_graph()
    of_visits = [node for node in flat.nodes() if ".anat_wf" in node.fullname]
    readers = {"tissue": ("t1w_preproc_file", "mask_file"), "labels": (), "regions": ("t1w_preproc_file",)}
    if method == "own-tissue":
        readers["labels"] = ("t1w_preproc_file", "mask_file")
    for name, fields in readers.items():
        steps = [node for node in of_visits if node.name == name]
        assert len(steps) == 2
        for step in steps:
            for field in fields:
                assert origin(flat, step, field).endswith(".anat_wf.common_voxels")


def test_the_t1w_of_a_visit_comes_to_the_voxels_of_the_halfway_image_and_stays_in_its_world(tmp_path: Path) -> None:
    to_halfway = move((4, -3, 5), (4, -3, 5))
    affine = np.diag([3.0, 3, 3, 1])
    affine[:3, 3] = -45
    points = np.einsum("ab,bijk->aijk", affine[:3, :3], np.indices((31, 31, 31))) + affine[:3, 3, None, None, None]
    t1w = image_on((200 + points[0] + 2 * points[1] - points[2]).astype(np.float32), affine)
    grid = np.diag([2.0, 2, 2, 1])
    grid[:3, 3] = -15
    mask = image_on((np.indices((15, 15, 15)).sum(axis=0) % 3 > 0).astype(np.uint8), grid)
    files = {"t1w_preproc_file": save_volume(t1w, tmp_path / "t1w.nii")}
    files |= {"common_mask_file": save_volume(mask, tmp_path / "common.nii")}
    files |= {"xfm_file": save_itk(to_halfway, tmp_path / "move.txt")}
    found = OnCommonVoxels(**{name: str(file) for name, file in files.items()}).call(tmp_path)
    own, inside = (load_volume(found[name], ndim=3) for name in ("t1w_preproc_file", "mask_file"))
    np.testing.assert_array_equal(np.asanyarray(inside.dataobj), np.asanyarray(mask.dataobj))
    for image in (own, inside):
        np.testing.assert_allclose(to_halfway @ image.affine, grid, atol=1e-4)
    x, y, z = (
        np.einsum("ab,bijk->aijk", own.affine[:3, :3], np.indices(own.shape)) + own.affine[:3, 3, None, None, None]
    )
    np.testing.assert_allclose(own.get_fdata(), 200 + x + 2 * y - z, atol=0.1)


@pytest.mark.slow
def test_fixed_labels_are_those_of_the_halfway_image_at_every_visit(tmp_path: Path) -> None:
    """Two visits from raw images to tables, through coarse steps."""
    bids = simulate_dataset(tmp_path / "bids", Simulation(1, seed=3, voxel_mm=4.0, pet="static", visits=2))
    out = tmp_path / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(participant, "MODULE", "coarse_participant")
        patch.setenv("PYTHONPATH", SEARCHED)
        places = [str(bids), str(out), "participant", "--work-dir", str(tmp_path / "work"), "--nprocs", "1"]
        assert main([*places, "--skip-bids-validation", "--longitudinal", "fixed-labels"]) == DONE
    common = HalfwayNames(out, {"sub": "01"}).dseg
    assert read_json(sidecar_path(common))["LongitudinalMethod"] == "fixed-labels"
    middle = load_volume(common, ndim=3)
    labels = np.asanyarray(middle.dataobj)
    counts = {}
    for session in ("01", "02"):
        entities = {"sub": "01", "ses": session}
        anat, pet = AnatNames(out, entities), PetNames(out, entities | {"trc": "AV1451"})
        to_halfway = load_itk(HalfwayNames(out, entities).to_halfway)
        own, t1w = load_volume(anat.dseg, ndim=3), load_volume(anat.t1w, ndim=3)
        # The voxels of the halfway image, at another place.
        np.testing.assert_array_equal(np.asanyarray(own.dataobj), labels)
        np.testing.assert_allclose(to_halfway @ own.affine, middle.affine, atol=1e-3)
        raw = load_volume(next((bids / "sub-01" / f"ses-{session}" / "anat").glob("*_T1w.nii.gz")), ndim=3)
        at = np.linalg.inv(raw.affine) @ t1w.affine
        values = ndimage.affine_transform(raw.get_fdata(), at[:3, :3], at[:3, 3], output_shape=t1w.shape, order=1)
        brain = np.asanyarray(load_volume(anat.mask, ndim=3).dataobj) > 0
        assert np.corrcoef(values[brain], t1w.get_fdata()[brain])[0, 1] > 0.8
        for file, field in ((anat.dseg, "MadeBy"), (pet.suvr(), "Labels")):
            assert (
                "once to the halfway image of 2 visits, the same at each visit" in read_json(sidecar_path(file))[field]
            )
        counts[session] = read_tsv(pet.rois).set_index(["region", "hemisphere"])["n_voxels"]
    # The PET measured all of the brain at both.
    pd.testing.assert_series_equal(counts["01"], counts["02"])


def test_only_participants_with_several_t1w_and_labels_of_our_own_are_longitudinal(job: ParticipantJob) -> None:
    both = of_two_visits(job, "own-tissue")
    assert both.is_longitudinal
    assert not of_two_visits(job, "off").is_longitudinal
    assert not replace(both, t1ws=both.t1ws[:1]).is_longitudinal
    given = FreeSurferFiles(job.bids_dir, job.bids_dir, job.bids_dir, job.bids_dir)
    assert not replace(both, t1ws=(both.t1ws[0], replace(both.t1ws[1], freesurfer=given))).is_longitudinal


def test_what_fails_on_the_way_to_the_halfway_image_stops_all_visits_and_what_fails_after_it_one(
    job: ParticipantJob,
) -> None:
    both = of_two_visits(job, "own-tissue")
    assert _stopped_by({HALFWAY_STEP, "visit_sub_01_ses_a_wf", "brain"}, both) == both.keys
    assert _stopped_by({t1w_step(both.t1ws[1].t1w), "anat_wf", "labels"}, both) == both.t1ws[1].keys


def test_scans_of_a_participant_are_brought_to_the_coarsest_resolution_among_them(job: ParticipantJob) -> None:
    (scan_job,) = job.t1ws[0].scans
    models = {"a": "Biograph mMR", "b": "Discovery ST"}
    metadata = {name: {**scan_job.scan.pet_metadata, "ManufacturersModelName": model} for name, model in models.items()}
    scans = [
        replace(scan_job.scan, pet_metadata=own, entities={"sub": "01", "ses": name}) for name, own in metadata.items()
    ]
    who = Participant("01", (job.t1ws[0].t1w,), tuple(scans))

    def targets(participant: Participant, *, match_visits: bool) -> list[float | None]:
        config = Configuration(settings=Settings(match_visits=match_visits))
        plan = plan_participants([participant], job.bids_dir, job.output_dir, config)
        return [one.target_fwhm for t1w in plan.jobs[0].t1ws for one in t1w.scans]

    coarsest = scanner_fwhm("GE", "Discovery ST").fwhm_mm
    assert targets(who, match_visits=True) == [coarsest, coarsest]
    assert targets(who, match_visits=False) == [None, None]
    unknown = replace(scans[0], pet_metadata={**metadata["a"], "ManufacturersModelName": "none of the table"})
    assert targets(replace(who, scans=(unknown, scans[1])), match_visits=True) == [None, None]


def test_scans_of_one_t1w_have_the_same_labels_and_reference_regions_by_construction(job: ParticipantJob) -> None:
    (t1w_job,) = job.t1ws
    (first,) = t1w_job.scans
    second = replace(first, scan=replace(first.scan, session="b", entities={"sub": "01", "ses": "b", "trc": "AV1451"}))
    both = replace(job, t1ws=(replace(t1w_job, scans=(first, second)),))
    flat = init_subject_wf(both)._create_flat_graph()

    steps = [node for node in flat.nodes() if node.name == "quantify"]
    assert len(steps) == 2
    for name in ("dseg_file", "reference_file", "mask_file"):
        assert origin(flat, steps[0], name) == origin(flat, steps[1], name)
