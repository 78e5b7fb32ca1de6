"""Deep structures by the head's own intensities."""

from __future__ import annotations

import numpy as np

from tau_pipeline.anatomy.deep import STRUCTURES, refine_deep

HIPPOCAMPUS, INFERIOR_HORN, VENTRICLE, CAUDATE, WHITE = 17, 5, 4, 11, 2


def block():
    """White matter with a ventricle, a caudate beside it, and a hippocampus: labels, and the intensities they have."""
    atlas = np.full((40, 40, 40), WHITE, np.int32)
    atlas[10:20, 10:30, 24:30] = VENTRICLE
    atlas[20:26, 10:30, 24:30] = CAUDATE
    atlas[12:26, 12:28, 8:15] = HIPPOCAMPUS
    scale = np.full(atlas.shape, 2.0, np.float32)
    scale[atlas == VENTRICLE] = 0
    scale[np.isin(atlas, (CAUDATE, HIPPOCAMPUS))] = 1
    return atlas, scale, np.ones(atlas.shape, bool)


def test_intensities_that_are_as_the_atlas_has_them_change_nothing_inside():
    atlas, scale, inside = block()
    found = refine_deep(atlas, scale, inside)
    # corners of boxes are rounded by the uncertainty of the atlas's edges
    assert (found != atlas).mean() < 0.002
    assert set(np.unique(found)) <= set(np.unique(atlas))


def test_no_gray_structure_holds_fluid_and_what_is_shrunken_is_found_smaller():
    atlas, scale, inside = block()
    shrunken = scale.copy()
    shrunken[12:26, 12:28, 13:15] = 0  # fluid where the atlas still has hippocampus
    found = refine_deep(atlas, shrunken, inside)
    assert not (np.isin(found, STRUCTURES) & (shrunken < 0.5)).any()
    kept = found[12:26, 12:28, 8:13] == HIPPOCAMPUS
    assert kept.mean() > 0.97


def test_a_wide_ventricle_keeps_its_fluid_and_other_fluid_is_not_taken():
    atlas, scale, inside = block()
    scale[6:10, 10:30, 24:30] = 0  # it is wider than the atlas's
    scale[2:4, 2:38, 34:38] = 0  # and there is fluid that it does not reach
    found = refine_deep(atlas, scale, inside)
    assert (found[6:10, 10:30, 24:30] == VENTRICLE).all()
    assert not (found[2:4, 2:38, 34:38] == VENTRICLE).any()


def test_a_structure_moves_to_where_its_intensity_is():
    atlas, scale, inside = block()
    scale[26:28, 10:30, 24:30] = 1  # two voxels more of caudate, where the atlas has white matter
    found = refine_deep(atlas, scale, inside)
    assert (found[26, 11:29, 25:29] == CAUDATE).mean() > 0.9


def test_a_border_between_two_places_is_where_two_atlases_have_it_on_average():
    atlas, scale, inside = block()
    scale[:] = 1.5  # the intensities do not tell
    other = atlas.copy()
    other[12:26, 12:28, 15:19] = HIPPOCAMPUS
    for one, second in ((atlas, other), (other, atlas)):
        top = (refine_deep(one, scale, inside, [second]) == HIPPOCAMPUS)[15:23, 16:24].sum(axis=2) + 8
        np.testing.assert_array_equal(top, 17)
