"""Draw the graph of one participant from the real Nipype workflow: nodes, their order, and what passes between them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from pathlib import Path

import networkx as nx
from nipype.interfaces.utility import IdentityInterface, Merge
from nipype.pipeline import engine as pe

from tau_pipeline.bids.scans import Scan, T1w
from tau_pipeline.pet.frames import plan_frames
from tau_pipeline.settings.execution import Execution
from tau_pipeline.settings.participant import Settings
from tau_workflows.graphs.job import ParticipantJob, ScanJob, T1wJob
from tau_workflows.graphs.subject import init_subject_wf

#: Width and height of a box, and the gaps between boxes, in pixels.
BOX = (150, 40)
GAP = (30, 28)
#: What stands for the two raw images, from which everything comes.
RAW = {"t1w_file": "T1w", "pet_file": "PET"}


@dataclass(frozen=True)
class Step:
    """One node that computes something: its name, interface, inputs by node, outputs that are used, and memory."""

    name: str
    interface: str
    module: str
    inputs: dict[str, tuple[str, ...]]
    outputs: tuple[str, ...]
    mem_gb: float


def stub_job(folder: Path) -> ParticipantJob:
    """Return one participant with one T1w and one PET scan, whose files are empty: enough to build the graph."""
    for name in ("T1w.nii.gz", "pet.nii.gz"):
        (folder / name).touch()
    t1w = T1w("01", None, folder / "T1w.nii.gz", {}, {"sub": "01"})
    metadata = {"FrameTimesStart": [4800], "FrameDuration": [1200], "InjectionStart": 0, "TracerName": "AV1451"}
    scan = Scan(
        participant="01",
        session=None,
        tracer="AV1451",
        rec=None,
        run=None,
        pet_file=folder / "pet.nii.gz",
        pet_metadata=metadata,
        t1w=t1w,
        entities={"sub": "01", "trc": "AV1451"},
        n_frames=1,
        manufacturer="GE",
    )
    planned = ScanJob(scan, plan_frames((1, 1, 1), metadata))
    return ParticipantJob("01", (T1wJob(t1w, None, (planned,)),), folder, folder, Settings(), Execution())


def graph_of(folder: Path) -> nx.DiGraph:
    """Return the graph of `stub_job` without the nodes that only pass values on; edges carry the names of fields."""
    flat = init_subject_wf(stub_job(folder))._create_flat_graph()
    order = list(nx.topological_sort(flat))
    made_by: dict[tuple[pe.Node, str], set[tuple[str, str]]] = {}
    graph = nx.DiGraph()
    for node in order:
        incoming = [
            (out, into, source) for source, _, data in flat.in_edges(node, data=True) for out, into in data["connect"]
        ]
        origins = {into: made_by[source, out] for out, into, source in incoming}
        if isinstance(node.interface, IdentityInterface | Merge):
            raw = {name: {(RAW[name], name)} for name in RAW if name in node.inputs.copyable_trait_names()}
            known = {**raw, **origins}
            made_by |= {(node, out): known.get(out, set()) for out in node.interface._outputs().copyable_trait_names()}
            if isinstance(node.interface, Merge):
                made_by[node, "out"] = set().union(*origins.values())
            continue
        name = short_name(node)
        graph.add_node(name, node=node, lane=_lane(node))
        made_by |= {(node, out): {(name, out)} for out in node.interface._outputs().copyable_trait_names()}
        for origin, out in sorted(set().union(*origins.values())):
            known_fields = graph.edges[origin, name]["fields"] if graph.has_edge(origin, name) else ()
            graph.add_edge(origin, name, fields=(*known_fields, out))
    for raw, lane in (("T1w", 0), ("PET", 1)):
        graph.nodes[raw].update(node=None, lane=lane)
    return graph


def short_name(node: pe.Node) -> str:
    """Return a node's name without the participant: ``figures_sub_01_trc_AV1451`` is ``figures``."""
    return str(node.name).split("_sub_", 1)[0]


def _lane(node: pe.Node) -> int:
    """Return 0 for the anatomy, 1 for the PET."""
    return int("pet" in node.fullname.split(".")[2] or "_sub_" in node.name)


def steps(graph: nx.DiGraph) -> list[Step]:
    """Return every node that computes something, in an order in which they can run."""
    found = []
    for name in nx.lexicographical_topological_sort(graph, key=lambda n: (graph.nodes[n]["lane"], n)):
        node = graph.nodes[name]["node"]
        if node is None:
            continue
        inputs = {source: data["fields"] for source, _, data in graph.in_edges(name, data=True)}
        outputs = sorted({field for _, _, data in graph.out_edges(name, data=True) for field in data["fields"]})
        interface = type(node.interface)
        module = interface.__module__.split(".")[-1]
        found.append(Step(name, interface.__name__, module, inputs, tuple(outputs), float(node.mem_gb)))
    return found


