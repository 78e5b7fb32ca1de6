import errno
import gzip
import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, ornt_transform

from tau_pipeline.errors import DamagedFileError, GridMismatchError, ImageError, MissingInputError, OutputError
from tau_pipeline.imaging import load
from tau_pipeline.imaging.load import load_volume, read_affine, read_shape
from tau_pipeline.imaging.volume import (
    finite,
    image_like,
    image_on,
    part_of,
    require_same_grid,
    same_grid,
    save_volume,
    to_ants,
    voxel_size_mm,
    voxel_volume_mm3,
)

SHAPE = (5, 6, 7)


def oriented(codes: str) -> np.ndarray:
    """An affine with axes along ``codes``, voxels of 1.5 x 2 x 2.5 mm and an origin off zero."""
    base = np.diag([1.5, 2.0, 2.5, 1.0])
    base[:3, 3] = (-10.0, 20.0, 3.5)
    change = ornt_transform(axcodes2ornt(tuple("RAS")), axcodes2ornt(tuple(codes)))
    return base @ inv_ornt_aff(change, SHAPE)


def oblique() -> np.ndarray:
    a, b = np.deg2rad(20), np.deg2rad(-35)
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    affine = np.eye(4)
    affine[:3, :3] = about_z @ about_x @ np.diag([1.5, 2.0, 2.5])
    affine[:3, 3] = (5, -60, 12)
    return affine


GRIDS = {"RAS": oriented("RAS"), "LAS": oriented("LAS"), "LPS": oriented("LPS"), "PIR": oriented("PIR")}
GRIDS["oblique"] = oblique()


