"""Files of the output dataset as a whole, and the check that a folder is ours."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tau_pipeline
from tau_pipeline.derivatives.names import BIDS_VERSION, SOFTWARE
from tau_pipeline.errors import OutputError, TauPipelineError
from tau_pipeline.files import read_json, write_changed, write_json, write_text

#: Without slashes, since the validator (3.0) does not match a folder against a pattern that ends with one.
BIDSIGNORE = (
    *("*.html", "*_xfm.*", "*_jacobian.*", "*_rois.tsv", "*_rois.json", "*_agreement.tsv", "*_agreement.json"),
    # PET on surfaces (den-10k) is in BIDS since 1.11, which not every validator knows.
    *("*.surf.gii", "*.shape.gii", "*_den-*"),
    *("comparisons", "figures", "group", "logs", "models"),
)


README = """\
Regional SUVR of tau PET, made by {software} {version}

sub-*/.../anat   T1w with its bias corrected, brain mask, Desikan-Killiany parcellation, reference regions, transforms
sub-*/.../pet    SUVR map on the grid of the T1w, table of regions, transform from PET to T1w
sub-*.html       one report per participant, with figures and quality measures
group            tables of all participants
models           trained models, one folder each
logs             records of failed scans, citations

Every image has a JSON sidecar with its sources, the version, the hash of the settings, and in "Assumptions" every value
that the input did not state. Transforms are ITK files, for use with ANTs.
"""


def write_dataset_files(output_dir: Path, bids_dir: Path, derivatives: Mapping[str, Path] | None = None) -> None:
    """Write ``dataset_description.json``, ``README`` and ``.bidsignore`` of the output.

    Parameters
    ----------
    output_dir, bids_dir
        Roots of output and input. ``bids:raw:`` in the sidecars means the input.
    derivatives
        Further inputs by name; ``bids:NAME:`` means them.

    Raises
    ------
    OutputError
        The output folder holds another dataset, or cannot be written to.
    """
    output_dir = Path(output_dir)
    check_output_dir(output_dir, Path(bids_dir))
    links = {"raw": Path(bids_dir), **(derivatives or {})}
    description = {
        "Name": "Regional SUVR of tau PET",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": SOFTWARE, "Version": tau_pipeline.__version__}],
        "SourceDatasets": [{"URL": path.absolute().as_uri()} for path in links.values()],
        "DatasetLinks": {name: path.absolute().as_uri() for name, path in links.items()},
        "HowToAcknowledge": "See logs/CITATION.md.",
    }
    write_json(description, output_dir / "dataset_description.json")
    write_text(README.format(software=SOFTWARE, version=tau_pipeline.__version__), output_dir / "README")
    write_bidsignore(output_dir)


def write_bidsignore(output_dir: Path) -> None:
    """Name to the BIDS validator what BIDS has no names for; every level writes it, for its own files."""
    write_changed("\n".join(BIDSIGNORE) + "\n", Path(output_dir) / ".bidsignore")


def is_raw_data(folder: Path, bids_dir: Path) -> bool:
    """Return whether a folder is the raw dataset itself or a part of it; datasets in its ``derivatives`` are none.

    Any other folder in it would make it invalid for the next run.
    """
    inside, root = folder.resolve(), bids_dir.resolve()
    if not inside.is_relative_to(root):
        return False
    first, *rest = inside.relative_to(root).parts or ("",)
    return first != "derivatives" or not rest


def check_output_dir(output_dir: Path, bids_dir: Path) -> None:
    """Refuse an output folder that is the input, or that holds a dataset of something else.

    Raises
    ------
    OutputError
        With the reason; nothing has been written.
    """
    if output_dir.resolve() == bids_dir.resolve():
        raise OutputError(f"the output folder {output_dir} is the input dataset; give another folder")
    if is_raw_data(output_dir, bids_dir):
        raise OutputError(
            f"the output folder {output_dir} is among the raw data of the input; give another folder, such as "
            f"{bids_dir / 'derivatives' / SOFTWARE}"
        )
    if output_dir.exists() and not output_dir.is_dir():
        raise OutputError(f"the output folder {output_dir} is a file; give another folder")
    if not (output_dir / "dataset_description.json").exists():
        return
    try:
        found = read_json(output_dir / "dataset_description.json")
    except TauPipelineError as exc:
        raise OutputError(f"the output folder {output_dir} holds a damaged dataset: {exc}") from exc
    stated = found.get("GeneratedBy")
    generators = [each for each in stated if isinstance(each, dict)] if isinstance(stated, list) else []
    names = [each.get("Name") for each in generators]
    if SOFTWARE not in names:
        made_by = f"made by {', '.join(map(str, names))}" if names else "not made by this program"
        raise OutputError(f"the output folder {output_dir} holds a dataset {made_by}; give another folder")
    _refuse_newer(output_dir, [each for each in generators if each.get("Name") == SOFTWARE])


def _refuse_newer(output_dir: Path, generators: Sequence[Mapping[str, Any]]) -> None:
    """Refuse an output of a later version of this program, of which an earlier one would overwrite parts."""
    for stated in (str(each.get("Version", "")) for each in generators):
        if _release(stated) > _release(tau_pipeline.__version__):
            raise OutputError(
                f"the output folder {output_dir} was made by version {stated} of {SOFTWARE}, and this is version "
                f"{tau_pipeline.__version__}, which would overwrite it: use that version or a later one, or give "
                "another folder"
            )


def _release(version: str) -> tuple[int, ...]:
    """Return the numbers of a version before its first suffix, without zeros at the end; empty if there are none.

    Examples
    --------
    >>> _release("1.10.0.dev3") > _release("1.9")
    True
    """
    numbers = re.match(r"\s*v?(\d+(?:\.\d+)*)", version)
    found = [int(number) for number in numbers[1].split(".")] if numbers else []
    while found and found[-1] == 0:
        found.pop()
    return tuple(found)
