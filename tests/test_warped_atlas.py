"""Labels of the template and of its mirror image on the grid of a head."""

from __future__ import annotations

import numpy as np

from tau_pipeline.anatomy import template as anat
from tau_pipeline.anatomy.template import TemplateRegistration, register_to_mirror_image
from tau_pipeline.anatomy.warped_atlas import exchange_sides, warped_atlas
from tau_pipeline.imaging.greedy import to_sitk
from tau_pipeline.imaging.volume import image_on


def test_left_and_right_numbers_are_exchanged_and_the_others_stay():
    labels = np.array([[0, 8, 47], [1001, 2035, 16], [17, 53, 9170]], np.int32)
    expected = [[0, 47, 8], [2001, 1035, 16], [53, 17, 9170]]
    np.testing.assert_array_equal(exchange_sides(labels), expected)
    every = np.arange(3000, dtype=np.int32)
    np.testing.assert_array_equal(exchange_sides(exchange_sides(every)), every)


def test_the_mirror_image_gives_the_labels_of_the_other_side_at_the_mirrored_place(tmp_path, monkeypatch):
    """A head that is the mirror image of the template: the registration then moves nothing."""
    import SimpleITK

    rng = np.random.default_rng(2)
    affine = np.array([[-2.3, 0, 0, 21], [0, 0, 2.3, -20], [0, -2.3, 0, 18], [0, 0, 0, 1]])
    brain = image_on(rng.random((19, 17, 15)).astype(np.float32), affine)
    labels = image_on(rng.choice([8, 47, 1012, 2012, 16], brain.shape).astype(np.int32), affine)
    for name, img in (("brain", brain), ("labels", labels)):
        img.to_filename(tmp_path / f"{name}.nii")
    seen = []

    def nothing_moves(t1w, mask, orientation, template, threads):
        seen.append(template)
        zero = image_on(np.zeros(t1w.shape, np.float32), t1w.affine)
        warp = SimpleITK.Cast(SimpleITK.Compose(*[to_sitk(zero)] * 3), SimpleITK.sitkVectorFloat32)
        return anat._Found(warp, np.eye(4), np.eye(4))

    monkeypatch.setattr(anat, "_registered", nothing_moves)
    mirror = np.diag([-1.0, 1.0, 1.0, 1.0])
    head = image_on(np.asarray(brain.dataobj), mirror @ affine)
    found = register_to_mirror_image(head, head, tmp_path / "brain.nii", tmp_path)
    # what the head is registered to is the head itself, on axes that run the other way
    np.testing.assert_allclose(np.asarray(seen[0].dataobj)[::-1], np.asarray(head.dataobj))
    np.testing.assert_allclose(seen[0].affine @ [18, 0, 0, 1], head.affine @ [0, 0, 0, 1])
    mask = image_on(np.ones(head.shape, np.uint8), head.affine)
    atlas = warped_atlas(mask, tmp_path / "labels.nii", found)
    straight = warped_atlas(
        image_on(np.ones(head.shape, np.uint8), affine),
        tmp_path / "labels.nii",
        TemplateRegistration((_identity(tmp_path),), (), np.eye(4)),
    )
    inner = (slice(8, -8),) * 3
    np.testing.assert_array_equal(
        np.asarray(atlas.dataobj)[inner], exchange_sides(np.asarray(straight.dataobj)[::-1])[inner]
    )
    assert len(np.unique(np.asarray(atlas.dataobj)[inner])) == 5


def _identity(folder):
    import ants

    path = folder / "identity.mat"
    ants.write_transform(ants.create_ants_transform("AffineTransform", dimension=3), str(path))
    return path
