import gzip
import os

import nibabel as nib
import numpy as np
import pytest
import torch
from synthesis_cohort import PEOPLE, Person, write_cohort, write_person
from torch.utils.data import DataLoader

from tau_pipeline.cohort.standardize import Standardization
from tau_pipeline.errors import (
    DamagedFileError,
    GridMismatchError,
    ImageError,
    MissingInputError,
    SettingError,
    UnknownNameError,
)
from tau_pipeline.imaging.load import load_volume
from tau_pipeline.imaging.volume import save_volume
from tau_pipeline.synthesis.data import prepare as preparation
from tau_pipeline.synthesis.data.dataset import PairDataset
from tau_pipeline.synthesis.data.grid import Grid
from tau_pipeline.synthesis.data.pairs import find_pairs
from tau_pipeline.synthesis.data.placement import from_grid
from tau_pipeline.synthesis.data.prepare import (
    cache_key,
    check_pairs,
    fit_target_scaling,
    prepare,
    prepare_t1w,
    scale_t1w,
)
from tau_pipeline.synthesis.data.scaling import ByManufacturer, MinMax, load_target_scaling

GRID = Grid((16, 20, 16), (2, 2, 2))


@pytest.fixture(scope="module")
def derivatives(tmp_path_factory):
    return write_cohort(tmp_path_factory.mktemp("derivatives"))


@pytest.fixture(scope="module")
def pairs(derivatives):
    return find_pairs(derivatives)


@pytest.fixture(scope="module")
def target_scaling(pairs):
    return fit_target_scaling("by-manufacturer", pairs, GRID, min_participants=2)


def changed(pair, change):
    """Write the SUVR map of a pair again, changed in place by a function."""
    img = load_volume(pair.suvr_file)
    values = np.array(img.dataobj)
    change(values)
    nib.Nifti1Image(values, img.affine).to_filename(pair.suvr_file)


def brain_values(pair):
    suvr, mask = (np.asarray(nib.load(path).dataobj) for path in (pair.suvr_file, pair.mask_file))
    return suvr[mask > 0].astype(np.float64)


# --- T1w ---


def test_two_percentiles_of_the_brain_become_minus_one_and_one_and_the_rest_lies_on_their_line():
    t1w = np.random.default_rng(0).gamma(2.0, 50.0, (20, 20, 20)).astype(np.float32)
    brain = np.zeros(t1w.shape, np.uint8)
    brain[3:17, 3:17, 3:17] = 1
    t1w[0] = 1e6
    low, high = np.percentile(t1w[brain > 0], [0.5, 99.5])
    scaled = scale_t1w(t1w, brain, "sub-01")
    between = (t1w > low) & (t1w < high)
    np.testing.assert_allclose(scaled[between], 2 * (t1w[between] - low) / (high - low) - 1, atol=1e-5)
    assert (scaled[t1w >= high] == 1).all()
    assert (scaled[t1w <= low] == -1).all()


def test_the_scale_of_a_t1w_does_not_depend_on_its_unit_or_offset():
    t1w = np.random.default_rng(0).normal(100, 20, (12, 12, 12))
    brain = np.ones(t1w.shape)
    np.testing.assert_allclose(scale_t1w(t1w * 7.5 + 30, brain, "a"), scale_t1w(t1w, brain, "a"), atol=1e-4)


@pytest.mark.parametrize("values", [np.full((5, 5, 5), 3.0), np.full((5, 5, 5), np.nan)])
def test_a_t1w_without_contrast_is_refused_with_the_name(values):
    with pytest.raises(ImageError, match="T1w of sub-07 has no contrast"):
        scale_t1w(values, np.ones((5, 5, 5)), "sub-07")


def test_the_t1w_of_training_is_that_of_synthesis(pairs):
    for pair in pairs:
        t1w, brain, placement, _ = prepare_t1w(load_volume(pair.t1w_file), load_volume(pair.mask_file), GRID, "x")
        found = prepare(pair, GRID)
        np.testing.assert_array_equal(t1w, found.t1w)
        np.testing.assert_array_equal(brain, found.brain)
        assert placement == found.placement
        assert (t1w[~brain] == -1).all()
        assert np.abs(t1w).max() <= 1


def test_t1w_and_mask_on_different_grids_are_refused(pairs):
    with pytest.raises(GridMismatchError):
        prepare_t1w(load_volume(pairs[0].t1w_file), load_volume(pairs[1].mask_file), GRID, "x")


# --- scaling of SUVR ---


