"""Write the page of a voxelwise comparison, from the files in its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tau_pipeline
from tau_pipeline.errors import TauPipelineError
from tau_pipeline.figures.voxelwise import statistic_figure
from tau_pipeline.files import read_json, read_tsv, write_text
from tau_pipeline.imaging.load import load_volume
from tau_workflows.reports import html

#: Folder of the comparisons in the output, with one folder for each tracer, and what is in each.
FOLDER, RECORD, PAGE = Path("group", "voxelwise"), "voxelwise.json", "report.html"


def write_voxelwise_report(folder: Path) -> Path:
    """Write ``report.html`` of one comparison; returns its path.

    Parameters
    ----------
    folder
        With the maps, ``clusters.tsv``, ``design.tsv`` and ``voxelwise.json``.
    """
    record = read_json(folder / RECORD)
    maps = {name: load_volume(folder / f"{name}.nii.gz", ndim=3) for name in ("t", "thresholded", "effect", "mask")}
    tested, clusters = record["Tested"], read_tsv(folder / "clusters.tsv")
    # The largest clusters come first.
    peaks = clusters["z_mm"].astype(float).tolist()

    def picture(name: str, unit: str) -> str:
        figure = statistic_figure(maps[name], maps["mask"], record["Space"], f"{tested} ({unit})", peaks)
        return html.figure_uri(figure)

    figures = [
        (title, picture(name, unit))
        for name, title, unit in (
            ("thresholded", f"Significant voxels: t where corrected p < {record['Alpha']}", "t"),
            ("t", "t in all voxels, not thresholded", "t"),
            ("effect", "Difference in SUVR, or SUVR per unit of the covariate", "SUVR"),
        )
    ]
    text = html.render(
        "voxelwise.html.jinja",
        record=record,
        figures=figures,
        clusters=clusters.to_dict("records"),
        methods=methods_of(record),
        version=tau_pipeline.__version__,
    )
    return write_text(text, folder / PAGE)


def voxelwise_pages(output_dir: Path) -> list[dict[str, Any]]:
    """Return the comparisons in an output folder: what was tested, and the address of the page from ``group``."""
    found = []
    for path in sorted((output_dir / FOLDER).glob(f"*/{RECORD}")):
        try:
            record = read_json(path)
        except TauPipelineError:
            continue
        found.append({**record, "Page": f"{FOLDER.name}/{path.parent.name}/{PAGE}"})
    return found


def methods_of(record: dict[str, Any]) -> str:
    """Return the description of a comparison for a paper."""
    others = [name for name in record["Columns"][1:] if name != "intercept"]
    adjusted = f", adjusted for {', '.join(others)}" if others else ""
    space = record["Space"].split(":")[0]
    return (
        f"SUVR maps of {record['Scans']} scans ({record['Tracer']}) in {space} were smoothed to a resolution "
        f"of {record['FWHM']:g} mm FWHM and compared in {record['Voxels']} voxels of gray matter (labeled so in at "
        f"least {record['GrayMatterShare']:.0%} of the scans, and measured in all) with a linear model in nilearn. "
        f"{record['Tested']} was tested two-sided{adjusted}; p-values were corrected for the number of voxels by "
        f"{record['Permutations']} permutations of threshold-free cluster enhancement (smallest possible p: "
        f"{1 / (record['Permutations'] + 1):.2g})."
    )
