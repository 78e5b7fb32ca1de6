"""The page of a scan that failed: at which step, why, what to do, and what its raw images look like."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tau_pipeline.derivatives.names import PetNames, error_path
from tau_pipeline.derivatives.status import ScanStatus, update_status
from tau_pipeline.errors import ImageError
from tau_pipeline.figures.headers import headers_figure
from tau_pipeline.files import write_json
from tau_pipeline.imaging.volume import Volume, image_on
from tau_workflows.reports.failures import HEADERS, draw_headers, failures_of, forget_headers
from tau_workflows.reports.participant import write_participant_report

KEY = "sub-01_trc-AV1451_pet"
RECORD = {"scan": KEY, "step": "pet_sub_01_trc_AV1451 coregister", "message": "no rigid motion fits the two images"}


def ball(center_mm: float, value: float = 100.0, frames: int = 0) -> Volume:
    """A ball of 60 mm radius on a 4 mm grid whose world center lies at x = ``center_mm``."""
    grid = np.stack(np.meshgrid(*[np.arange(40) * 4.0 - 78.0] * 3, indexing="ij"))
    data = np.where((grid**2).sum(axis=0) < 60.0**2, value, 0.0).astype(np.float32)
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    affine[:3, 3] = [center_mm - 78.0, -78.0, -78.0]
    return image_on(np.stack([data] * frames, axis=-1) if frames else data, affine)


def write_image(image: Volume, path: Path) -> None:
    import nibabel as nib

    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.asanyarray(image.dataobj), image.affine), path)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    write_image(ball(0.0), tmp_path / "raw/sub-01/anat/sub-01_T1w.nii.gz")
    write_image(ball(40.0, frames=2), tmp_path / f"raw/sub-01/pet/{KEY}.nii.gz")
    return tmp_path / "raw"


def fail(out: Path, **changes: str) -> None:
    update_status(out, {KEY: ScanStatus(KEY, reason=RECORD["message"])})
    write_json(RECORD | changes, error_path(out, KEY))


def page_of(out: Path) -> str:
    return write_participant_report(out, "01").read_text(encoding="utf-8")


def test_a_failed_scan_is_called_so_first_with_its_step_and_reason_and_what_to_do(tmp_path: Path, raw: Path) -> None:
    fail(tmp_path / "out")
    draw_headers(raw, tmp_path / "out", [KEY])
    page = page_of(tmp_path / "out")
    first = page[page.index("<main>") : page.index('id="summary"')]
    for words in ("failed", "coregistration of PET to T1w", RECORD["message"], "run the same command again"):
        assert words in first
    assert "has no PET scan" not in page
    assert "1 PET scan" in page
    assert page.count("data:image/jpeg") == 1
    assert "as the headers place them" in page


@pytest.mark.parametrize("suffix", ["T1w", "pet"])
def test_what_can_be_read_is_drawn_though_the_other_image_is_broken(tmp_path: Path, raw: Path, suffix: str) -> None:
    next(raw.rglob(f"*_{suffix}.nii.gz")).write_bytes(b"no image")
    draw_headers(raw, tmp_path / "out", [KEY])
    assert PetNames(tmp_path / "out", {"sub": "01", "trc": "AV1451"}).figure(HEADERS).is_file()


def test_without_a_readable_image_the_page_says_so(tmp_path: Path, raw: Path) -> None:
    for path in raw.rglob("*.nii.gz"):
        path.write_bytes(b"no image")
    fail(tmp_path / "out", step="input")
    draw_headers(raw, tmp_path / "out", [KEY])
    page = page_of(tmp_path / "out")
    assert "could not be read" in page
    assert "reading the input" in page


def test_the_picture_of_an_earlier_failure_goes_with_the_next_run(tmp_path: Path, raw: Path) -> None:
    draw_headers(raw, tmp_path, [KEY])
    assert list(tmp_path.rglob("*desc-headers*"))
    forget_headers(tmp_path, [KEY])
    assert not list(tmp_path.rglob("*desc-headers*"))


def test_the_images_are_drawn_where_their_headers_put_them(tmp_path: Path) -> None:
    """The PET lies 40 mm to the right of the T1w: its bright part in the picture is shifted by as much."""
    figure = headers_figure(ball(0.0), ball(40.0, frames=2))
    panels = {axes.get_title(): axes for axes in figure.axes if axes.images}
    title = next(name for name in panels if name.startswith("z =") and name.endswith("T1w"))
    centers = []
    for name in (title, title.replace("T1w", "PET")):
        shown = panels[name].images[0]
        left, right, _, _ = shown.get_extent()
        bright = np.asarray(shown.get_array() > 50)
        columns = np.flatnonzero(bright.any(axis=0))
        centers.append(left + (columns.mean() + 0.5) / bright.shape[1] * (right - left))
    assert centers[1] - centers[0] == pytest.approx(40.0, abs=1.5)


def test_images_far_apart_are_drawn_too_and_none_at_all_is_refused() -> None:
    assert len(headers_figure(ball(0.0), ball(2000.0)).axes) >= 18
    with pytest.raises(ImageError, match="neither"):
        headers_figure(None, None)


def test_done_and_skipped_scans_and_those_of_others_are_no_failures(tmp_path: Path) -> None:
    update_status(
        tmp_path,
        {
            KEY: ScanStatus(KEY, state="done", reason=""),
            "sub-01_ses-b_T1w": ScanStatus("sub-01_ses-b_T1w", state="skipped", reason="no PET"),
            "sub-01_ses-c_pet": ScanStatus("sub-01_ses-c_pet", state="interrupted", reason="stopped"),
        },
    )
    write_json({"message": "other"}, error_path(tmp_path, "sub-011_pet"))
    assert [(one.scan, one.state) for one in failures_of(tmp_path, "01")] == [("sub-01_ses-c_pet", "interrupted")]


def test_the_picture_is_no_larger_than_other_figures(tmp_path: Path, raw: Path) -> None:
    draw_headers(raw, tmp_path, [KEY])
    with Image.open(next(tmp_path.rglob("*desc-headers*"))) as picture:
        assert re.fullmatch(r"1680x\d+", f"{picture.width}x{picture.height}")
        assert picture.height < 2500