def test_the_standardisation_has_the_mean_and_sd_of_each_manufacturers_brains(pairs, target_scaling):
    for maker in ("Siemens", "GE"):
        # Equal weight of participants: the mean of their means, and of their mean squares.
        brains = [brain_values(pair) for pair in pairs if pair.manufacturer == maker]
        mean = np.mean([values.mean() for values in brains])
        sd = np.sqrt(np.mean([(values**2).mean() for values in brains]) - mean**2)
        group = target_scaling.standardization.group_of(maker)
        assert (group.mean, group.sd) == pytest.approx((mean, sd), rel=1e-6)
    assert target_scaling.participants == ("sub-01", "sub-02", "sub-03", "sub-04")


def test_the_range_is_that_of_the_training_brains(pairs):
    found = fit_target_scaling("min-max", pairs[:3], GRID)
    values = np.concatenate([brain_values(pair) for pair in pairs[:3]])
    assert (found.low, found.high) == (values.min(), values.max())
    assert found.participants == ("sub-01", "sub-02", "sub-03")


@pytest.mark.parametrize("kind", ["by-manufacturer", "min-max"])
def test_nothing_of_other_participants_leaks_into_the_fit(tmp_path, kind):
    people = (*PEOPLE, Person("05", "RAS", "GE", 1.4), Person("06", "LAS", "SIEMENS", 0.9))
    pairs = find_pairs(write_cohort(tmp_path, people))
    before = fit_target_scaling(kind, pairs[:4], GRID, tmp_path / "cache", min_participants=2)
    for pair in pairs[4:]:
        changed(pair, lambda values: values.__imul__(50))
    after = fit_target_scaling(kind, pairs[:4], GRID, tmp_path / "cache", min_participants=2)
    alone = fit_target_scaling(kind, find_pairs(tmp_path)[:4], GRID, None, min_participants=2)
    assert before == after == alone
    changed(pairs[0], lambda values: values.__imul__(1.5))
    assert fit_target_scaling(kind, pairs[:4], GRID, tmp_path / "cache", min_participants=2) != before


@pytest.mark.parametrize("kind", ["by-manufacturer", "min-max"])
def test_the_fit_depends_neither_on_the_order_nor_on_the_grid(pairs, kind):
    fits = [
        fit_target_scaling(kind, chosen, grid, min_participants=2)
        for chosen, grid in ((pairs, GRID), (pairs[::-1], Grid((8, 12, 8), (4, 4, 4))))
    ]
    assert fits[0] == fits[1]


