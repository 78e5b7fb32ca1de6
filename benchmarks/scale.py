"""Time and memory over datasets of thousands of participants: dry run, index, group level, and page of the cohort.

    python benchmarks/scale.py FOLDER [--sizes 1000 3000] [--only index dry-run start group page more scores]

Datasets are generated below FOLDER, and kept there for the next call: raw datasets of tiny images (one T1w and one PET
per participant), and results of the participant level with tables of three reference regions, but no images. All values
are simulated. Prints one line per size and measure: processor time, which a busy machine changes least, wall time, and
peak memory of the process. ``start`` is a real run, which is ended as soon as the first scan has begun. ``scores``,
which only ``--only`` asks for, is the group level with z-scores and W-scores against controls.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import psutil
from group import GROUPS, MAKERS, scan_rows, scan_sidecar

from tau_pipeline.derivatives.dataset import write_dataset_files
from tau_pipeline.derivatives.names import AnatNames, PetNames, sidecar_path
from tau_pipeline.derivatives.quality_checks import judge
from tau_pipeline.derivatives.sidecars import bids_uri
from tau_pipeline.derivatives.status import ScanStatus, status_path, update_status
from tau_pipeline.files import write_json, write_text, write_tsv
from tau_pipeline.table_text import table_text

REFERENCES = ("CerebellarGM", "Pons", "ErodedWM")
#: Tables that are drawn together; those of further participants are drawn around them.
_TOGETHER = 270
_PET = {
    **{"TracerName": "AV1451", "TracerRadionuclide": "F18", "Manufacturer": "Siemens", "Units": "Bq/mL"},
    **{"FrameTimesStart": [4800, 5100, 5400, 5700], "FrameDuration": [300] * 4, "InjectionStart": 0, "ScanStart": 0},
}
#: What further values of a sidecar of the participant level are like; measures are drawn around these values.
_TEXTS = {
    **{"Units": "unitless", "ReferenceRegionIndices": [8, 47], "InjectionStart": 0, "FrameTimesStart": [4800.0]},
    **{"FrameDuration": [1200.0], "FrameIndices": [0], "TracerRadionuclide": "F18", "SmoothingFWHM": 0.0},
    **{"ManufacturersModelName": "SIMULATED", "Labels": "tau-pipeline: simulated", "SkullStripped": False},
    **{"ReconMethodName": "simulated", "ReconMethodParameterValues": [0], "ReconFilterType": "none"},
}
_MEASURES = {
    **{"ReferenceRegionSpillIn": 0.0034, "WindowOverlap": 1.0, "WindowStart": 0.0, "T1wOrientationDoubt": 0.0},
    **{"TemplateCorrelation": 0.87, "CoefficientOfJointVariation": 0.148, "SlicesOfOneMaximum": 0.0233},
    **{"RegistrationTrusted": 1.0, "RegistrationExplained": 0.9778, "RegistrationBelongs": 0.926},
    **{"RegistrationScale": 1.031, "RegistrationMirror": 0.879, "PetOrientationDoubt": 0.0, "PetInTemplateSpace": 0.0},
    **{"RegistrationShift": 6.29, "RegistrationRotation": 9.73, "NeighborNoise": 0.0094, "AirActivity": 8.3e-10},
    **{"SliceStep": 0.0002, "BrainNotMeasuredTop": 0.0, "BrainNotMeasuredBottom": 0.0, "MeningealSUVR": 0.57},
    "ReferenceRegionMeasured": 1.0,
}
_SAME = ("WindowOverlap", "RegistrationTrusted", "ReferenceRegionMeasured")
_INDEX = (
    "import sys; from pathlib import Path; from tau_pipeline.bids.scans import find_participants; "
    "print(len(find_participants(Path(sys.argv[1]))))"
)
_PAGE = (
    "import sys; from pathlib import Path; from tau_workflows.reports.cohort import write_group_report; "
    "print(write_group_report(Path(sys.argv[1])).stat().st_size / 1e6, 'MB')"
)


def raw_dataset(root: Path, count: int) -> Path:
    """Write a raw dataset with tiny images, one T1w and one PET of four frames per participant."""
    if (root / "dataset_description.json").is_file():
        return root
    t1w, pet = (
        gzip.compress(nib.Nifti1Image(np.ones(shape, np.int16), np.eye(4)).to_bytes())
        for shape in ((4, 4, 4), (4, 4, 4, 4))
    )
    for number in range(count):
        start = f"sub-{number:05d}_ses-01"
        for datatype, name, image, sidecar in (("anat", "T1w", t1w, {}), ("pet", "trc-AV1451_pet", pet, _PET)):
            folder = root / start.replace("_", "/") / datatype
            folder.mkdir(parents=True)
            (folder / f"{start}_{name}.nii.gz").write_bytes(image)
            (folder / f"{start}_{name}.json").write_text(json.dumps(sidecar))
    write_json({"Name": "SIMULATED", "BIDSVersion": "1.10.0"}, root / "dataset_description.json")
    return root


def results(root: Path, count: int, start: int = 0) -> tuple[Path, Path]:
    """Write participants.tsv, and tables, sidecars, and states of scans, as the participant level does."""
    bids, out = root / "bids", root / "out"
    if start == 0 and (bids / "participants.tsv").is_file():
        return bids, out
    bids.mkdir(parents=True, exist_ok=True)
    write_json({"Name": "SIMULATED tables", "BIDSVersion": "1.10.0"}, bids / "dataset_description.json")
    write_dataset_files(out, bids)
    rng = np.random.default_rng(start)
    people = []
    for number, table in zip(range(start, start + count), _tables(rng, count), strict=True):
        label, (maker, group) = f"{number:05d}", _kind(number)
        names = PetNames(out, {"sub": label, "trc": "AV1451"})
        write_text(table.replace("sub-LABEL", f"sub-{label}"), names.rois)
        for region in REFERENCES:
            sidecar = scan_sidecar(rng, out, label, maker, MAKERS[maker] * GROUPS[group])
            further = "" if region == REFERENCES[0] else region
            sidecar |= {**_TEXTS, **_measures(rng), **_sources(out, label), "ReferenceRegion": region}
            write_json({**sidecar, "QualityChecks": judge(sidecar)}, sidecar_path(names.suvr(further)))
        anat = AnatNames(out, {"sub": label})
        for image, more in ((anat.t1w, {}), (anat.dseg, {"MadeBy": "tau-pipeline: simulated"})):
            write_json({"SkullStripped": False, **more, **_sources(out, label)}, sidecar_path(image))
        key = f"sub-{label}_trc-AV1451_pet"
        status_path(out, label).unlink(missing_ok=True)
        update_status(
            out, {key: ScanStatus(key, "done", "", key.removesuffix("_pet"), None, "AV1451", maker, None, 2.0)}
        )
        people.append({"participant_id": f"sub-{label}", "age": int(rng.integers(55, 90)), "sex": "F", "group": group})
    if start == 0:
        write_tsv(pd.DataFrame(people), bids / "participants.tsv")
    return bids, out


def _measures(rng: np.random.Generator) -> dict[str, float]:
    return {name: value * (1.0 if name in _SAME else rng.normal(1, 0.01)) for name, value in _MEASURES.items()}


def _sources(out: Path, label: str) -> dict[str, object]:
    """Return what the sidecars of all outputs state of their origin."""
    anat = AnatNames(out, {"sub": label})
    raw = f"bids:raw:sub-{label}/ses-01/pet/sub-{label}_ses-01_trc-AV1451_pet.nii.gz"
    return {
        "Sources": [raw, bids_uri(anat.t1w, out, ""), bids_uri(anat.dseg, out, "")],
        **{"SoftwareName": "tau-pipeline", "SoftwareVersion": "0", "SettingsHash": "0123456789ab"},
        "Assumptions": [f"The {what} is simulated; nothing in it was measured." for what in ("PET", "T1w")],
    }


def _kind(number: int) -> tuple[str, str]:
    return list(MAKERS)[number % 3], list(GROUPS)[(number // 3) % 3]


def _tables(rng: np.random.Generator, count: int) -> Iterator[str]:
    """Yield the texts of tables of regions, of participants LABEL; hardly any value is there twice."""
    first = [_rows(rng, number) for number in range(min(_TOGETHER, count))]
    rows, size = pd.concat(first, ignore_index=True), len(first[0])
    for start in range(0, count, len(first)):
        voxels = rng.integers(300, 3000, len(rows))
        suvr = {name: rows[name] * rng.normal(1, 0.02, len(rows)) for name in ("suvr_mean", "suvr_sd", "suvr_median")}
        head, *lines = table_text(rows.assign(n_voxels=voxels, volume_mm3=voxels * 1.05, **suvr)).splitlines(
            keepends=True
        )
        for place in range(min(len(first), count - start)):
            yield head + "".join(lines[place * size : (place + 1) * size])


def _rows(rng: np.random.Generator, number: int) -> pd.DataFrame:
    """Return a table of regions by each reference region, of the participant LABEL."""
    maker, group = _kind(number)
    rows = scan_rows(rng, "sub-LABEL", maker, MAKERS[maker] * GROUPS[group])
    values = [rows.assign(reference_region=region, suvr_mean=rows["suvr_mean"] * (1 + 0.1 * k))
              for k, region in enumerate(REFERENCES)]  # fmt: skip
    return pd.concat(values, ignore_index=True)


def measured(what: str, size: int, command: list[str]) -> None:
    """Run a command, and print what it took."""
    started = time.monotonic()
    with subprocess.Popen(
        [sys.executable, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "NO_ET": "1", "NIPYPE_NO_ET": "1", "OMP_NUM_THREADS": "1"},
    ) as process:
        said = b"" if process.stdout is None else process.stdout.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    last = (said.decode(errors="replace").strip().splitlines() or [""])[-1]
    cpu, wall = used.ru_utime + used.ru_stime, time.monotonic() - started
    print(
        f"{size} {what}: {cpu:.1f} s of processor time, {wall:.1f} s wall, peak {used.ru_maxrss / 1024:.0f} MB, "
        f"exit code {process.returncode} ({last[:100]})",
        flush=True,
    )


def main() -> None:
    """Generate, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 3000], help="numbers of participants")
    measures = ("index", "dry-run", "start", "group", "page", "more")
    parser.add_argument("--only", nargs="+", choices=(*measures, "scores"), default=measures, help="what to measure")
    args = parser.parse_args()
    for size in args.sizes:
        _measure_input(args.folder.absolute() / str(size), size, args.only)
        _measure_group(args.folder.absolute() / str(size), size, args.only)


