"""Work on the pages in a real browser: mosaic, keys and their file, links, viewer, large pictures, dark colors."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up_cohort import SIDECAR, status_table, write_group_files, write_participant
from PIL import Image

from tau_pipeline.derivatives.names import PetNames, sidecar_path
from tau_pipeline.derivatives.quality_override import read_decisions
from tau_pipeline.derivatives.status import ScanStatus, update_status
from tau_pipeline.figures.small import ABOUT, save_picture, volume_pictures
from tau_pipeline.files import read_json, write_json, write_text
from tau_pipeline.imaging.volume import Volume, image_on
from tau_pipeline.settings.execution import Execution
from tau_pipeline.settings.participant import Settings
from tau_workflows.reports.about import write_about
from tau_workflows.reports.cohort import write_group_report
from tau_workflows.reports.participant import write_participant_report

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")]

KEY = "sub-01_trc-AV1451_pet"
CHECK = {
    "Check": "nmi",
    "Description": "Fit of PET to T1w.",
    "Value": 1.02,
    "Unit": "1",
    "WarnBelow": 1.09,
    "FailBelow": 1.05,
    "Verdict": "fail",
    "LimitSource": "made-up limits",
    "Action": "Look at the coregistration.",
}


def names(label: str = "01", out: Path = Path()) -> PetNames:
    return PetNames(out, {"sub": label, "trc": "AV1451"})


def ramps() -> tuple[Volume, Volume, Volume]:
    """Images on a 2 mm grid whose values are their world positions: T1w 100 + x, PET 1 + z / 100; and a mask."""
    shape, affine = (60, 70, 60), np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = [-60, -70, -60]
    x, y, z = (affine[k, 3] + 2 * grid for k, grid in enumerate(np.indices(shape)))
    mask = (np.abs(x) < 40) & (np.abs(y) < 40) & (np.abs(z) < 40)
    t1w, pet, brain = (image_on(data.astype(np.float32), affine) for data in (100 + x, 1 + z / 100, mask))
    return t1w, pet, brain


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three participants: 01 fails a check and is dynamic, with volumes; 02 is good; 03 failed. And the cohort."""
    folder = tmp_path_factory.mktemp("out")
    status = status_table(9, bad_every=99).astype({"reason": object})
    status["quality_failed"], status["quality_warned"] = None, None
    status["quality"] = ["pass"] * 9
    status.loc[[1, 4], "quality"] = ["fail", "warn"]
    status.loc[1, "quality_failed"] = "nmi"
    status.loc[2, ["state", "reason"]] = ["failed", "no motion fits"]
    for name in ("scan", "participant_id"):
        status[name] = status[name].str.replace("sub-", "sub-0")
    write_group_files(folder, status)
    for label in ("01", "02"):
        write_participant(folder, label)
        update_status(folder, {f"sub-{label}_trc-AV1451_pet": ScanStatus(f"sub-{label}_trc-AV1451_pet", state="done")})
    key = "sub-03_trc-AV1451_pet"
    update_status(folder, {key: ScanStatus(key, reason="no motion fits")})
    more = {"FrameMotion": [0.4, 0.0, 2.9], "FrameIndices": [4, 5, 6], "QualityChecks": [CHECK]}
    write_json(SIDECAR | more, sidecar_path(names(out=folder).suvr()))
    for desc, volume in zip(("viewT1w", "viewPET"), volume_pictures(*ramps(), unit="SUVR"), strict=True):
        save_picture(volume, names(out=folder).figure(desc))
    write_about(folder, "01", "tau-pipeline bids out participant", Settings(), Execution(), 12.5)
    write_text("scan\tcheck\tverdict\twho\twhy\nsub-07_pet\tall\tfail\tA\told\n", folder / "quality_override.tsv")
    for label in ("01", "02", "03"):
        write_participant_report(folder, label)
    write_group_report(folder)
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[sync_api.Browser]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def context(browser: sync_api.Browser) -> Iterator[sync_api.BrowserContext]:
    """A browser without memory, as a new user has it."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    yield context
    context.close()


def opened(context: sync_api.BrowserContext, path: Path) -> sync_api.Page:
    page = context.new_page()
    page.on("pageerror", lambda error: pytest.fail(str(error)))
    page.goto(path.as_uri())
    return page


def saved(page: sync_api.Page, folder: Path) -> list[dict[str, str]]:
    with page.expect_download() as download:
        page.click("#review-save")
    assert download.value.suggested_filename == "quality_override.tsv"
    target = folder / "quality_override.tsv"
    download.value.save_as(target)
    with target.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def test_the_mosaic_shows_every_scan_the_worst_first_and_frames_the_bad_ones(
    context: sync_api.BrowserContext, out: Path
) -> None:
    page = opened(context, out / "group" / "report.html")
    tiles = page.locator(".mosaic li")
    assert tiles.count() == 9
    assert [str(tiles.nth(k).get_attribute("class")) for k in range(3)] == ["failed", "fail", "warn"]
    frames = tiles.evaluate_all("all => all.map(tile => getComputedStyle(tile).borderTopColor)")
    assert frames[0] == frames[1]
    assert len(set(frames[1:4])) == 3
    assert "nmi" in tiles.nth(1).inner_text()
    assert page.locator(".mosaic img").count() == 2  # the two that have a figure


def test_a_tile_a_row_and_a_point_lead_to_the_scan_and_its_page_leads_on(
    context: sync_api.BrowserContext, out: Path
) -> None:
    page = opened(context, out / "group" / "report.html")
    target = "/sub-01.html#pet-AV1451"
    for selector in (f".mosaic [data-scan={KEY}] a", f"#scan-table [data-scan={KEY}] a", f".points a[title={KEY}]"):
        assert str(page.locator(selector).first.get_attribute("href")).endswith(target[1:])
    page.click(f".mosaic [data-scan={KEY}] a")
    assert page.url.endswith(target)
    assert page.locator("#pet-AV1451").count() == 1
    page.keyboard.press("n")
    page.wait_for_url("**/sub-02.html")
    page.keyboard.press("p")
    page.wait_for_url("**/sub-01.html")
    page.click("#to-cohort")
    page.wait_for_url("**/group/report.html")


def test_points_lie_where_the_figure_draws_them(context: sync_api.BrowserContext, out: Path) -> None:
    """Under the center of each link the picture is not white."""
    page = opened(context, out / "group" / "report.html")
    colors = page.evaluate(
        """() => { const box = document.querySelector('.points'), image = box.querySelector('img');
        const canvas = document.createElement('canvas'); canvas.width = image.naturalWidth;
        canvas.height = image.naturalHeight; const context = canvas.getContext('2d'); context.drawImage(image, 0, 0);
        return [...box.querySelectorAll('a')].map(link => [...context.getImageData(
            parseFloat(link.style.left) / 100 * canvas.width, parseFloat(link.style.top) / 100 * canvas.height, 1, 1
        ).data].slice(0, 3)); }"""
    )
    assert len(colors) >= 9
    assert all(min(color) < 235 for color in colors)


def test_keys_decide_in_the_browser_and_the_file_can_be_read_again(
    context: sync_api.BrowserContext, out: Path, tmp_path: Path
) -> None:
    page = opened(context, out / "sub-01.html")
    page.fill("#review-who", "J. Doe")
    page.locator("#review-who").blur()
    page.keyboard.press("2")
    page.keyboard.press("3")
    page.keyboard.type("wrong\thead, n or p")
    page.keyboard.press("Enter")
    page.goto((out / "group" / "report.html").as_uri())
    assert page.locator(f".mosaic [data-scan={KEY}]").get_attribute("data-decided") == "fail"
    page.locator(".mosaic li").first.locator("a, .unlinked").focus()
    page.keyboard.press("n")
    page.keyboard.press("1")
    rows = saved(page, tmp_path)
    by_scan = {row["scan"]: row for row in rows}
    own = by_scan[KEY]
    assert (own["check"], own["verdict"], own["who"]) == ("all", "fail", "J. Doe")
    assert own["why"].split() == ["wrong", "head,", "n", "or", "p"]
    assert by_scan["sub-02_trc-AV1451_pet"]["verdict"] == "pass"
    assert by_scan["sub-07_pet"]["why"] == "old"
    decisions = read_decisions(tmp_path)
    assert next((one.scan, one.verdict) for one in decisions if one.who == "J. Doe") == (KEY, "fail")
    page.keyboard.press("0")
    assert "sub-02_trc-AV1451_pet" not in {row["scan"] for row in saved(page, tmp_path)}


def test_a_verdict_stands_first_with_what_to_do_and_all_checks_in_a_table(
    context: sync_api.BrowserContext, out: Path
) -> None:
    page = opened(context, out / "sub-01.html")
    first = page.locator("main > section").first
    assert "quality fail" in first.inner_text()
    assert "Look at the coregistration." in first.inner_text()
    cells = page.locator(".checks tbody tr").first.inner_text().split("\t")
    assert [cells[1], cells[3], cells[4]] == ["1.02", "fail", "made-up limits"]
    assert cells[2] == "warn below 1.09, fail below 1.05"
    assert page.locator(".motion .bar").count() == 3
    heights = page.locator(".motion rect").evaluate_all("all => all.map(bar => Number(bar.getAttribute('height')))")
    assert heights == pytest.approx([40 / 3, 0.0, 290 / 3], abs=0.1)
    about = page.locator("#about").inner_text()
    assert "tau-pipeline bids out participant" in about
    assert "12.5 minutes" in about


def readout(page: sync_api.Page) -> tuple[list[int], float]:
    text = page.locator(".readout").inner_text()
    place, value = text.split(" mm: SUVR ")
    return [int(part.split()[1]) for part in place.split(", ")], float(value.removeprefix("at least "))


def test_the_viewer_shows_the_values_at_the_places_of_the_world(context: sync_api.BrowserContext, out: Path) -> None:
    """The PET is 1 + z / 100, so that each place is known from its value."""
    page = opened(context, out / "sub-01.html")
    page.wait_for_selector(".viewer[data-ready]")
    coronal = page.locator("canvas[data-plane=coronal]")
    coronal.focus()
    seen = []
    for _ in range(4):
        place, value = readout(page)
        assert value == pytest.approx(1 + place[2] / 100, abs=0.02)
        seen.append(place)
        page.keyboard.press("ArrowUp")
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("PageUp")
    steps = np.diff(np.array(seen), axis=0)
    assert (np.abs(np.abs(steps) - 2.5) <= 0.51).all()
    assert (np.sign(steps) == [-1, 1, 1]).all()
    page.locator(".place[data-axis='2']").fill("5")
    assert readout(page)[0][2] == pytest.approx(-48 + 5 * 2.5, abs=3)
    frame = page.locator("canvas[data-plane=axial]").bounding_box()
    assert frame is not None
    page.mouse.click(frame["x"] + 0.9 * frame["width"], frame["y"] + 0.1 * frame["height"])
    assert all(mm > 20 for mm in readout(page)[0][:2])  # right and anterior


def test_the_slider_of_the_viewer_blends_gray_and_color(context: sync_api.BrowserContext, out: Path) -> None:
    page = opened(context, out / "sub-01.html")
    page.wait_for_selector(".viewer[data-ready]")
    pixel = """canvas => [...canvas.getContext('2d').getImageData(30, 30, 1, 1).data].slice(0, 3)"""
    axial = page.locator("canvas[data-plane=axial]")
    page.locator(".mixer").fill("0")
    gray = axial.evaluate(pixel)
    page.locator(".mixer").fill("1")
    color = axial.evaluate(pixel)
    assert len(set(gray)) == 1
    assert len(set(color)) == 3
    assert all(label for label in page.locator("canvas").evaluate_all("all => all.map(c => c.ariaLabel)"))


def test_pictures_open_large(context: sync_api.BrowserContext, out: Path) -> None:
    page = opened(context, out / "sub-01.html")
    link = page.locator("a.large").first
    assert (out / str(link.get_attribute("href"))).is_file()
    link.click()
    assert page.locator("dialog[open] img").evaluate("image => image.naturalWidth") == 40
    page.keyboard.press("Escape")
    assert page.locator("dialog[open]").count() == 0


@pytest.mark.parametrize("name", ["group/report.html", "sub-01.html", "sub-03.html"])
def test_dark_is_honored_and_a_phone_shows_everything_without_scrolling_sideways(
    browser: sync_api.Browser, out: Path, name: str
) -> None:
    for width, scheme in ((390, "dark"), (1280, "light")):
        page = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
        page.goto((out / name).as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        style = page.evaluate(
            "[getComputedStyle(document.querySelector('section')), getComputedStyle(document.body)]"
            ".map(style => [style.backgroundColor, style.color].map(c => c.match(/[0-9]+/g).slice(0, 3).map(Number)))"
        )
        (panel, ink), (back, _) = style
        assert (sum(ink) > sum(panel)) == (scheme == "dark")
        assert (sum(back) < 200) == (scheme == "dark")
        page.close()


def test_the_page_of_a_large_cohort_links_its_pictures_and_stays_small(tmp_path: Path, out: Path) -> None:
    """400 noisy thumbnails would take several MB: the page links their files."""
    status = status_table(400, bad_every=999)
    rng = np.random.default_rng(0)
    for scan in status["scan"]:
        label = scan.split("_")[0].removeprefix("sub-")
        path = names(label, tmp_path).figure("thumbnail")
        path.parent.mkdir(parents=True)
        Image.fromarray(rng.integers(0, 255, (68, 204, 3), np.uint8)).save(path)
    write_group_files(tmp_path, status)
    page = write_group_report(tmp_path)
    text = page.read_text(encoding="utf-8")
    assert page.stat().st_size < 6e6
    assert text.count("figures/sub-001_trc-AV1451_desc-thumbnail_pet.png") == 1
    assert (page.parent / "../sub-001/figures/sub-001_trc-AV1451_desc-thumbnail_pet.png").is_file()


def test_linked_thumbnails_load_from_the_folder(
    context: sync_api.BrowserContext, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(out, tmp_path / "out")
    monkeypatch.setattr("tau_workflows.reports.mosaic._MOST_EMBEDDED", 1)
    page = opened(context, write_group_report(tmp_path / "out"))
    images = page.locator(".mosaic img")
    images.first.scroll_into_view_if_needed()
    page.wait_for_function("[...document.querySelectorAll('.mosaic img')].every(image => image.naturalWidth > 0)")
    assert not str(images.first.get_attribute("src")).startswith("data:")


def test_controls_of_the_cohort_stand_beside_the_scan(out: Path) -> None:
    """Means over the controls in the wide table, without the participant."""
    import pandas as pd

    wide = pd.read_csv(out / "group" / "suvr_rois_wide.csv")
    assert "controls" in (out / "sub-01.html").read_text(encoding="utf-8")
    others = wide[(wide["diagnosis"] == "CN") & (wide["participant_id"] != "sub-01") & (wide["tracer"] == "AV1451")]
    text = (out / "sub-01.html").read_text(encoding="utf-8")
    part = text[text.index("<!--controls-->") : text.index("<!--/controls-->")]
    assert f"over {len(others)} control" in part


def test_volumes_keep_what_the_viewer_needs(tmp_path: Path) -> None:
    t1w, pet = volume_pictures(*ramps(), unit="SUVR")
    about: dict[str, Any] = json.loads(pet.info[ABOUT])
    assert json.loads(t1w.info[ABOUT])["shape"] == about["shape"]
    with Image.open(save_picture(pet, tmp_path / "v.png")) as again:
        assert json.loads(again.info[ABOUT]) == about
        pixels = np.asarray(again)
    nx, ny, nz = about["shape"]
    x, y, z = nx // 2, ny // 3, nz // 2 + 3
    left, top = (z % about["columns"]) * nx, z // about["columns"] * ny
    value = pixels[top + ny - 1 - y, left + x] / 255 * (about["high"] - about["low"]) + about["low"]
    assert value == pytest.approx(1 + (about["origin"][2] + z * about["step"]) / 100, abs=0.01)


def test_a_page_without_volumes_has_no_viewer(out: Path) -> None:
    text = (out / "sub-02.html").read_text(encoding="utf-8")
    assert 'class="viewer"' not in text
    assert read_json(out / "logs" / "about" / "sub-01.json")["Minutes"] == 12.5
