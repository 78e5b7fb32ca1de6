"""Both pages in a real browser: they load with no error and no request, and what is interactive works."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from made_up_cohort import status_table, write_group_files, write_participant

from tau_pipeline.files import read_json, write_json, write_tsv
from tau_workflows.reports.cohort import write_group_report
from tau_workflows.reports.participant import write_participant_report

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")]

HOSTILE = "<img src=x onerror=\"document.title='run'\">"
#: Columns of the table of scans in the made-up cohort.
SCAN, STATE, MANUFACTURER, DIAGNOSIS, LARGEST_Z, NOISE = 0, 1, 2, 3, 6, 12


@dataclass
class Opened:
    """A page in the browser, and everything that it complained of or asked for."""

    page: sync_api.Page
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def column(self, place: int) -> list[str]:
        """First lines of the cells of a column of the table of scans, in the order shown, without hidden rows."""
        script = """place => [...document.querySelectorAll('#scan-table tbody tr')]
            .filter(row => row.offsetParent !== null)
            .map(row => row.cells[place].firstChild.textContent.trim())"""
        return self.page.evaluate(script, place)

    def sort(self, place: int) -> str:
        """Click a heading; returns its state."""
        head = self.page.locator("#scan-table thead th").nth(place)
        head.locator("button").click()
        return str(head.get_attribute("aria-sort"))


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 scans of three manufacturers, one with an outlier and a hostile reason, and the page of one participant."""
    folder = tmp_path_factory.mktemp("output")
    status = status_table(24)
    status.loc[status["scan"].str.startswith("sub-05"), ["noise", "noise_outlier"]] = [0.123, 3.21]
    status.loc[status["state"] == "failed", "reason"] = HOSTILE
    status["n_assumptions"] = status["n_assumptions"].astype(object)
    write_group_files(folder, status)
    for label in ("01", "02"):
        write_participant(folder, label)
    write_json({"message": HOSTILE}, folder / "logs" / "errors" / "sub-01.json")
    write_participant_report(folder, "01")
    write_group_report(folder)
    return folder