# --- the picture --------------------------------------------------------------------------------------------------


def places(graph: nx.DiGraph) -> dict[str, tuple[int, int]]:
    """Return column and level of each node: the level is the longest way from a raw image, columns fill by lane.

    The cells below a node down to the last node that needs it stay empty: its arrows pass there.
    """
    reduced = nx.transitive_reduction(graph)
    levels: dict[str, int] = {}
    for name in nx.topological_sort(reduced):
        levels[name] = max((levels[source] + 1 for source in reduced.predecessors(name)), default=0)
    last = {name: max((levels[n] for n in reduced.successors(name)), default=levels[name] + 1) for name in levels}

    found: dict[str, tuple[int, int]] = {}
    first = 0
    for lane in (0, 1):
        in_lane = [name for name in levels if graph.nodes[name]["lane"] == lane]
        taken: set[tuple[int, int]] = set()
        for name in sorted(in_lane, key=lambda name: (levels[name], last[name], name)):
            column = next(n for n in range(first, first + len(in_lane)) if (n, levels[name]) not in taken)
            taken |= {(column, level) for level in range(levels[name], max(last[name], levels[name] + 1))}
            found[name] = (column, levels[name])
        first = 1 + max((column for column, _ in taken), default=first - 1)
    return found


def hidden_arrows(graph: nx.DiGraph) -> list[tuple[str, str]]:
    """Return arrows of the picture that would pass behind a box, and so seem to start there."""
    at = places(graph)
    taken = set(at.values())
    return [
        (source, target)
        for source, target in nx.transitive_reduction(graph).edges()
        if any((at[source][0], level) in taken for level in range(at[source][1] + 1, at[target][1]))
    ]


def svg(graph: nx.DiGraph) -> str:
    """Draw the picture. An arrow that follows from others is left out; the table lists all inputs."""
    at = places(graph)
    width = (1 + max(column for column, _ in at.values())) * (BOX[0] + GAP[0]) + GAP[0]
    height = (1 + max(level for _, level in at.values())) * (BOX[1] + GAP[1]) + GAP[1]
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="13" role="img">',
        "<title>The steps of one participant</title>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 L8 4 L0 8 z" fill="#555"/></marker></defs>',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        *(_arrow(at[source], at[target]) for source, target in sorted(nx.transitive_reduction(graph).edges())),
        *(_box(name, graph, at[name]) for name in sorted(at)),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _corner(place: tuple[int, int]) -> tuple[int, int]:
    column, level = place
    return GAP[0] + column * (BOX[0] + GAP[0]), GAP[1] + level * (BOX[1] + GAP[1])


def _arrow(source: tuple[int, int], target: tuple[int, int]) -> str:
    (x0, y0), (x1, y1) = _corner(source), _corner(target)
    x0, y0, x1 = x0 + BOX[0] // 2, y0 + BOX[1], x1 + BOX[0] // 2
    # The way goes straight down in its own column, and changes columns in the gap above the target.
    turn, middle = y1 - GAP[1], y1 - GAP[1] // 2
    path = f"M{x0} {y0} V{turn} C{x0} {middle} {x1} {middle} {x1} {y1 - 1}"
    return f'<path d="{path}" fill="none" stroke="#555" stroke-width="1.3" marker-end="url(#tip)"/>'


def _box(name: str, graph: nx.DiGraph, place: tuple[int, int]) -> str:
    (x, y), node = _corner(place), graph.nodes[name]["node"]
    fill = "#f3f3f3" if node is None else ("#dbe9f6", "#fde5cf")[graph.nodes[name]["lane"]]
    below = "" if node is None else type(node.interface).__name__
    middle = x + BOX[0] // 2
    texts = _texts(name, below, middle, y)
    return f'<rect x="{x}" y="{y}" width="{BOX[0]}" height="{BOX[1]}" rx="5" fill="{fill}" stroke="#888"/>{texts}'


def _texts(name: str, below: str, middle: int, top: int) -> str:
    lines: Iterable[tuple[str, int, str]]
    if below:
        lines = ((name, 17, 'font-weight="bold"'), (below, 32, 'font-size="11" fill="#444"'))
    else:
        lines = ((f"raw {name}", 25, ""),)
    return "".join(
        f'<text x="{middle}" y="{top + down}" text-anchor="middle" {style}>{escape(text)}</text>'
        for text, down, style in lines
    )
