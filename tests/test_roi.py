"""The regional table against a loop that anyone can check, and its promises."""

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tau_pipeline.atlas import composites, label_table
from tau_pipeline.derivatives import columns
from tau_pipeline.errors import GridMismatchError, ImageError, ReferenceRegionError
from tau_pipeline.files import read_tsv, write_tsv
from tau_pipeline.imaging.volume import image_on
from tau_pipeline.measures import regions as roi

CONTRACT = [
    *("participant_id", "session_id", "tracer", "manufacturer", "source", "region", "index", "hemisphere", "kind"),
    *("n_voxels", "volume_mm3", "suvr_mean", "suvr_sd", "suvr_median", "suvr_z", "reference_region", "quality"),
    "measured_fraction",
]
IDENTITY = {
    "participant_id": "sub-01",
    "session_id": None,
    "tracer": "AV1451",
    "manufacturer": "Siemens",
    "source": "measured",
}
TABLE = label_table()
GRAY = TABLE[TABLE["kind"].isin(["cortical", "subcortical"])]


def random_scan(seed, shape=(12, 13, 14), affine=None, missing=()):
    rng = np.random.default_rng(seed)
    numbers = np.setdiff1d(np.append(TABLE["index"].to_numpy(), [0, 0, 14175]), missing)
    labels = rng.choice(numbers, shape).astype(np.int32)
    suvr = rng.normal(1.3, 0.4, shape).astype(np.float32)
    affine = np.eye(4) if affine is None else affine
    reference = np.isin(labels, (8, 47))
    return [image_on(data, affine) for data in (suvr, labels, reference)]


def table_of(suvr, labels, reference):
    return roi.regional_table(suvr, labels, reference, "CerebellarGM", IDENTITY)


