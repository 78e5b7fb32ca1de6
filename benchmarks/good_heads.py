"""Measures of the checks of the T1w and of the meninges on good scans that differ: how far from the limits they are.

    python benchmarks/good_heads.py FOLDER [--heads 2] [--pets 12] [--exchanges 0] [--seed 915] [--voxel-size 2]

Each simulated head is changed in ways that leave it a good scan: contrast, atrophy, noise, thick slices, uneven coils.
Its template is registered, its tissue segmented, and the measures are those of the program, with the true brain mask.
``Dice`` is the mean over the true labels of the head and those of the template after registration: it says whether a
low correlation is a false alarm. One more head, with ventricles of several hundred mL, is no usual scan.
With ``--exchanges N``, each of N heads is also measured with the registrations of the N - 1 others, which are wrong.
Uptake around the brain is measured on the true positions of simulated PET, as it is and with twice and three times the
uptake of the meninges. One line of JSON per scan in FOLDER/good_heads.jsonl: started again, the program goes on.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tau_pipeline.anatomy.agreement import template_agreement
from tau_pipeline.anatomy.template import TemplateRegistration, register_to_template
from tau_pipeline.anatomy.tissue import segment_tissue
from tau_pipeline.anatomy.warped_atlas import warp_labels, warped_atlas
from tau_pipeline.atlas import atlas_files
from tau_pipeline.imaging.resample import resample
from tau_pipeline.imaging.volume import Volume, image_like, voxel_size_mm
from tau_pipeline.measures.quality_figures import shell_uptake, tissue_contrast
from tau_pipeline.simulate.dataset import Simulation, draw_visits, plan_participant
from tau_pipeline.simulate.heads import Head, HeadDraw, make_head
from tau_pipeline.simulate.pet import make_pet
from tau_pipeline.simulate.plan import Visit
from tau_pipeline.simulate.template import OUTSIDE, load_template

Floats = NDArray[np.float32]


def atrophied(draw: HeadDraw, thinner_mm: float = 0.4, wider_mm: float = 1.5) -> HeadDraw:
    """Return a head whose cortex is thinner and whose ventricles have grown, in mm, as in severe dementia."""
    thinning = {label: lost + thinner_mm for label, lost in draw.thinning.items()}
    return replace(draw, thinning=thinning, ventricles_mm=draw.ventricles_mm + wider_mm)


def hydrocephalic(draw: HeadDraw) -> HeadDraw:
    """Return a head whose cortex is 0.8 mm thinner and whose ventricles are 5 mm wider all around."""
    return atrophied(draw, 0.8, 5.0)


def noisy(draw: HeadDraw) -> HeadDraw:
    """Return a head with noise of 8 % of white matter."""
    return replace(draw, noise=0.08)


def uneven(draw: HeadDraw) -> HeadDraw:
    """Return a head whose coils are twice as uneven, as if N4 had left the rest."""
    return replace(draw, bias=2 * draw.bias)


def flat(data: Floats, _: NDArray[np.float64]) -> Floats:
    """Halve the contrast between all tissues of the head."""
    white = np.percentile(data, 98)
    return np.where(data > 0.15 * white, 0.5 * data + 0.4 * white, data)


def steep(data: Floats, _: NDArray[np.float64]) -> Floats:
    """Raise the contrast: dark gray matter, as with long inversion times."""
    white = np.percentile(data, 98)
    return white * np.clip(data / white, 0, None) ** 1.8


def thick(data: Floats, voxel_mm: NDArray[np.float64]) -> Floats:
    """Average over slices of 5 mm."""
    return ndimage.uniform_filter1d(data, max(1, round(5 / float(voxel_mm[2]))), axis=2)


#: What is done to the draw of a head, and what to its T1w.
DRAWN: Mapping[str, Callable[[HeadDraw], HeadDraw]] = {
    "as it is": lambda draw: draw,
    "atrophy": atrophied,
    "hydrocephalus": hydrocephalic,
    "noise of 8%": noisy,
    "uneven coils": uneven,
}
CHANGED: Mapping[str, Callable[[Floats, NDArray[np.float64]], Floats]] = {
    "half of the contrast": flat,
    "high contrast": steep,
    "slices of 5 mm": thick,
}


def visit_of(number: int, seed: int) -> Visit:
    """Return the draws of one simulated person with a static PET."""
    settings = Simulation(number, seed=seed, pet="static")
    return draw_visits(number, plan_participant(number, settings), settings.seed)[0]


def dice(true: NDArray[np.int32], found: NDArray[np.int32]) -> float:
    """Return the Dice index of two label images of one shape, mean over the labels of the first."""
    overlaps = []
    for label in np.unique(true[true > 0]):
        one, other = true == label, found == label
        overlaps.append(2 * np.count_nonzero(one & other) / (np.count_nonzero(one) + np.count_nonzero(other)))
    return float(np.mean(overlaps))


def of_registration(t1w: Volume, head: Head, found: TemplateRegistration) -> dict[str, float]:
    """Return the measures of the T1w of a head with a registration of the template, right or wrong."""
    mask = image_like(np.asanyarray(head.labels.dataobj) > 0, head.t1w)
    files = atlas_files()
    correlation = template_agreement(t1w, mask, files.template_brain, found.t1w_from_template)
    tissue = segment_tissue(t1w, mask, warped_atlas(mask, files.desikan_killiany, found))
    labels = warp_labels(files.desikan_killiany, head.t1w, found.t1w_from_template)
    return {
        "TemplateCorrelation": float("nan") if correlation is None else correlation,
        "Dice": dice(np.asanyarray(head.labels.dataobj), labels),
        **tissue_contrast(np.asanyarray(t1w.dataobj), np.asanyarray(tissue.dataobj)),
    }


def registered(t1w: Volume, head: Head, folder: Path) -> TemplateRegistration:
    """Register the template to a head; its transforms are written into the folder."""
    folder.mkdir(exist_ok=True)
    mask = image_like(np.asanyarray(head.labels.dataobj) > 0, head.t1w)
    return register_to_template(t1w, mask, atlas_files().template_brain, folder)


def of_t1w(t1w: Volume, head: Head) -> dict[str, float]:
    """Return the measures of the T1w of a head with its own registration."""
    with tempfile.TemporaryDirectory() as folder:
        return of_registration(t1w, head, registered(t1w, head, Path(folder)))


def exchanges(count: int, seed: int, voxel_mm: float) -> Iterator[dict[str, float]]:
    """Yield the measures of every pair of a head and the registration of another one."""
    template = load_template()
    heads = [make_head(visit_of(number, seed).head, template, voxel_mm) for number in range(1, count + 1)]
    with tempfile.TemporaryDirectory() as folder:
        found = [registered(head.t1w, head, Path(folder) / str(number)) for number, head in enumerate(heads)]
        for (one, head), (other, registration) in itertools.product(enumerate(heads), enumerate(found)):
            measures = of_registration(head.t1w, head, registration)
            yield {"kind": "own" if one == other else "exchanged", "head": one + 1, "of": other + 1, **measures}


def t1ws(number: int, seed: int, voxel_mm: float) -> Iterator[tuple[str, Callable[[], dict[str, float]]]]:
    """Yield the name of each kind of T1w of one head, and a function that measures it."""
    draw, template = visit_of(number, seed).head, load_template()
    for name, change in DRAWN.items():

        def drawn(change: Callable[[HeadDraw], HeadDraw] = change) -> dict[str, float]:
            head = make_head(change(draw), template, voxel_mm)
            return of_t1w(head.t1w, head)

        yield name, drawn
    for name, alter in CHANGED.items():

        def changed(alter: Callable[[Floats, NDArray[np.float64]], Floats] = alter) -> dict[str, float]:
            head = make_head(draw, template, voxel_mm)
            data = np.asanyarray(head.t1w.dataobj).astype(np.float32)
            return of_t1w(image_like(alter(data, voxel_size_mm(head.t1w)), head.t1w), head)

        yield name, changed


def of_meninges(number: int, seed: int, voxel_mm: float, factor: float) -> dict[str, float]:
    """Return the uptake around the brain of a simulated PET whose meninges take up more by a factor."""
    visit = visit_of(number, seed)
    if visit.pet is None:
        return {}
    head = make_head(visit.head, load_template(), voxel_mm)
    uptake = dict(visit.pet.uptake)
    uptake[OUTSIDE["meninges"]] = factor * uptake[OUTSIDE["meninges"]]
    pet = make_pet(replace(visit.pet, uptake=uptake), head)
    on_t1w = resample(image_like(np.asanyarray(pet.pet.dataobj) / visit.pet.ref_bqml, pet.pet), head.t1w, pet.frames[0])
    found = shell_uptake(np.asanyarray(on_t1w.dataobj), np.asanyarray(head.labels.dataobj) > 0, head.t1w)
    return {**found, "TrueMeninges": uptake[OUTSIDE["meninges"]]}


def measured(given: argparse.Namespace) -> Iterator[tuple[str, int, Callable[[], dict[str, float]]]]:
    """Yield kind, number of the head, and a function that measures it."""
    for number in range(1, given.heads + 1):
        for kind, measure in t1ws(number, given.seed, given.voxel_size):
            yield kind, number, measure
    for number in range(1, given.pets + 1):
        for factor in (1.0, 2.0, 3.0):
            yield f"meninges x {factor:g}", number, lambda n=number, f=factor: of_meninges(n, given.seed, 3.0, f)


def main() -> int:
    """Measure what is not in the folder yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--heads", type=int, default=2)
    parser.add_argument("--pets", type=int, default=12)
    parser.add_argument("--exchanges", type=int, default=0)
    parser.add_argument("--seed", type=int, default=915)
    parser.add_argument("--voxel-size", type=float, default=2.0)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    table = given.folder / "good_heads.jsonl"
    lines = table.read_text(encoding="utf-8").splitlines() if table.exists() else []
    done = {(row["kind"], row["head"]) for row in map(json.loads, lines)}
    rows = (
        {"kind": kind, "head": number, **measure()}
        for kind, number, measure in measured(given)
        if (kind, number) not in done
    )
    if ("exchanged", 1) not in done and given.exchanges > 1:
        rows = itertools.chain(rows, exchanges(given.exchanges, given.seed, given.voxel_size))
    for row in rows:
        line = json.dumps({name: round(value, 3) if isinstance(value, float) else value for name, value in row.items()})
        with table.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