def _measure_input(folder: Path, size: int, only: Sequence[str]) -> None:
    if not {"dry-run", "index", "start"} & set(only):
        return
    raw = str(raw_dataset(folder / "raw", size))
    if "index" in only:
        measured("index", size, ["-c", _INDEX, raw])
    if "dry-run" in only:
        call = [raw, str(folder / "none"), "participant", "--dry-run", "--skip-bids-validation"]
        measured("dry run", size, ["-m", "tau_workflows", *call, "-w", str(folder / "work")])

    if "start" in only:
        _measure_start(folder, size, raw)


def _measure_start(folder: Path, size: int, raw: str) -> None:
    """Run participants until the first scan has begun, and print what the program itself took until then."""
    work = folder / "work_start"
    for old in (work, folder / "out_start"):
        shutil.rmtree(old, ignore_errors=True)
    call = [raw, str(folder / "out_start"), "participant", "--skip-bids-validation", "-w", str(work)]
    environment = {**os.environ, "NO_ET": "1", "NIPYPE_NO_ET": "1", "OMP_NUM_THREADS": "1"}
    started = time.monotonic()
    program = psutil.Popen(
        [sys.executable, "-m", "tau_workflows", *call],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment,
    )  # fmt: skip
    while program.poll() is None and not list((work / "jobs").glob("*.progress")):
        time.sleep(0.1)
    seconds = time.monotonic() - started
    used = program.cpu_times()
    memory = program.memory_info().rss / 2**20
    program.terminate()
    program.wait(60)
    print(
        f"{size} first scan begun: {used.user + used.system:.1f} s of processor time, {seconds:.1f} s wall, "
        f"{memory:.0f} MB",
        flush=True,
    )


def _measure_group(folder: Path, size: int, only: Sequence[str]) -> None:
    if not {"group", "page", "more", "scores"} & set(only):
        return
    bids, out = map(str, results(folder, size))
    if "group" in only:
        measured("group", size, ["-m", "tau_workflows", bids, out, "group"])
    if "page" in only:
        measured("page of the cohort", size, ["-c", _PAGE, out])
    if "scores" in only:
        options = ["--reference-group", "group == CN", "--w-scores", "age"]
        measured("group with scores", size, ["-m", "tau_workflows", bids, out, "group", *options])
    if "more" in only:
        results(folder, 10, start=size)
        measured("group with ten more", size, ["-m", "tau_workflows", bids, out, "group"])


if __name__ == "__main__":
    main()