@pytest.mark.parametrize("kind", ["by-manufacturer", "min-max"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_inverting_gives_the_suvr_back_and_keeps_the_precision(pairs, kind, dtype):
    found = fit_target_scaling(kind, pairs, GRID, min_participants=2)
    suvr = np.random.default_rng(0).uniform(-1, 5, (4, 5, 6)).astype(dtype)
    z = found.apply(suvr, "GE MEDICAL SYSTEMS")
    assert z.dtype == found.invert(z, "GE").dtype == dtype
    np.testing.assert_allclose(found.invert(z, "GE"), suvr, atol=1e-6 if dtype == np.float32 else 1e-12)


def test_min_and_max_become_minus_one_and_one_and_nothing_is_clipped():
    found = MinMax(0.5, 2.5)
    np.testing.assert_allclose(found.apply(np.array([0.5, 1.5, 2.5, 3.5, -0.5]), None), [-1, 0, 1, 2, -2])


@pytest.mark.parametrize("found", [MinMax(0.1 + 0.2, 1 / 3 + 2, ("sub-01", "sub-02")), None])
def test_a_target_scaling_comes_back_from_its_folder_to_the_last_bit(tmp_path, target_scaling, found):
    found = found or target_scaling
    assert found.save(tmp_path).parent == tmp_path
    assert load_target_scaling(tmp_path, found.kind) == found


def test_what_becomes_of_unknown_manufacturers_comes_back_too(tmp_path, target_scaling):
    target_scaling.save(tmp_path)
    pooled = load_target_scaling(tmp_path, "manufacturer", "pooled")
    assert isinstance(pooled, ByManufacturer)
    mean = pooled.standardization.pooled.mean
    assert pooled.invert(np.zeros(1), "Acme")[0] == pytest.approx(mean)
    with pytest.raises(UnknownNameError, match="GE, Siemens"):
        load_target_scaling(tmp_path, "manufacturer").invert(np.zeros(1), "Acme")


def test_a_range_that_is_none_and_a_kind_that_is_unknown_are_refused(tmp_path, pairs):
    for low, high in ((1, 1), (2, 1), (np.nan, 1), (0, np.inf)):
        with pytest.raises(SettingError, match="no range"):
            MinMax(low, high)
    with pytest.raises(SettingError, match="'z-score'"):
        load_target_scaling(tmp_path, "z-score")
    with pytest.raises(SettingError, match="no training pair"):
        fit_target_scaling("min-max", [], GRID)


def test_a_damaged_or_missing_table_of_a_range_is_named(tmp_path):
    with pytest.raises(MissingInputError, match=r"minmax\.tsv"):
        MinMax.load(tmp_path)
    for text in ("low\thigh\n1\t2\n", "low\thigh\tparticipants\n", "low\thigh\tparticipants\nx\t2\tsub-01\n"):
        (tmp_path / "minmax.tsv").write_text(text, encoding="utf-8")
        with pytest.raises(DamagedFileError, match=r"minmax\.tsv"):
            MinMax.load(tmp_path)


# --- one pair on the grid ---


def test_suvr_and_labels_of_an_upright_pair_are_the_files_voxels(pairs):
    found = prepare(pairs[0], GRID)
    suvr, dseg, mask = (
        np.asarray(nib.load(path).dataobj) for path in (pairs[0].suvr_file, pairs[0].dseg_file, pairs[0].mask_file)
    )
    assert found.placement.exact
    back = {
        name: np.asarray(from_grid(getattr(found, name), found.placement).dataobj)
        for name in ("suvr", "labels", "known")
    }
    np.testing.assert_array_equal(back["suvr"], np.where(mask > 0, suvr, 0))
    np.testing.assert_array_equal(back["labels"], dseg)
    np.testing.assert_array_equal(back["known"], mask)


def test_every_orientation_gives_the_same_brain_within_what_interpolation_changes(tmp_path):
    for label, orientation in (("01", "RAS"), ("02", "LIA"), ("03", "oblique")):
        write_person(tmp_path, Person(label, orientation, shape=(26, 26, 26)))
    first, *others = [prepare(pair, GRID) for pair in find_pairs(tmp_path)]
    for other in others:
        both = first.brain & other.brain
        assert both.sum() > 0.9 * max(first.brain.sum(), other.brain.sum())
        # The boxes are found to a voxel; SUVR changes by at most 0.1 a voxel.
        assert np.abs(first.suvr - other.suvr)[both].max() < 0.15


@pytest.mark.parametrize("missing", [0.0, np.nan])
def test_brain_that_the_pet_does_not_cover_is_neither_in_the_mask_nor_in_the_fit(tmp_path, missing):
    pairs = find_pairs(write_cohort(tmp_path, PEOPLE[:1]))
    whole = prepare(pairs[0], GRID)

    def cut(values):
        values[:, :, :8] = missing

    changed(pairs[0], cut)
    found = prepare(pairs[0], GRID)
    assert 0 < found.known.sum() < whole.known.sum()
    np.testing.assert_array_equal(found.brain, whole.brain)
    np.testing.assert_array_equal(found.t1w, whole.t1w)
    np.testing.assert_array_equal(found.suvr[found.known], whole.suvr[found.known])
    assert (found.suvr[~found.known] == 0).all()
    left = np.asarray(nib.load(pairs[0].suvr_file).dataobj)[:, :, 8:][
        np.asarray(nib.load(pairs[0].mask_file).dataobj)[:, :, 8:] > 0
    ]
    assert found.moments.n_voxels == left.size
    assert found.moments.mean == pytest.approx(left.astype(np.float64).mean())
    item = PairDataset(pairs, GRID, MinMax(0.5, 2.0))[0]
    assert (item["pet"][~item["mask"]] == -1).all()
    assert torch.equal(item["mask"][0], torch.from_numpy(found.known))


@pytest.mark.parametrize("name", ["t1w_file", "mask_file", "dseg_file", "suvr_file"])
def test_a_damaged_file_is_named_with_its_scan(tmp_path, name):
    pairs = find_pairs(write_cohort(tmp_path))
    path = getattr(pairs[1], name)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DamagedFileError, match=rf"^sub-02_trc-AV1451: .*{path.name} is damaged"):
        check_pairs(pairs, GRID)


def test_a_file_that_has_gone_is_named_with_its_scan(tmp_path):
    pairs = find_pairs(write_cohort(tmp_path))
    pairs[2].mask_file.unlink()
    for cache_dir in (None, tmp_path / "cache"):
        with pytest.raises((MissingInputError, DamagedFileError), match=r"^sub-03_trc-AV1451: .*mask\.nii\.gz"):
            check_pairs(pairs, GRID, cache_dir)


def test_files_of_a_pair_on_different_grids_are_refused_with_the_scan(tmp_path):
    pairs = find_pairs(write_cohort(tmp_path))
    save_volume(load_volume(pairs[0].suvr_file), pairs[1].suvr_file)
    with pytest.raises(GridMismatchError, match=r"^sub-02_trc-AV1451: suvr"):
        check_pairs(pairs, GRID)


def test_brains_that_the_grid_cuts_are_said_once_each(pairs):
    assert check_pairs(pairs, GRID) == []
    said = check_pairs([*pairs, pairs[0]], Grid((16, 16, 16), (2, 2, 2)))
    assert len(said) == len(pairs)
    assert all("sub-0" in sentence and "posterior-anterior" in sentence for sentence in said)


# --- cache ---


def same(a, b):
    arrays = all(
        np.array_equal(getattr(a, name), getattr(b, name)) for name in ("t1w", "suvr", "brain", "known", "labels")
    )
    return arrays and (a.placement, a.moments, a.suvr_range) == (b.placement, b.moments, b.suvr_range)


def test_what_comes_from_the_cache_is_what_would_have_been_computed(tmp_path, pairs, monkeypatch):
    first = [prepare(pair, GRID, tmp_path) for pair in pairs]
    monkeypatch.setattr(preparation, "load_volume", lambda *_: pytest.fail("an image was read again"))
    for pair, before in zip(pairs, first, strict=True):
        assert same(prepare(pair, GRID, tmp_path), before)
    assert len(list(tmp_path.iterdir())) == len(pairs)


def test_a_changed_file_another_grid_or_another_version_is_another_entry(tmp_path, monkeypatch):
    (pair,) = find_pairs(write_cohort(tmp_path, PEOPLE[:1]))
    keys = [cache_key(pair, GRID), cache_key(pair, Grid((16, 20, 16), (2, 2, 2.5)))]
    for path in (pair.t1w_file, pair.mask_file, pair.dseg_file, pair.suvr_file):
        stat = path.stat()
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
        keys.append(cache_key(pair, GRID))
    with gzip.open(pair.suvr_file, "ab") as file:
        file.write(b"more")
    keys.append(cache_key(pair, GRID))
    monkeypatch.setattr(preparation, "CACHE_VERSION", -1)
    keys.append(cache_key(pair, GRID))
    assert len(set(keys)) == len(keys)


def test_an_entry_that_was_checked_is_mapped_and_changes_stay_out_of_the_file(tmp_path, pairs):
    before = prepare(pairs[0], GRID, tmp_path)
    entry = next(tmp_path.iterdir())
    content = entry.read_bytes()
    read, mapped = (prepare(pairs[0], GRID, tmp_path) for _ in range(2))
    assert same(read, before)
    assert same(mapped, before)
    assert isinstance(mapped.suvr.base, np.memmap)
    mapped.suvr[:] = 7
    assert entry.read_bytes() == content
    assert same(prepare(pairs[0], GRID, tmp_path), before)


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b[:3000] + b"\xff" + b[3001:]])
def test_a_damaged_entry_of_the_cache_is_made_anew(tmp_path, pairs, damage):
    before = prepare(pairs[0], GRID, tmp_path)
    (entry,) = tmp_path.iterdir()
    whole = entry.read_bytes()
    entry.write_bytes(damage(whole))
    assert same(prepare(pairs[0], GRID, tmp_path), before)
    assert same(preparation._from_cache(entry, pairs[0]), before)