def slow_statistics(suvr, labels, numbers, voxel_mm3):
    values = []
    for i, j, k in itertools.product(*map(range, suvr.shape)):
        if labels[i, j, k] in numbers and np.isfinite(suvr[i, j, k]):
            values.append(float(suvr[i, j, k]))
    n = len(values)
    if n == 0:
        return 0, 0.0, None, None, None, None, None
    mean = sum(values) / n
    sd = (sum((v - mean) ** 2 for v in values) / (n - 1)) ** 0.5 if n > 1 else None
    ordered = sorted(values)
    median = (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
    place = 0.9 * (n - 1)
    low = int(place)
    p90 = ordered[low] + (place - low) * (ordered[min(low + 1, n - 1)] - ordered[low])
    return n, n * voxel_mm3, mean, sd, median, p90, sum(v > 1.4 for v in values) / n


def slow_mean_of_medians(suvr, labels, numbers):
    own = [slow_statistics(suvr, labels, {number}, 1.0) for number in numbers]
    total = sum(one[0] for one in own)
    return sum(one[0] * one[4] for one in own if one[0]) / total if total else None


def same(found, expected):
    return pd.isna(found) if expected is None else found == pytest.approx(expected, rel=1e-6)


def test_every_row_agrees_with_a_slow_loop():
    suvr, labels, reference = random_scan(0, shape=(8, 9, 10))
    table = roi.regional_table(suvr, labels, reference, "CerebellarGM", IDENTITY, extent_suvr=1.4)
    a, b = np.asarray(suvr.dataobj), np.asarray(labels.dataobj)
    for row in table.rename(columns={"index": "number"}).itertuples():
        if row.kind == "composite":
            numbers = set(composites()[row.region][row.hemisphere])
        elif row.kind == "reference":
            numbers = {8, 47}
        else:
            numbers = {row.number}
        n, volume, mean, sd, median, p90, extent = slow_statistics(a, b, numbers, 1.0)
        if row.region == "metatemporal_jack2017":
            mean = slow_mean_of_medians(a, b, numbers)
        assert row.n_voxels == n
        assert row.volume_mm3 == pytest.approx(volume)
        assert same(row.suvr_mean, mean)
        assert same(row.suvr_sd, sd)
        assert same(row.suvr_median, median)
        assert same(row.suvr_p90, p90)
        assert same(row.suvr_extent, extent)


def test_columns_are_the_contracts_in_its_order():
    assert list(table_of(*random_scan(1)).columns) == [*CONTRACT, "suvr_p90"]


def test_rows_are_68_cortical_18_subcortical_one_reference_and_33_composite():
    table = table_of(*random_scan(1))
    assert table["kind"].value_counts().to_dict() == {
        "cortical": 68,
        "subcortical": 18,
        "composite": 33,
        "reference": 1,
    }
    assert table.loc[table["kind"] == "cortical", "index"].tolist() == [
        base + k for base in (1000, 2000) for k in range(1, 36) if k != 4
    ]
    assert not table.duplicated(["region", "hemisphere"]).any()
    assert table.loc[table["kind"].isin(["composite", "reference"]), "index"].isna().all()
    assert set(table["hemisphere"]) == {"left", "right", "both"}


def test_names_and_numbers_of_rows_belong_together():
    table = table_of(*random_scan(1)).dropna(subset="index").set_index("index")
    for row in GRAY.set_index("index").itertuples():
        assert table.loc[row.Index, "region"] == row.region
        assert table.loc[row.Index, "hemisphere"] == row.hemisphere


def test_an_absent_region_keeps_its_row_without_values():
    suvr, labels, reference = random_scan(2, missing=(1006, 2006))
    table = table_of(suvr, labels, reference)
    gone = table[table["region"].isin(["ctx-lh-entorhinal", "ctx-rh-entorhinal", "braak1"])]
    assert len(gone) == 5
    assert (gone["n_voxels"] == 0).all()
    assert (gone["volume_mm3"] == 0).all()
    assert gone[["suvr_mean", "suvr_sd", "suvr_median", "suvr_p90"]].isna().all(axis=None)
    assert len(table) == len(table_of(*random_scan(2)))


def test_an_empty_parcellation_still_gives_all_rows():
    suvr, labels, reference = random_scan(3)
    empty = image_on(np.zeros(labels.shape, dtype=np.int16), labels.affine)
    table = table_of(suvr, empty, reference)
    assert len(table) == 120
    assert table.loc[table["kind"] != "reference", "n_voxels"].sum() == 0


def test_a_single_voxel_has_no_standard_deviation():
    labels = np.zeros((3, 3, 3), dtype=np.int16)
    labels[0, 0, 0] = 1006
    table = table_of(*[image_on(d, np.eye(4)) for d in (np.full((3, 3, 3), 1.5), labels, np.ones((3, 3, 3), bool))])
    row = table[table["index"] == 1006].iloc[0]
    assert (row["n_voxels"], row["suvr_mean"], row["suvr_median"]) == (1, 1.5, 1.5)
    assert pd.isna(row["suvr_sd"])


def test_voxels_that_are_not_finite_do_not_count():
    suvr, labels, reference = random_scan(4)
    a, b = np.array(suvr.dataobj), np.asarray(labels.dataobj)
    hole = np.argwhere(b == 1009)[0]
    a[tuple(hole)] = np.nan
    a[tuple(np.argwhere(b == 2009)[0])] = np.inf
    before, after = table_of(suvr, labels, reference), table_of(image_on(a, np.eye(4)), labels, reference)
    for number in (1009, 2009):
        old, new = (t[t["index"] == number].iloc[0] for t in (before, after))
        assert new["n_voxels"] == old["n_voxels"] - 1
        assert np.isfinite(new["suvr_mean"])


def test_volume_is_the_determinant_on_a_sheared_grid():
    affine = np.array([[1.0, 0.5, 0.0, 3], [0.0, 2.0, 0.3, 4], [0.0, 0.0, 1.5, 5], [0, 0, 0, 1]])
    table = table_of(*random_scan(5, affine=affine))
    assert table["volume_mm3"].to_numpy(dtype=float) == pytest.approx(3.0 * table["n_voxels"].to_numpy())


def test_flipping_and_turning_the_grid_changes_nothing():
    suvr, labels, reference = random_scan(6)
    turned = [
        image_on(np.ascontiguousarray(np.asarray(img.dataobj).transpose(2, 0, 1)[::-1]), np.eye(4))
        for img in (suvr, labels, reference)
    ]
    pd.testing.assert_frame_equal(table_of(suvr, labels, reference), table_of(*turned), rtol=1e-6)


def test_left_and_right_of_a_composite_pool_to_both_by_voxels():
    table = table_of(*random_scan(7))
    for name in composites():
        if name == "metatemporal_jack2017":
            continue
        rows = table[table["region"] == name].set_index("hemisphere")
        assert rows.loc["both", "n_voxels"] == rows.loc["left", "n_voxels"] + rows.loc["right", "n_voxels"]
        pooled = (rows["suvr_mean"] * rows["n_voxels"])[["left", "right"]].sum() / rows.loc["both", "n_voxels"]
        assert rows.loc["both", "suvr_mean"] == pytest.approx(pooled)


def test_a_composite_equals_its_members_weighted_by_volume():
    table = table_of(*random_scan(8))
    members = table[table["index"].isin(composites()["metatemporal"]["both"])]
    pooled = (members["suvr_mean"] * members["n_voxels"]).sum() / members["n_voxels"].sum()
    row = table[(table["region"] == "metatemporal") & (table["hemisphere"] == "both")].iloc[0]
    assert row["suvr_mean"] == pytest.approx(pooled)


@settings(max_examples=10, deadline=None)
@given(st.floats(min_value=0.01, max_value=1000))
def test_statistics_scale_with_the_image(factor):
    suvr, labels, reference = random_scan(9)
    scaled = image_on(np.asarray(suvr.dataobj).astype(np.float64) * factor, np.eye(4))
    columns = ["suvr_mean", "suvr_sd", "suvr_median"]
    small = table_of(suvr, labels, reference)[columns].to_numpy(dtype=float)
    large = table_of(scaled, labels, reference)[columns].to_numpy(dtype=float)
    np.testing.assert_allclose(large, factor * small, rtol=1e-5)


@pytest.mark.parametrize("kind", [np.int16, np.uint16, np.int32, np.float32])
def test_the_type_in_which_labels_are_stored_does_not_matter(kind):
    suvr, labels, reference = random_scan(10)
    stored = image_on(np.asarray(labels.dataobj).astype(kind), np.eye(4))
    pd.testing.assert_frame_equal(table_of(suvr, labels, reference), table_of(suvr, stored, reference))


def test_labels_of_eight_bits_and_negative_ones_are_no_trouble():
    suvr, _, reference = random_scan(11)
    small = np.full(suvr.shape, 17, dtype=np.uint8)
    assert table_of(suvr, image_on(small, np.eye(4)), reference).set_index("index").loc[17, "n_voxels"] == small.size
    negative = image_on(np.full(suvr.shape, -17, dtype=np.int16), np.eye(4))
    assert table_of(suvr, negative, reference).query("kind != 'reference'")["n_voxels"].sum() == 0


def test_inputs_are_left_as_they_were():
    images = random_scan(12)
    before = [np.array(img.dataobj) for img in images]
    table_of(*images)
    for img, data in zip(images, before, strict=True):
        np.testing.assert_array_equal(np.asarray(img.dataobj), data)


def test_the_reference_row_is_the_mask_that_was_given():
    suvr, labels, _ = random_scan(13)
    mask = np.zeros(suvr.shape, dtype=np.uint8)
    mask[2:5, 3:6, 1:9] = 1
    table = roi.regional_table(suvr, labels, image_on(mask, np.eye(4)), "Pons", IDENTITY)
    row = table[table["kind"] == "reference"].iloc[0]
    assert (row["region"], row["hemisphere"], row["n_voxels"]) == ("Pons", "both", 72)
    assert row["suvr_mean"] == pytest.approx(np.asarray(suvr.dataobj)[2:5, 3:6, 1:9].mean(), rel=1e-5)
    assert set(table["reference_region"]) == {"Pons"}


def test_written_and_read_back_missing_is_na_and_numbers_are_whole(tmp_path):
    table = table_of(*random_scan(14, missing=(1006,)))
    path = write_tsv(table, tmp_path / "sub-01_rois.tsv")
    lines = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]
    assert lines[0] == [*CONTRACT, "suvr_p90"]
    row = next(dict(zip(lines[0], line, strict=True)) for line in lines if "ctx-lh-entorhinal" in line)
    assert row == {
        "participant_id": "sub-01",
        "session_id": "n/a",
        "tracer": "AV1451",
        "manufacturer": "Siemens",
        "source": "measured",
        "region": "ctx-lh-entorhinal",
        "index": "1006",
        "hemisphere": "left",
        "kind": "cortical",
        "n_voxels": "0",
        "volume_mm3": "0",
        "suvr_mean": "n/a",
        "suvr_sd": "n/a",
        "suvr_median": "n/a",
        "suvr_z": "n/a",
        "reference_region": "CerebellarGM",
        "quality": "n/a",
        "measured_fraction": "n/a",
        "suvr_p90": "n/a",
    }
    again = read_tsv(path)
    np.testing.assert_allclose(again["suvr_mean"], table["suvr_mean"].to_numpy(dtype=float), rtol=1e-6)


def test_every_column_is_described():
    described = columns.column_descriptions()
    assert list(described) == CONTRACT
    assert all(entry["Description"].endswith(".") for entry in described.values())
    table = table_of(*random_scan(15))
    for name in ("kind", "hemisphere"):
        assert set(table[name]) <= set(described[name]["Levels"])


def test_images_on_different_grids_are_refused():
    suvr, labels, reference = random_scan(16)
    moved = image_on(np.asarray(labels.dataobj), np.diag([2.0, 1, 1, 1]))
    with pytest.raises(GridMismatchError, match="dseg"):
        table_of(suvr, moved, reference)


def test_a_4d_suvr_is_refused():
    suvr, labels, reference = random_scan(17)
    with pytest.raises(ImageError, match="3-D"):
        table_of(image_on(np.asarray(suvr.dataobj)[..., None].repeat(2, 3), np.eye(4)), labels, reference)


def test_an_empty_reference_mask_is_refused():
    suvr, labels, reference = random_scan(18)
    empty = image_on(np.zeros(reference.shape, dtype=np.uint8), np.eye(4))
    with pytest.raises(ReferenceRegionError, match="CerebellarGM is empty"):
        table_of(suvr, labels, empty)
