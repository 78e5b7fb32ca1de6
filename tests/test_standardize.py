"""Standardisation by manufacturer: what it fits, that it inverts, and that nothing leaks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tau_pipeline.atlas import manufacturer_aliases, tables_dir
from tau_pipeline.bids.manufacturers import canonical_manufacturer
from tau_pipeline.cohort.standardize import (
    BACKGROUND,
    ScanMoments,
    Standardization,
    fit_standardization,
    load_standardizations,
    participants_hash,
    save_standardizations,
    scan_moments,
)
from tau_pipeline.errors import DamagedFileError, ImageError, MissingInputError, SettingError, UnknownNameError
from tau_pipeline.files import read_tsv

MAKERS = ("SIEMENS", "GE MEDICAL SYSTEMS", "Philips Medical Systems")


def brain(seed: int, maker: str, shape: tuple[int, int, int] = (6, 7, 8)) -> np.ndarray:
    """SUVR of one brain; makers differ in scale and offset."""
    scale, offset = {"SIEMENS": (1.0, 0.0), "GE MEDICAL SYSTEMS": (0.8, 0.1), "Philips Medical Systems": (1.3, -0.1)}[
        maker
    ]
    return (np.random.default_rng(seed).gamma(9, 0.13, shape) * scale + offset).astype(np.float32)


def cohort(n: int = 18) -> list[ScanMoments]:
    scans = []
    for k in range(n):
        suvr = brain(k, MAKERS[k % 3])
        scans.append(scan_moments(suvr, np.ones(suvr.shape), f"sub-{k:02d}", MAKERS[k % 3]))
    return scans


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("SIEMENS", "Siemens"),
        ("Siemens Healthineers", "Siemens"),
        ("Siemens/CTI", "Siemens"),
        ("CPS", "Siemens"),
        ("GE MEDICAL SYSTEMS", "GE"),
        ("GE Healthcare", "GE"),
        ("General Electric", "GE"),
        (" philips  medical systems ", "Philips"),
        ("MiE", "MiE"),
        ("UIH", "United Imaging"),
    ],
)
def test_a_manufacturer_has_one_name_for_all_spellings(spelling: str, name: str) -> None:
    assert canonical_manufacturer(spelling) == name


@pytest.mark.parametrize("spelling", ["", None, "Acme", "n/a"])
def test_an_unknown_manufacturer_is_an_error_that_lists_the_known_ones(spelling: str | None) -> None:
    with pytest.raises(UnknownNameError, match="Siemens, GE, Philips"):
        canonical_manufacturer(spelling)


def test_a_misspelt_manufacturer_is_told_what_was_probably_meant() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'Siemens'"):
        canonical_manufacturer("Seimens")


def test_every_alias_is_spelt_as_it_is_looked_up_and_names_its_source() -> None:
    table = read_tsv(tables_dir() / "manufacturers.tsv")
    assert table["alias"].is_unique
    assert table["alias"].str.fullmatch("[a-z0-9]+").all()
    assert table["source"].str.len().min() > 3
    assert set(manufacturer_aliases()) == set(table["alias"])


def test_moments_are_those_of_the_finite_voxels_of_the_mask() -> None:
    suvr = np.array([[[1.0, 2.0, np.nan, 100.0]]])
    found = scan_moments(suvr, np.array([[[1, 1, 1, 0]]]), "sub-01", "GE")
    assert (found.mean, found.mean_square, found.n_voxels) == (1.5, 2.5, 2)


def test_moments_of_another_grid_or_of_an_empty_mask_are_refused() -> None:
    with pytest.raises(ImageError, match="one grid"):
        scan_moments(np.ones((2, 2, 2)), np.ones((2, 2, 3)), "sub-01", "GE")
    with pytest.raises(ImageError, match="no voxel"):
        scan_moments(np.ones((2, 2, 2)), np.zeros((2, 2, 2)), "sub-01", "GE")


def test_the_fit_is_mean_and_sd_of_all_brain_voxels_where_brains_are_equally_large() -> None:
    found = fit_standardization(cohort())
    for maker in MAKERS:
        voxels = np.concatenate([brain(k, maker).ravel() for k in range(18) if MAKERS[k % 3] == maker])
        group = found.group_of(maker)
        assert group.mean == pytest.approx(voxels.astype(np.float64).mean(), rel=1e-12)
        assert group.sd == pytest.approx(voxels.astype(np.float64).std(), rel=1e-9)


def test_every_participant_weighs_the_same_whatever_the_brain_size_or_number_of_scans() -> None:
    big = scan_moments(np.full((9, 9, 9), 3.0) + np.eye(9), np.ones((9, 9, 9)), "sub-big", "GE")
    small = scan_moments(np.array([[[0.0, 2.0]]]), np.ones((1, 1, 2)), "sub-small", "GE")
    once = fit_standardization([big, small], min_participants=2)
    assert once.group_of("GE").mean == pytest.approx((big.mean + small.mean) / 2)
    twice = fit_standardization([big, small, small, small], min_participants=2)
    assert twice.group_of("GE") == once.group_of("GE")


def test_the_order_of_the_scans_changes_nothing() -> None:
    scans = cohort()
    assert fit_standardization(scans[::-1]) == fit_standardization(scans)
    assert fit_standardization(scans[::-1]).hash == fit_standardization(scans).hash


def test_a_fit_on_a_subset_does_not_depend_on_the_rest() -> None:
    training = [f"sub-{k:02d}" for k in range(15)]
    others = [replace(scan, mean=99.0, mean_square=1e5) for scan in cohort() if scan.participant not in training]
    mixed = [scan for scan in cohort() if scan.participant in training] + others
    alone = [scan for scan in cohort() if scan.participant in training]
    assert fit_standardization(mixed, training) == fit_standardization(alone) == fit_standardization(cohort(), training)
    assert fit_standardization(cohort(), [label.removeprefix("sub-") for label in training]).participants == tuple(
        training
    )


def test_after_standardisation_every_manufacturer_has_mean_0_and_sd_1() -> None:
    found = fit_standardization(cohort())
    for maker in MAKERS:
        z = np.concatenate([found.apply(brain(k, maker), maker).ravel() for k in range(18) if MAKERS[k % 3] == maker])
        assert abs(z.mean(dtype=np.float64)) < 1e-6
        assert abs(z.std(dtype=np.float64) - 1) < 1e-6


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_inverting_gives_back_the_values_to_their_precision(dtype: type) -> None:
    found = fit_standardization(cohort())
    suvr = np.random.default_rng(5).gamma(9, 0.13, (20, 20, 20)).astype(dtype)
    z = found.apply(suvr, "CPS")
    back = found.invert(z, "Siemens Healthineers")
    assert z.dtype == back.dtype == dtype
    # A rounding of z by half a unit in its last place becomes that many SDs of SUVR.
    tolerance = np.finfo(dtype).eps * (np.abs(z).max() * found.group_of("CPS").sd + suvr.max())
    assert np.abs(back - suvr).max() <= tolerance


def test_numbers_of_a_table_are_standardised_like_voxels() -> None:
    found = fit_standardization(cohort())
    z = found.apply(1.25, "GE")
    assert isinstance(z, float)
    assert z == pytest.approx((1.25 - found.group_of("GE").mean) / found.group_of("GE").sd)
    assert found.invert(z, "GE") == pytest.approx(1.25, rel=1e-15)


def test_the_background_is_a_constant_and_the_brain_is_untouched_by_the_mask() -> None:
    found, suvr = fit_standardization(cohort()), brain(1, MAKERS[1])
    mask = suvr > 1
    z = found.apply(suvr, "GE", mask)
    assert z.dtype == np.float32
    assert (z[~mask] == BACKGROUND).all()
    assert np.array_equal(z[mask], found.apply(suvr, "GE")[mask])


def test_the_input_is_left_as_it_is() -> None:
    found, suvr = fit_standardization(cohort()), brain(1, MAKERS[1])
    before = suvr.copy()
    found.apply(suvr, "GE", suvr > 1)
    found.invert(suvr, "GE")
    assert np.array_equal(suvr, before)


def test_a_manufacturer_with_too_few_participants_is_an_error_that_lists_the_others() -> None:
    rare = replace(cohort()[0], participant="sub-99", manufacturer="UIH")
    with pytest.raises(UnknownNameError, match=r"United Imaging has 1 participant \(sub-99\).*GE, Philips, Siemens"):
        fit_standardization([*cohort(), rare])


def test_a_manufacturer_nobody_knows_is_an_error_that_names_the_participant() -> None:
    with pytest.raises(UnknownNameError, match=r"sub-99.*'Acme' is not known"):
        fit_standardization([*cohort(), replace(cohort()[0], participant="sub-99", manufacturer="Acme")])


def test_by_explicit_choice_unknown_manufacturers_are_standardised_with_everybody_together() -> None:
    odd = replace(cohort()[0], participant="sub-99", manufacturer=None)
    found = fit_standardization([*cohort(), odd], unknown="pooled")
    everybody = [*cohort(), odd]
    mean = np.mean([scan.mean for scan in everybody])
    sd = np.sqrt(np.mean([scan.mean_square for scan in everybody]) - mean**2)
    assert found.apply(2.0, None) == pytest.approx((2.0 - mean) / sd)
    assert found.known == ("GE", "Philips", "Siemens")
    assert "sub-99" in found.participants


def test_left_out_manufacturers_change_nothing_for_the_others_and_stay_unknown() -> None:
    odd = replace(cohort()[0], participant="sub-99", manufacturer="Acme")
    found = fit_standardization([*cohort(), odd], unknown="exclude")
    assert found.groups == fit_standardization(cohort()).groups
    assert "sub-99" not in found.participants
    with pytest.raises(UnknownNameError, match="fitted are: GE, Philips, Siemens"):
        found.apply(1.0, "Acme")


def test_a_participant_who_should_be_used_but_has_no_scan_is_named() -> None:
    with pytest.raises(SettingError, match="no scan of sub-77"):
        fit_standardization(cohort(), ["sub-00", "77"])


def test_nothing_to_fit_on_and_mixed_kinds_are_refused() -> None:
    with pytest.raises(SettingError, match="no scan"):
        fit_standardization([])
    with pytest.raises(SettingError, match="AV1451 by Pons; MK6240 by Pons"):
        fit_standardization(
            [replace(scan, tracer=t, reference_region="Pons") for scan in cohort() for t in ("AV1451", "MK6240")]
        )


def test_a_constant_image_is_refused() -> None:
    flat = [ScanMoments(f"sub-{k}", "GE", 1.0, 1.0, 10) for k in range(5)]
    with pytest.raises(ImageError, match="same everywhere"):
        fit_standardization(flat)


def test_saved_and_loaded_is_the_same_to_the_last_bit(tmp_path: Path) -> None:
    found = fit_standardization([replace(scan, tracer="AV1451", reference_region="Pons") for scan in cohort()])
    found.save(tmp_path / "standardization.tsv")
    loaded = Standardization.load(tmp_path / "standardization.tsv")
    assert loaded == found
    assert loaded.hash == found.hash
    table = read_tsv(tmp_path / "standardization.tsv")
    assert list(table["manufacturer"]) == ["GE", "Philips", "Siemens", "pooled"]
    assert list(table["n_participants"]) == [6, 6, 6, 18]


def test_several_fits_in_one_file_are_told_apart(tmp_path: Path) -> None:
    kinds = [("AV1451", "CerebellarGM"), ("AV1451", "Pons"), ("MK6240", "CerebellarGM")]
    fits = [
        fit_standardization([replace(s, mean=s.mean - k / 50, tracer=t, reference_region=r) for s in cohort()])
        for k, (t, r) in enumerate(kinds)
    ]
    path = tmp_path / "standardization.tsv"
    save_standardizations(fits, path)
    assert load_standardizations(path) == fits
    assert Standardization.load(path, "AV1451", "Pons") == fits[1]
    assert Standardization.load(path, "MK6240") == fits[2]
    with pytest.raises(UnknownNameError, match=r"holds 2 fits of tracer AV1451.*AV1451 by Pons"):
        Standardization.load(path, "AV1451")


def test_a_table_that_was_edited_or_is_no_such_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "standardization.tsv"
    fit_standardization(cohort()).save(path)
    text = path.read_text()
    path.write_text(text.replace(" sub-04", ""))
    with pytest.raises(DamagedFileError, match="do not match their hash"):
        Standardization.load(path)
    path.write_text("\n".join(line for line in text.splitlines() if "pooled" not in line) + "\n")
    with pytest.raises(DamagedFileError, match="no row 'pooled'"):
        Standardization.load(path)
    path.write_text(text.replace("mean", "average"))
    with pytest.raises(DamagedFileError, match="no column mean"):
        Standardization.load(path)
    with pytest.raises(MissingInputError, match="no table"):
        Standardization.load(tmp_path / "nowhere.tsv")


def test_a_mean_that_is_no_number_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "standardization.tsv"
    found = fit_standardization(cohort())
    found.save(path)
    path.write_text(path.read_text().replace(f"{found.group_of('GE').sd:.17g}", "0"))
    with pytest.raises(DamagedFileError, match="mean and sd of GE"):
        Standardization.load(path)


def test_the_hash_of_participants_depends_on_who_they_are_alone() -> None:
    assert participants_hash(["b", "a", "a"]) == participants_hash(["a", "b"]) != participants_hash(["ab"])