def test_an_entry_that_could_not_be_written_leaves_nothing_behind(tmp_path, pairs, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match=r"^sub-01_trc-AV1451: .*No space left"):
        prepare(pairs[0], GRID, tmp_path)
    assert list(tmp_path.iterdir()) == []


# --- dataset ---


def test_an_item_has_the_shapes_types_and_scales_that_a_network_takes(pairs, target_scaling):
    for n, pair in enumerate(pairs):
        item = PairDataset(pairs, GRID, target_scaling, labels=True)[n]
        shape = (1, *GRID.shape)
        assert {name: (tuple(item[name].shape), item[name].dtype) for name in ("t1w", "pet", "mask", "labels")} == {
            "t1w": (shape, torch.float32),
            "pet": (shape, torch.float32),
            "mask": (shape, torch.bool),
            "labels": (shape, torch.int32),
        }
        names = (item["participant"], item["scan"], item["manufacturer"], item["index"])
        assert names == (pair.participant, pair.scan, pair.manufacturer, n)
        assert item["t1w"].abs().max() <= 1
        assert (item["t1w"][~item["mask"]] == -1).all()
        assert (item["pet"][~item["mask"]] == 0).all()


@pytest.mark.parametrize("kind", ["by-manufacturer", "min-max"])
def test_inverting_an_items_pet_gives_the_suvr_on_the_grid(pairs, kind):
    found = fit_target_scaling(kind, pairs, GRID, min_participants=2)
    dataset = PairDataset(pairs, GRID, found)
    for n in range(len(pairs)):
        item, known = dataset[n], dataset.prepared(n).known
        suvr = found.invert(item["pet"][0].numpy(), item["manufacturer"])
        np.testing.assert_allclose(suvr[known], dataset.prepared(n).suvr[known], atol=1e-5)