def values(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def stored(path: Path, data: np.ndarray, affine: np.ndarray | None = None) -> Path:
    nib.Nifti1Image(data, np.eye(4) if affine is None else affine).to_filename(path)
    return path


# --- load ---


def test_freesurfer_volumes_without_extent_are_damage(tmp_path):
    path = tmp_path / "aparc+aseg.mgz"
    nib.save(nib.MGHImage(np.ones((4, 4, 4), np.int32), np.eye(4)), path)
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[4:8] = bytes(4)  # the first of the dimensions, a big-endian integer after the version
    path.write_bytes(gzip.compress(bytes(content)))
    with pytest.raises(DamagedFileError, match=r"aparc\+aseg\.mgz"):
        load_volume(path)


@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz", "x.mgh", "x.mgz"])
@pytest.mark.parametrize("grid", GRIDS)
def test_an_image_survives_saving_and_loading(tmp_path, name, grid):
    data, path = values(), tmp_path / name
    (nib.MGHImage if ".mg" in name else nib.Nifti1Image)(data, GRIDS[grid].astype(np.float32)).to_filename(path)
    back = load_volume(path)
    np.testing.assert_array_equal(np.asarray(back.dataobj), data)
    np.testing.assert_allclose(back.affine, GRIDS[grid], atol=1e-4)


def test_a_part_of_an_image_is_where_it_was_in_the_world():
    affine = np.array([[0, -2.0, 0, 40], [1.5, 0, 0.3, -7], [0, 0, 3, 1], [0, 0, 0, 1]])
    whole = image_on(np.arange(6 * 7 * 8, dtype=np.int16).reshape(6, 7, 8), affine)
    part = part_of(whole, (slice(2, 5), slice(1, 4), slice(3, 8)))
    assert part.shape == (3, 3, 5)
    assert part.dataobj[1, 2, 4] == whole.dataobj[3, 3, 7]
    np.testing.assert_allclose(part.affine @ [1, 2, 4, 1], affine @ [3, 3, 7, 1], rtol=1e-5)


def test_plain_and_compressed_files_hold_the_same(tmp_path):
    img = image_on(values(), GRIDS["oblique"])
    plain, compressed = (load_volume(save_volume(img, tmp_path / name)) for name in ("x.nii", "x.nii.gz"))
    np.testing.assert_array_equal(np.asarray(plain.dataobj), np.asarray(compressed.dataobj))
    np.testing.assert_array_equal(plain.affine, compressed.affine)


def test_scale_factors_are_applied(tmp_path):
    raw = np.arange(-4, 4, dtype=np.int16).reshape(2, 2, 2)
    img = nib.Nifti1Image(raw, np.eye(4))
    img.header.set_slope_inter(0.5, -3)
    path = tmp_path / "scaled.nii.gz"
    img.to_filename(path)
    # nibabel writes the array as it is and the factors beside it only if they are in the file; put them there.
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[112:120] = np.array([0.5, -3], "<f4").tobytes()
    content[-raw.nbytes :] = raw.tobytes(order="F")
    path.write_bytes(gzip.compress(bytes(content)))
    np.testing.assert_array_equal(np.asarray(load_volume(path).dataobj), raw * 0.5 - 3)


def test_integers_stay_integers_without_scale_factors(tmp_path):
    labels = np.array([0, 8, 47, 1001, 2035], np.int32).reshape(5, 1, 1)
    loaded = load_volume(stored(tmp_path / "labels.nii.gz", labels))
    assert loaded.get_data_dtype().kind == "i"
    np.testing.assert_array_equal(np.asarray(loaded.dataobj), labels)


def test_large_integers_do_not_wrap(tmp_path):
    data = np.full((2, 3, 4), 2**40, np.int64)
    nib.save(nib.Nifti1Image(data, np.eye(4), dtype="int64"), tmp_path / "a.nii")
    np.testing.assert_array_equal(np.asanyarray(load_volume(tmp_path / "a.nii").dataobj), np.float32(2**40))


def test_voxels_that_begin_inside_the_header_are_refused(tmp_path):
    content = bytearray(nib.Nifti1Image(np.ones((2, 3, 4), np.int16), np.eye(4)).to_bytes())
    content[108:112] = bytes(4)  # vox_offset
    (tmp_path / "a.nii").write_bytes(content)
    for read in (load_volume, read_shape):
        with pytest.raises(DamagedFileError, match="vox_offset"):
            read(tmp_path / "a.nii")


def test_nan_and_negative_values_come_through(tmp_path):
    data = np.array([np.nan, -5, np.inf, 2], np.float32).reshape(2, 2, 1)
    np.testing.assert_array_equal(np.asarray(load_volume(stored(tmp_path / "x.nii", data)).dataobj), data)


@pytest.mark.parametrize(
    ("shape", "ndim", "expected"),
    [
        ((3, 4, 5, 1), None, (3, 4, 5)),
        ((3, 4, 5, 1, 1), 3, (3, 4, 5)),
        ((3, 4, 5, 2, 1), None, (3, 4, 5, 2)),
        ((3, 4, 5, 2, 1), 4, (3, 4, 5, 2)),
        ((3, 4, 5), 4, (3, 4, 5, 1)),
        ((3, 4, 5, 1), 4, (3, 4, 5, 1)),
        ((3, 4, 1), None, (3, 4, 1)),
    ],
)
def test_trailing_axes_of_length_one_do_not_count(tmp_path, shape, ndim, expected):
    assert load_volume(stored(tmp_path / "x.nii", values(shape)), ndim=ndim).shape == expected


@pytest.mark.parametrize(
    ("data", "ndim", "message"),
    [
        (values((4, 5)), None, "a 3-D or 4-D image is needed"),
        (values((3, 3, 3, 2)), 3, "a 3-D image is needed"),
        (values((3, 3, 3, 2, 2)), None, "a 3-D or 4-D image is needed"),
        (values((3, 3, 3)).astype(np.complex64), None, "real number per voxel"),
        (np.zeros((2, 2, 2), [("R", "u1"), ("G", "u1"), ("B", "u1")]), None, "real number per voxel"),
    ],
)
def test_an_image_that_cannot_be_used_is_refused_with_its_shape_or_type(tmp_path, data, ndim, message):
    path = stored(tmp_path / "x.nii", data)
    with pytest.raises(ImageError, match=message):
        load_volume(path, ndim=ndim)


@pytest.mark.parametrize("affine", [np.diag([1.0, 1.0, 0.0, 1.0]), np.full((4, 4), np.nan)])
def test_a_singular_or_non_finite_affine_is_refused(tmp_path, affine):
    img = nib.Nifti1Image(values((3, 3, 3)), None)
    img.header.set_sform(affine, code=1)
    img.header["qform_code"] = 0
    path = tmp_path / "x.nii"
    path.write_bytes(img.to_bytes())
    with pytest.raises(ImageError, match="singular or non-finite affine"):
        load_volume(path)


def test_a_damaged_file_is_named_in_one_sentence(tmp_path):
    whole = stored(tmp_path / "whole.nii.gz", values((20, 20, 20))).read_bytes()
    plain = stored(tmp_path / "whole.nii", values((20, 20, 20))).read_bytes()
    header = bytearray(plain)
    header[70:72] = (9999).to_bytes(2, "little")  # a data type that does not exist
    damaged = {
        "checksum.nii.gz": whole[:2000] + bytes([whole[2000] ^ 1]) + whole[2001:],
        "truncated.nii.gz": whole[: len(whole) // 2],
        "empty.nii.gz": b"",
        "empty.nii": b"",
        "text.nii.gz": b"this is not gzip",
        "text.nii": b"this is not an image",
        "truncated.nii": plain[: len(plain) // 2],
        "header.nii": bytes(header),
        "unknown.xyz": plain,
    }
    for name, content in damaged.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DamagedFileError, match=name) as caught:
            load_volume(tmp_path / name)
        assert isinstance(caught.value, OSError), name


def test_the_shape_is_without_trailing_axes_of_one(tmp_path):
    assert read_shape(stored(tmp_path / "x.nii", values((3, 4, 5, 2, 1)))) == (3, 4, 5, 2)
    (tmp_path / "text.nii").write_bytes(b"no image")
    with pytest.raises(DamagedFileError, match=r"text\.nii is damaged"):
        read_shape(tmp_path / "text.nii")


@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz", "x.mgh", "x.mgz"])
def test_a_file_that_is_cut_off_is_found_before_its_voxels_are_read(tmp_path, name):
    data, path = values((20, 20, 20)), tmp_path / name
    (nib.MGHImage if ".mg" in name else nib.Nifti1Image)(data, np.eye(4)).to_filename(path)
    assert read_shape(path) == data.shape
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(DamagedFileError):
        read_shape(path)


@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz"])
@pytest.mark.parametrize("side", [1000, 30000])
def test_a_header_that_promises_more_than_there_is_takes_no_memory(tmp_path, name, side):
    content = bytearray(nib.Nifti1Image(values(), np.eye(4)).to_bytes())
    content[42:48] = np.array([side] * 3, "<i2").tobytes()
    path = tmp_path / name
    path.write_bytes(gzip.compress(bytes(content)) if name.endswith(".gz") else bytes(content))
    tracemalloc.start()
    try:
        for read in (read_shape, load_volume):
            with pytest.raises(DamagedFileError, match=r"truncated: it ha|truncated: it holds"):
                read(path)
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()


def test_a_file_that_unpacks_without_end_is_refused_before_it_fills_the_memory(tmp_path):
    bomb = gzip.compress(bytes(32 << 20)) * 100
    path = tmp_path / "x.nii.gz"
    path.write_bytes(gzip.compress(nib.Nifti1Image(values(), np.eye(4)).to_bytes()) + bomb)
    with pytest.raises(DamagedFileError, match="last voxel"):
        load_volume(path)


def test_a_packed_mgh_file_is_not_unpacked_to_see_that_its_header_promises_too_much(tmp_path, monkeypatch):
    path = tmp_path / "x.mgz"
    nib.MGHImage(values((4, 4, 4)), np.eye(4)).to_filename(path)
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[4:16] = np.array([30000] * 3, ">i4").tobytes()
    path.write_bytes(gzip.compress(bytes(content)) + gzip.compress(bytes(1 << 25)))
    unpacked = []
    read = gzip._GzipReader.read
    monkeypatch.setattr(gzip._GzipReader, "read", lambda *args: unpacked.append(read(*args)) or unpacked[-1])
    for reader in (read_shape, load_volume):
        with pytest.raises(DamagedFileError, match=r"truncated: it has \d+ packed bytes, but \d+ by its header"):
            reader(path)
    assert 0 < sum(map(len, unpacked)) < 1 << 20


def test_a_header_that_promises_more_than_gzip_can_hold_is_refused_unread(tmp_path, monkeypatch):
    def unpacked(*_):
        raise AssertionError("the file was unpacked")

    path = stored(tmp_path / "x.nii.gz", values((4, 4, 4)))
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[40:56] = np.array([3, 200, 200, 200, 1, 1, 1, 1], "<i2").tobytes()
    path.write_bytes(gzip.compress(bytes(content)))
    assert path.stat().st_size * 1100 < 200**3 * 4
    monkeypatch.setattr(load, "decompress", unpacked)
    for read in (read_shape, load_volume):
        with pytest.raises(DamagedFileError, match=r"truncated: it has \d+ packed bytes, but \d+ by its header"):
            read(path)


def test_what_packs_as_well_as_gzip_can_is_read(tmp_path):
    content = nib.Nifti1Image(np.zeros((250, 200, 200), np.uint8), np.eye(4)).to_bytes()
    path = tmp_path / "x.nii.gz"
    path.write_bytes(gzip.compress(content, 9))
    assert path.stat().st_size * 1000 < len(content)
    assert read_shape(path) == (250, 200, 200)


def test_zeros_after_the_compressed_image_are_no_damage(tmp_path):
    path = stored(tmp_path / "x.nii.gz", values())
    path.write_bytes(path.read_bytes() + bytes(512))
    assert read_shape(path) == SHAPE
    np.testing.assert_array_equal(np.asarray(load_volume(path).dataobj), values())


def spoilt(affine: np.ndarray, row: int, column: int, value: float) -> np.ndarray:
    changed = affine.copy()
    changed[row, column] = value
    return changed


@pytest.mark.parametrize(
    ("affine", "sentence"),
    [
        (spoilt(np.eye(4), 0, 0, 1e38), "no head has"),
        (spoilt(np.eye(4), 0, 0, 1e-5), "no head has"),
        (spoilt(np.eye(4), 1, 3, 1e9), "no head has"),
        (spoilt(np.eye(4), 2, 2, np.nan), "singular or non-finite"),
        (np.array([[1, 1, 0, 0], [0, 1e-5, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]), "nearly in one plane"),
    ],
)
def test_a_grid_that_holds_no_head_is_found_in_the_header(tmp_path, affine, sentence):
    path = stored(tmp_path / "x.nii", values())
    content = bytearray(path.read_bytes())
    content[280:328] = affine[:3].astype("<f4").tobytes()
    content[254:256] = np.array(2, "<i2").tobytes()
    path.write_bytes(content)
    for read in (read_shape, load_volume):
        with pytest.raises(ImageError, match=sentence):
            read(path)


@pytest.mark.parametrize("dtype", [np.complex64, np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])])
def test_values_that_are_no_real_numbers_are_found_in_the_header(tmp_path, dtype):
    with pytest.raises(ImageError, match="real number per voxel"):
        read_shape(stored(tmp_path / "x.nii.gz", np.zeros(SHAPE, dtype)))


def test_a_missing_file_is_named(tmp_path):
    (tmp_path / "link.nii").symlink_to("nowhere.nii")
    with pytest.raises(MissingInputError, match="broken link"):
        load_volume(tmp_path / "link.nii")
    with pytest.raises(MissingInputError):
        read_shape(tmp_path / "absent.nii")
    with pytest.raises(MissingInputError, match=r"there is no image .*absent\.nii"):
        load_volume(tmp_path / "absent.nii")
    with pytest.raises(FileNotFoundError):
        load_volume(tmp_path)


# --- save ---


def test_saving_leaves_only_the_image(tmp_path):
    path = save_volume(image_on(values(), np.eye(4)), tmp_path / "a" / "b.nii.gz")
    assert list(path.parent.iterdir()) == [path]


def test_a_full_disk_leaves_nothing_and_is_an_output_error(tmp_path, monkeypatch):
    def full(img: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(nib, "save", full)
    with pytest.raises(OutputError, match="No space left on device"):
        save_volume(image_on(values(), np.eye(4)), tmp_path / "x.nii.gz")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_to_is_an_output_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError):
        save_volume(image_on(values(), np.eye(4)), tmp_path / "file" / "x.nii.gz")


def test_both_codes_and_the_units_are_written(tmp_path):
    header = load_volume(save_volume(image_on(values(), GRIDS["LPS"]), tmp_path / "x.nii.gz")).header
    assert (int(header["sform_code"]), int(header["qform_code"])) == (1, 1)
    assert header.get_xyzt_units()[0] == "mm"


@pytest.mark.parametrize(
    ("given", "expected"), [(bool, np.uint8), (np.float64, np.float32), (np.int64, np.int32), (np.int16, np.int16)]
)
def test_values_are_stored_in_types_that_every_reader_knows(given, expected):
    assert image_on(np.ones(SHAPE, given), np.eye(4)).get_data_dtype() == expected


def test_labels_above_255_survive(tmp_path):
    labels = np.array([255, 256, 1035, 2035], np.int64).reshape(4, 1, 1)
    back = load_volume(save_volume(image_on(labels, np.eye(4)), tmp_path / "x.nii.gz"))
    np.testing.assert_array_equal(np.asarray(back.dataobj), labels)


# --- grids ---


def test_an_array_goes_onto_a_grid_only_if_it_fits():
    like = image_on(values(), GRIDS["oblique"])
    assert same_grid(image_like(values((*SHAPE, 3)), like), like)
    with pytest.raises(GridMismatchError, match="does not fit"):
        image_like(values((7, 6, 5)), like)


def test_different_grids_are_refused_by_name():
    a = image_on(values(), np.eye(4))
    require_same_grid(pet=a, mask=image_on(values((*SHAPE, 2)), np.eye(4)))
    shifted = np.eye(4)
    shifted[0, 3] = 0.01
    with pytest.raises(GridMismatchError, match=r"mask .* is not on the grid of pet"):
        require_same_grid(pet=a, mask=image_on(values(), shifted))
    with pytest.raises(GridMismatchError):
        require_same_grid(pet=a, mask=image_on(values((5, 6, 8)), np.eye(4)))


def test_a_turn_counts_by_what_it_does_at_the_corners():
    turned = np.eye(4)
    turned[0, 1] = 1e-4
    small, large = ((4, 4, 4), 0.001), ((256, 256, 4), 0.001)
    for (shape, tolerance), equal in ((small, True), (large, False)):
        a, b = (image_on(np.zeros(shape, np.uint8), affine) for affine in (np.eye(4), turned))
        assert same_grid(a, b, tolerance) is equal


@pytest.mark.parametrize("grid", GRIDS)
def test_voxel_size_and_volume_do_not_depend_on_the_orientation(grid):
    img = image_on(values(), GRIDS[grid])
    assert sorted(voxel_size_mm(img)) == pytest.approx([1.5, 2.0, 2.5])
    assert voxel_volume_mm3(img) == pytest.approx(7.5)


def test_the_volume_of_a_sheared_voxel_is_its_determinant():
    sheared = np.eye(4)
    sheared[0, 1] = 0.5
    assert voxel_volume_mm3(image_on(values(), sheared)) == pytest.approx(1.0)


def test_finite_makes_a_copy_without_nan_and_infinities():
    data = np.array([np.nan, np.inf, -np.inf, 2.0])
    np.testing.assert_array_equal(finite(data), np.array([0, 0, 0, 2], np.float32))
    np.testing.assert_array_equal(finite(data, fill=7), np.array([7, 7, 7, 2], np.float32))
    assert np.isnan(data[0]), "the input is unchanged"


@pytest.mark.parametrize("grid", GRIDS)
def test_an_image_goes_to_ants_with_all_its_values(grid):
    img = image_on(values(), GRIDS[grid])
    np.testing.assert_array_equal(to_ants(img).numpy(), np.asarray(img.dataobj))


@pytest.mark.parametrize("grid", GRIDS)
def test_ants_puts_voxels_where_its_own_reader_puts_them(tmp_path, grid):
    import ants

    img = image_on(values(), GRIDS[grid])
    read = ants.image_read(str(save_volume(img, tmp_path / "x.nii")))
    made = to_ants(img)
    np.testing.assert_allclose(made.origin, read.origin, atol=1e-4)
    np.testing.assert_allclose(made.spacing, read.spacing, atol=1e-5)
    np.testing.assert_allclose(made.direction, read.direction, atol=1e-5)
    np.testing.assert_allclose(made.numpy(), read.numpy(), atol=1e-6)


def test_only_three_dimensional_images_go_to_ants():
    with pytest.raises(ImageError, match="a 3-D image is needed"):
        to_ants(image_on(values((*SHAPE, 2)), np.eye(4)))


@pytest.mark.parametrize(("unit", "of_a_mm"), [("mm", 1.0), ("micron", 1000.0), ("meter", 0.001), ("unknown", 1.0)])
def test_the_unit_of_the_header_is_read(tmp_path, unit, of_a_mm):
    affine = np.diag([2.0, 2.0, 3.0, 1.0])
    affine[:3, 3] = [-90, -126, -72]
    stated = affine.copy()
    stated[:3] *= of_a_mm
    image = nib.Nifti1Image(np.ones((4, 5, 6), np.int16), stated)
    image.header.set_xyzt_units(unit)
    image.to_filename(tmp_path / "x.nii.gz")
    np.testing.assert_allclose(load_volume(tmp_path / "x.nii.gz").affine, affine, atol=1e-4)
    np.testing.assert_allclose(read_affine(tmp_path / "x.nii.gz"), affine, atol=1e-4)