@pytest.fixture(scope="module")
def plain(output: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same cohort without its pictures, which loads sooner."""
    folder = tmp_path_factory.mktemp("plain")
    shutil.copytree(output, folder, dirs_exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tau_workflows.reports.cohort._figures", lambda *_: [])
        write_group_report(folder)
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[sync_api.Browser]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def opened(browser: sync_api.Browser, path: Path, width: int = 1280) -> Opened:
    page = browser.new_page(viewport={"width": width, "height": 900})
    found = Opened(page)
    page.on("console", lambda message: found.complaints.append(message.text))
    page.on("pageerror", lambda error: found.complaints.append(str(error)))
    page.on("request", lambda request: found.requests.append(request.url))
    page.goto(path.as_uri())
    return found


@pytest.fixture(params=["group/report.html", "sub-01.html"], ids=["cohort", "participant"])
def either(request: pytest.FixtureRequest, browser: sync_api.Browser, output: Path) -> Iterator[Opened]:
    """The page of the cohort, then that of a participant."""
    found = opened(browser, output / request.param)
    yield found
    found.page.close()


@pytest.fixture
def cohort(browser: sync_api.Browser, plain: Path) -> Iterator[Opened]:
    found = opened(browser, plain / "group" / "report.html")
    yield found
    found.page.close()


def test_a_page_loads_with_no_complaint_and_asks_for_nothing(either: Opened) -> None:
    assert either.complaints == []
    assert [url for url in either.requests if not url.startswith("data:")] == [either.page.url]
    policy = str(either.page.locator("meta[http-equiv=Content-Security-Policy]").get_attribute("content"))
    assert policy.startswith("default-src 'none'")
    assert "unsafe-inline" not in policy.split("script-src")[1]
    assert "run" not in either.page.title()


def test_every_picture_shows(either: Opened) -> None:
    for image in either.page.locator("img[loading=lazy]").all():
        image.scroll_into_view_if_needed()
    sizes = either.page.evaluate(
        "[...document.images].filter(image => image.src).map(image => [image.complete, image.naturalWidth])"
    )
    assert len(sizes) >= 3
    assert all(complete and width > 0 for complete, width in sizes)
    assert all(
        either.page.evaluate("[...document.images].filter(image => image.src).map(image => image.alt.length > 5)")
    )


@pytest.mark.parametrize("width", [1280, 1920, 800, 390])
def test_a_page_is_never_wider_than_the_window(browser: sync_api.Browser, output: Path, width: int) -> None:
    for name in ("group/report.html", "sub-01.html"):
        found = opened(browser, output / name, width)
        assert found.page.evaluate("document.documentElement.scrollWidth") <= width
        found.page.close()


def test_the_table_of_scans_fits_a_laptop(cohort: Opened) -> None:
    wide = cohort.page.locator(".wide")
    assert wide.evaluate("element => element.scrollWidth <= element.clientWidth")


def test_a_page_prints_to_pdf(either: Opened) -> None:
    pdf = either.page.pdf(prefer_css_page_size=True)
    assert pdf.startswith(b"%PDF")
    assert len(pdf) > 10_000


def test_nothing_is_cut_off_in_print(browser: sync_api.Browser, output: Path) -> None:
    """At the width of a landscape A4 page inside its margins, 277 mm at 96 dots per inch."""
    cohort = opened(browser, output / "group" / "report.html")
    cohort.page.emulate_media(media="print")
    cohort.page.set_viewport_size({"width": 1046, "height": 700})
    assert cohort.page.evaluate("document.documentElement.scrollWidth") <= 1046
    right = cohort.page.evaluate("document.getElementById('scan-table').getBoundingClientRect().right")
    assert right <= 1046
    assert not cohort.page.locator("#filters").is_visible()
    cohort.page.close()


def test_tables_of_a_participant_fit_the_paper(browser: sync_api.Browser, tmp_path: Path) -> None:
    """Six reference regions side by side, at the width of an upright A4 page inside its margins: 182 mm, 688 dots."""
    write_participant(tmp_path, "01")
    path = next(tmp_path.rglob("*_desc-suvr_pet.json"))
    names = ("ErodedWM", "InferiorCerebellarGM", "Labels8x47", "Pons", "WholeCerebellum")
    for name in names:
        more = {"ReferenceRegion": name, "ReferenceRegionVolume": 118099.0, "ReferenceValue": 3821.0 + len(name)}
        write_json({**read_json(path), **more}, path.with_name(path.name.replace("desc-suvr_", f"desc-suvr{name}_")))
    found = opened(browser, write_participant_report(tmp_path, "01"), 688)
    found.page.emulate_media(media="print")
    rights = found.page.evaluate("[...document.querySelectorAll('table')].map(t => t.getBoundingClientRect().right)")
    assert len(rights) >= 5
    assert max(rights) <= 688
    assert found.page.evaluate("document.documentElement.scrollWidth") <= 688
    found.page.close()


def test_numbers_are_sorted_as_numbers_and_missing_ones_come_last_both_ways(cohort: Opened) -> None:
    before = cohort.column(NOISE)
    assert cohort.sort(NOISE) == "ascending"
    rising = cohort.column(NOISE)
    numbers = [float(text.lstrip("▲ ")) for text in rising if text != "n/a"]
    assert rising != before
    assert sorted(rising) == sorted(before)
    assert numbers == sorted(numbers)
    assert rising[-3:] == ["n/a"] * 3
    assert cohort.sort(NOISE) == "descending"
    falling = cohort.column(NOISE)
    assert [float(text.lstrip("▲ ")) for text in falling if text != "n/a"] == sorted(numbers, reverse=True)
    assert falling[-3:] == ["n/a"] * 3
    assert falling[0] == "▲ 0.123"


def test_text_is_sorted_as_text_and_equal_rows_keep_their_order(cohort: Opened) -> None:
    cohort.sort(MANUFACTURER)
    pairs = list(zip(cohort.column(MANUFACTURER), cohort.column(SCAN), strict=True))
    assert pairs == sorted(pairs)
    assert [state for state, _ in pairs[:1]] == ["GE"]


def test_one_heading_at_a_time_says_how_the_table_is_sorted(cohort: Opened) -> None:
    heads = "[...document.querySelectorAll('#scan-table thead th')].map(head => head.getAttribute('aria-sort'))"
    assert cohort.page.evaluate(heads)[SCAN] == "ascending"
    cohort.sort(DIAGNOSIS)
    states = cohort.page.evaluate(heads)
    assert states.pop(DIAGNOSIS) == "ascending"
    assert set(states) == {"none"}


def test_the_keyboard_sorts_too(cohort: Opened) -> None:
    cohort.page.locator("#scan-table thead th button").nth(LARGEST_Z).focus()
    cohort.page.keyboard.press("Enter")
    cohort.page.keyboard.press("Space")
    assert cohort.column(SCAN)[0] == "sub-05"
    assert cohort.column(LARGEST_Z)[0] == "▲ 3.2"


@pytest.mark.parametrize(
    ("name", "value", "place"),
    [("manufacturer", "Philips", MANUFACTURER), ("diagnosis", "AD", DIAGNOSIS), ("state", "failed", STATE)],
)
def test_a_list_leaves_the_rows_of_one_value(cohort: Opened, name: str, value: str, place: int) -> None:
    everything = cohort.column(place)
    cohort.page.select_option(f"select[name={name}]", label=value)
    assert cohort.column(place) == [value] * everything.count(value)
    assert 0 < everything.count(value) < 24
    assert cohort.page.locator("#shown").inner_text() == f"{everything.count(value)} of 24 scans"


def test_filters_add_up_and_show_all_takes_them_away(cohort: Opened) -> None:
    cohort.page.select_option("select[name=manufacturer]", label="GE")
    cohort.page.select_option("select[name=source]", label="measured")
    cohort.page.fill("input[name=text]", "SUB-1")
    assert set(cohort.column(MANUFACTURER)) == {"GE"}
    assert all(scan.startswith("sub-1") for scan in cohort.column(SCAN))
    cohort.page.click("button[type=reset]")
    cohort.page.wait_for_function("document.getElementById('shown').value === '24 of 24 scans'")
    assert len(cohort.column(SCAN)) == 24


def test_words_are_searched_in_the_whole_row(cohort: Opened) -> None:
    cohort.page.fill("input[name=text]", "ingenuity mci")
    assert set(cohort.column(MANUFACTURER)) == {"Philips"}
    assert set(cohort.column(DIAGNOSIS)) == {"MCI"}
    cohort.page.fill("input[name=text]", "no such scan")
    assert cohort.column(SCAN) == []
    assert cohort.page.locator("#shown").inner_text() == "0 of 24 scans"


def test_outliers_alone_can_be_shown(cohort: Opened) -> None:
    cohort.page.check("input[name=outliers]")
    assert "sub-05" in cohort.column(SCAN)
    assert all(text.startswith("▲") for text in cohort.column(LARGEST_Z))


def test_sorting_keeps_what_is_filtered(cohort: Opened) -> None:
    cohort.page.select_option("select[name=manufacturer]", label="Siemens")
    before = cohort.column(SCAN)
    cohort.sort(NOISE)
    assert sorted(cohort.column(SCAN)) == sorted(before)


def test_a_scan_without_a_diagnosis_can_be_found(
    browser: sync_api.Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tau_workflows.reports.cohort._figures", lambda *_: [])
    status = status_table(6, bad_every=99).assign(diagnosis=["AD", None] * 3)
    write_tsv(status, tmp_path / "group" / "status.tsv")
    found = opened(browser, write_group_report(tmp_path))
    found.page.select_option("select[name=diagnosis]", value="=")
    assert found.column(DIAGNOSIS) == ["n/a"] * 3
    found.page.close()


def test_a_scan_leads_to_the_page_of_its_participant_and_others_to_none(cohort: Opened) -> None:
    assert cohort.page.locator("#scan-table tbody a").count() == 1
    cohort.page.click("#scan-table tbody a")
    assert cohort.page.url.endswith("/sub-01.html#pet-AV1451")
    assert cohort.page.locator("h1").inner_text() == "sub-01"


def test_the_slider_blends_t1w_and_pet(browser: sync_api.Browser, output: Path) -> None:
    found = opened(browser, output / "sub-01.html")
    upper = found.page.locator(".blend img + img")
    opacity = []
    for value in ("0", "1"):
        found.page.locator(".mix input").fill(value)
        opacity.append(upper.evaluate("element => getComputedStyle(element).opacity"))
    assert opacity == ["0", "1"]
    found.page.close()