def test_the_standardised_pet_of_an_unseen_manufacturer_is_refused_with_the_known_ones(tmp_path, target_scaling):
    write_person(tmp_path, Person("09", manufacturer="Philips"))
    with pytest.raises(UnknownNameError, match=r"'Philips'; fitted are: GE, Siemens"):
        PairDataset(find_pairs(tmp_path), GRID, target_scaling)[0]


def test_a_batch_is_its_items_stacked(pairs, target_scaling):
    dataset = PairDataset(pairs, GRID, target_scaling, augmentation="paper", random_seed=3, labels=True)
    (batch,) = DataLoader(dataset, batch_size=4)
    for n in range(4):
        for name in ("t1w", "pet", "mask", "labels"):
            assert torch.equal(batch[name][n], dataset[n][name])
    assert batch["t1w"].shape == (4, 1, *GRID.shape)
    assert batch["participant"] == ["01", "02", "03", "04"]


def differ(a, b):
    return not torch.equal(a["t1w"], b["t1w"])


def test_augmentation_is_a_function_of_seed_epoch_and_index_alone(pairs, target_scaling):
    dataset, again = (PairDataset(pairs, GRID, target_scaling, augmentation="paper", random_seed=7) for _ in range(2))
    other = PairDataset(pairs, GRID, target_scaling, augmentation="paper", random_seed=8)
    for each in (dataset, again, other):
        each.set_epoch(5)
    first = {n: dataset[n] for n in (0, 1, 2, 3)}
    for n in (3, 1, 0, 2):
        assert not differ(again[n], first[n])
        assert differ(other[n], first[n])
    dataset.set_epoch(6)
    assert all(differ(dataset[n], first[n]) for n in first)
    dataset.set_epoch(5)
    assert not any(differ(dataset[n], first[n]) for n in first)


def test_without_augmentation_the_epoch_makes_no_difference(pairs, target_scaling):
    dataset = PairDataset(pairs, GRID, target_scaling, random_seed=7)
    first = dataset[0]
    dataset.set_epoch(3)
    assert not differ(dataset[0], first)
    assert dataset.drawn(0) is None


def test_workers_that_share_a_cache_and_outlive_epochs_give_the_same_items(tmp_path, pairs, target_scaling):
    alone = PairDataset(pairs, GRID, target_scaling, augmentation="paper", random_seed=1)
    shared = PairDataset(pairs * 2, GRID, target_scaling, tmp_path, "paper", 1)
    loader = DataLoader(shared, batch_size=1, num_workers=2, persistent_workers=True)
    for epoch in (0, 1):
        shared.set_epoch(epoch)
        alone.set_epoch(epoch)
        items = list(loader)
        for n in range(4):
            assert torch.equal(items[n]["t1w"][0], alone[n]["t1w"])
            assert torch.equal(items[n]["pet"][0], alone[n]["pet"])
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".npz"] * 4


def test_the_fit_can_be_used_by_the_group_level_and_the_other_way_round(tmp_path, target_scaling):
    path = target_scaling.save(tmp_path)
    assert Standardization.load(path, "flortaucipir", "CerebellarGM") == target_scaling.standardization


# --- what was not measured ---


@pytest.mark.parametrize("fill", [np.nan, 0.0])
def test_nothing_on_the_grid_is_mixed_with_what_was_not_measured(tmp_path, fill):
    pair = find_pairs(write_cohort(tmp_path))[0]

    def cut(values):
        values[...] = 1.5
        values[:, :, values.shape[2] // 2 :] = fill

    changed(pair, cut)
    found = prepare(pair, Grid((16, 20, 16), (2.3, 2.3, 2.3)))
    assert 0 < found.known.sum() < found.brain.sum()
    np.testing.assert_allclose(found.suvr[found.known], 1.5, rtol=1e-5)
    assert (found.suvr[~found.known] == 0).all()
    assert found.suvr_range == (1.5, 1.5)
    assert found.moments.mean == pytest.approx(1.5)
