"""Voxelwise comparison of maps, on made-up cohorts whose differences are known."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from participant_results import AFFINE, labels, write_cohort
from scipy import ndimage

from tau_pipeline.cohort.design import design_matrix, parse_terms
from tau_pipeline.cohort.voxelwise import ScanMap, compare, gray_matter, smoothed, with_regions
from tau_pipeline.derivatives.names import AnatNames, PetNames, sidecar_path
from tau_pipeline.errors import SettingError
from tau_pipeline.files import read_json, read_tsv, write_json
from tau_pipeline.imaging.load import load_volume
from tau_pipeline.imaging.volume import Volume, image_on, save_volume
from tau_pipeline.settings.participant import Settings
from tau_pipeline.settings.spaces import parse_space
from tau_workflows.cli import main
from tau_workflows.levels import group
from tau_workflows.levels.call import DONE, WRONG_CALL
from tau_workflows.reports.methods import methods_text, planned
from tau_workflows.reports.voxelwise import methods_of, voxelwise_pages

MNI = parse_space("MNI152NLin6Asym")


def covariates(count: int = 20, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "diagnosis": np.resize(["AD", "CN"], count),
            "age": rng.normal(70, 8, count),
            "sex": rng.choice(["F", "M"], count),
            "site": np.resize(["a", "b", "c"], count),
        }
    )


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int, int]) -> np.ndarray:
    noise = ndimage.gaussian_filter(rng.normal(0, 1, shape), 1.0)
    return noise / noise.std()


def made_up_maps(count: int, shape: tuple[int, int, int], seed: int, voxel_mm: float = 8.0) -> list[Volume]:
    rng = np.random.default_rng(seed)
    return [
        image_on((1.2 + 0.1 * smooth_noise(rng, shape)).astype(np.float32), np.diag([voxel_mm] * 3 + [1.0]))
        for _ in range(count)
    ]


@pytest.mark.parametrize(
    ("contrast", "tested"), [(None, "AD - CN"), ("CN - AD", "CN - AD"), ("age", "age"), ("c - a", "c - a")]
)
def test_the_tested_coefficient_is_the_difference_that_it_is_called_after(contrast: str | None, tested: str) -> None:
    table = covariates()
    design = design_matrix(table, contrast)
    assert design.columns[0] == tested
    effects = {"AD": 0.3, "CN": -0.2, "F": 0.1, "M": 0.4, "a": 0.0, "b": 0.7, "c": -0.4}
    value = sum(table[name].map(effects) for name in ("diagnosis", "sex", "site")) + 0.05 * table["age"]
    found = np.linalg.lstsq(design.to_numpy(), value.to_numpy(float), rcond=None)[0]
    plus, _, minus = tested.partition(" - ")
    expected = effects[plus] - effects[minus] if minus else 0.05
    assert found[0] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("formula", ["diagnosis * age", "diagnosis +", "", "age + age", "log(age)", "~ age"])
def test_a_formula_has_names_joined_by_plus_only(formula: str) -> None:
    with pytest.raises(SettingError, match="voxelwise is"):
        parse_terms(formula)


@pytest.mark.parametrize(
    ("columns", "contrast", "sentence"),
    [
        (["site", "age"], None, "site has 3 groups (a, b, c); choose two with --contrast 'A - B'"),
        (
            ["diagnosis", "age"],
            "AD - MCI",
            "two groups of one covariate (diagnosis: CN, AD), or a numeric covariate (age)",
        ),
        (["diagnosis", "age"], "AD", "contrast is 'AD'"),
        (["age", "twice"], None, "determine each other"),
        (["age", "same"], None, "same is the same for all scans"),
        (["age", "one"], None, "one is F for all scans; leave it out"),
    ],
)
def test_what_a_design_cannot_answer_is_told(columns: list[str], contrast: str | None, sentence: str) -> None:
    table = covariates().assign(same=1.0, one="F")
    table = table.assign(twice=2 * table["age"])
    with pytest.raises(SettingError) as error:
        design_matrix(table[columns], contrast)
    assert sentence in str(error.value)


def test_too_few_scans_are_told_with_the_number_that_is_needed() -> None:
    with pytest.raises(SettingError, match=r"5 scans are too few for 6 columns .*; expected: at least 8"):
        design_matrix(covariates(5).assign(sex=list("FMFMM")))


@pytest.mark.slow
def test_a_planted_difference_is_found_where_it_is_and_with_its_sign() -> None:
    shape, count = (14, 16, 14), 24
    table = covariates(count, seed=3)[["diagnosis", "age"]]
    sick = (table["diagnosis"] == "AD").to_numpy()
    there = np.zeros(shape, bool)
    there[3:7, 4:8, 4:8] = True
    images = made_up_maps(count, shape, seed=5)
    planted = [
        image_on(np.asanyarray(one.dataobj) + np.float32(0.2) * (there & who), one.affine)
        for one, who in zip(images, sick, strict=True)
    ]
    mask = image_on(np.ones(shape, np.uint8), images[0].affine)
    found = compare(planted, mask, design_matrix(table), permutations=40, seed=1)
    significant = np.asanyarray(found.maps["thresholded"].dataobj)
    assert found.smallest_p < 0.05
    assert (significant[there] > 0).mean() > 0.8
    assert (significant[~ndimage.binary_dilation(there, iterations=2)] != 0).mean() < 0.02
    assert found.clusters.loc[0, "direction"] == "positive"
    x, y, z = (found.clusters.loc[0, ["x_mm", "y_mm", "z_mm"]] / 8).astype(int)
    assert there[x, y, z]
    data, matrix = np.stack([np.asanyarray(one.dataobj) for one in planted]), design_matrix(table).to_numpy()
    plain = np.linalg.lstsq(matrix, data.reshape(count, -1), rcond=None)[0][0].reshape(shape)
    np.testing.assert_allclose(np.asanyarray(found.maps["effect"].dataobj), plain, atol=1e-4)


@pytest.mark.slow
def test_without_a_difference_one_is_found_as_rarely_as_stated() -> None:
    """In 20 cohorts at p < 0.05, more than 3 would come by chance with a probability of 1.6 %."""
    shape = (10, 11, 10)
    mask = image_on(np.ones(shape, np.uint8), np.diag([8.0, 8.0, 8.0, 1.0]))
    found = 0
    for seed in range(20):
        design = design_matrix(covariates(16, seed)[["diagnosis", "age"]])
        found += compare(made_up_maps(16, shape, 100 + seed), mask, design, 39, seed).smallest_p < 0.05
    assert found <= 3


def test_maps_come_to_one_resolution_and_gray_matter_is_what_all_have(tmp_path: Path) -> None:
    """A point that is 6 mm wide already, brought to 10 mm, is as wide as a point that is smoothed by 10 mm."""
    shape, affine = (31, 31, 31), np.diag([2.0, 2.0, 2.0, 1.0])
    point = np.zeros(shape, np.float32)
    point[15, 15, 15] = 1
    dseg = np.full(shape, 1024, np.int16)
    dseg[:, :, :6] = 2
    dseg[:, :6, :] = 8
    sigma = 6 / 2.3548 / 2
    maps = []
    for name, data, fwhm in (("a", ndimage.gaussian_filter(point, sigma), 6.0), ("b", point, None)):
        suvr = data.copy()
        suvr[:2] = np.nan
        files = [save_volume(image_on(one, affine), tmp_path / f"{name}{k}.nii") for k, one in enumerate((suvr, dseg))]
        maps.append(ScanMap(name, *files, fwhm))
    images, notes = smoothed(maps, 10.0)
    assert notes == []
    first, second = (np.asanyarray(one.dataobj) for one in images)
    np.testing.assert_allclose(first[8:], second[8:], atol=2e-5)
    mask = np.asanyarray(gray_matter(maps, images).dataobj) > 0
    assert mask[2:, 6:, 6:].all()
    assert mask.sum() == 29 * 25 * 25
    assert smoothed(maps, 5.0)[1] == ["not smoothed, since coarser than 5 mm already: a"]
    clusters = pd.DataFrame({"x_mm": [20.0], "y_mm": [20.0], "z_mm": [20.0]})
    assert with_regions(clusters, maps)["region"].tolist() == ["ctx-lh-precentral"]


def write_maps(out: Path) -> None:
    """SUVR and labels in a standard space, as the participant level leaves them."""
    for path in sorted(out.glob("sub-*/pet/*_space-T1w_desc-suvr_pet.nii.gz")):
        pet = PetNames.of(path)
        anat = AnatNames(out, {"sub": pet.entities["sub"]})
        save_volume(load_volume(path), pet.suvr_in(MNI))
        write_json(read_json(sidecar_path(path)), sidecar_path(pet.suvr_in(MNI)))
        save_volume(image_on(labels(), AFFINE), anat.dseg_in(MNI))


@pytest.mark.slow
def test_the_group_level_compares_maps_and_writes_tables_and_a_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(group, "write_group_report", lambda folder, *_: folder / "group/report.html")
    bids, out = write_cohort(tmp_path, n=18)
    options = ["--voxelwise", "group + manufacturer + age", "--voxelwise-permutations", "60", "--voxelwise-fwhm", "6"]
    call = [str(bids), str(out), "group", "--diagnosis-column", "group", *options]
    assert main([*call, "--contrast", "AD - CN"]) == WRONG_CALL
    assert "run the participant level with --output-spaces MNI152NLin6Asym:res-2" in capfd.readouterr().err
    assert not (out / "group").exists()
    write_maps(out)
    table = read_tsv(bids / "participants.tsv")
    table.loc[table["participant_id"] == "sub-00", "age"] = None
    table.to_csv(bids / "participants.tsv", sep="\t", index=False, na_rep="n/a")
    assert main(call) == WRONG_CALL
    assert "group has 3 groups (CN, AD, MCI); choose two with --contrast" in capfd.readouterr().err
    assert main([*call, "--contrast", "AD - CN"]) == DONE
    told = capfd.readouterr().err
    assert "voxelwise: left out without age: sub-00_trc-AV1451_pet" in told
    folder = out / "group/voxelwise/flortaucipir"
    design, record = read_tsv(folder / "design.tsv"), json.loads((folder / "voxelwise.json").read_text())
    assert list(design.columns)[3:] == [
        *("AD - CN", "group[MCI]", "manufacturer[Philips]", "manufacturer[SIEMENS]", "age", "intercept")
    ]
    assert (len(design), record["Scans"], record["Tested"]) == (17, 17, "AD - CN")
    clusters = read_tsv(folder / "clusters.tsv")
    assert clusters.loc[0, "direction"] == "positive"
    assert clusters.loc[0, "p_corrected"] < 0.05
    for name in ("effect", "t", "z", "tfce", "logp", "thresholded", "mask"):
        assert (folder / f"{name}.nii.gz").is_file()
    page = (folder / "report.html").read_text()
    assert page.count("data:image/png") == 3
    assert "SUVR maps of 17 scans (flortaucipir) in MNI152NLin6Asym" in page
    facts = replace(planned(Settings()), voxelwise=tuple(map(methods_of, voxelwise_pages(out))))
    assert "AD - CN was tested two-sided, adjusted for group[MCI]" in methods_text(facts)
    assert "Smith and Nichols 2009" in methods_text(facts)
    sidecar = sidecar_path(next(out.glob("sub-03/pet/*_space-MNI*_desc-suvr_pet.nii.gz")))
    write_json({**read_json(sidecar), "SettingsHash": "000000000000"}, sidecar)
    assert main([*call, "--contrast", "AD - CN"]) == WRONG_CALL
    assert "was made with other settings than the map on the T1w" in capfd.readouterr().err
