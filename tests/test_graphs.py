"""The graphs: every field that is wired exists, and every field that is needed is wired."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
from nipype.interfaces.base import isdefined
from nipype.interfaces.utility import IdentityInterface
from nipype.pipeline import engine as pe
from toy_models import toy_ensemble, toy_model

from tau_pipeline.anatomy.freesurfer import FreeSurferFiles
from tau_pipeline.derivatives.names import AnatNames, SyntheticNames
from tau_pipeline.settings.configuration import Configuration
from tau_pipeline.settings.participant import Settings
from tau_pipeline.settings.training import Network, Training
from tau_pipeline.synthesis.data.targets import Target
from tau_pipeline.synthesis.evaluation.outputs import SynthesisContext
from tau_workflows.execution.nipype_engine import ProcessPlugin
from tau_workflows.graphs.anat import init_anat_wf
from tau_workflows.graphs.job import ON_SURFACES, ParticipantJob
from tau_workflows.graphs.pet import init_pet_wf
from tau_workflows.graphs.subject import init_subject_wf
from tau_workflows.graphs.synthesis import init_synthetic_scans_wf
from tau_workflows.graphs.training_memory import training_gb
from tau_workflows.interfaces.anat import FindReference
from tau_workflows.interfaces.pet import CorrectMotion, PetOnT1w

PARTS = ("anat", "anat with FreeSurfer", "pet", "pet with correction")


def workflows(job: ParticipantJob) -> dict[str, pe.Workflow]:
    """Every graph that the package can build."""
    t1w_job = job.t1ws[0]
    folder = job.bids_dir
    freesurfer = FreeSurferFiles(folder, folder / "aparc+aseg.mgz", folder / "brain.mgz", folder / "mask.mgz")
    scan_job = t1w_job.scans[0]
    return {
        "anat": init_anat_wf(t1w_job.t1w, job.settings),
        "anat with FreeSurfer": init_anat_wf(t1w_job.t1w, job.settings, freesurfer),
        "pet": init_pet_wf(scan_job.scan, scan_job.frames, job.settings),
        "pet with correction": init_pet_wf(scan_job.scan, scan_job.frames, replace(job.settings, pvc=("gtm",))),
        "subject": init_subject_wf(job),
        "subject in spaces": init_subject_wf(
            replace(job, settings=replace(job.settings, pvc=("mg",), output_spaces=("T1w", "MNI152NLin6Asym")))
        ),
        "subject with surfaces": init_subject_wf(
            replace(job, settings=replace(job.settings, surfaces=True, cortex_labels="hybrid"))
        ),
        "subject with surfaces of FreeSurfer": init_subject_wf(on_surfaces_of_freesurfer(job)),
        "synthetic scans": init_synthetic_scans_wf(synthetic_scans(folder), context(folder), folder),
    }


def on_surfaces_of_freesurfer(job: ParticipantJob) -> ParticipantJob:
    """Ask for maps on fsaverage without --surfaces, where FreeSurfer's files are there."""
    folder = job.bids_dir / "fs"
    names = [f"surf/{{}}.{name}" for name in ("white", "pial", "sphere.reg", "thickness")] + ["label/{}.aparc.annot"]
    files = [folder / name.format(hemi) for name in names for hemi in ("lh", "rh")]
    images = [folder / f"{name}.mgz" for name in ("aparc+aseg", "brain", "mask")]
    for file in (*files, *images):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    given = FreeSurferFiles(folder, *images)
    settings = replace(job.settings, output_spaces=("fsaverage",), pvc=("mg",))
    return replace(job, settings=settings, t1ws=tuple(replace(one, freesurfer=given) for one in job.t1ws))


def synthetic_scans(folder: Path) -> list[Target]:
    """Two of one participant, one of another."""
    found = []
    for entities in ({"sub": "01", "ses": "a"}, {"sub": "01", "ses": "b"}, {"sub": "02"}):
        names = SyntheticNames(folder, entities)
        found.append(Target(names, AnatNames(folder, entities), entities.get("ses"), "flortaucipir", "GE", "n/a"))
    return found


def context(folder: Path, device: str = "auto") -> SynthesisContext:
    """Return the shared settings of all synthetic scans, with a model that does nothing."""
    return SynthesisContext(toy_ensemble(toy_model(lambda t1w: t1w)), folder, "0" * 12, device=device)


def mistakes(wf: pe.Workflow, *, is_part: bool) -> list[str]:
    """Fields that are wired but do not exist, and fields that exist but are not wired, over all levels."""
    flat = wf._create_flat_graph()
    wired: dict[pe.Node, set[str]] = {node: set() for node in flat.nodes()}
    found = []
    for source, target, data in flat.edges(data=True):
        for out, into in data["connect"]:
            wired[target].add(into)
            if out not in source._interface._outputs().copyable_trait_names():
                found.append(f"{source.fullname} has no output {out}")
            if into not in target._interface.inputs.copyable_trait_names():
                found.append(f"{target.fullname} has no input {into}")
    open_nodes = [node for node in flat.nodes() if not (is_part and node.name == "inputnode")]
    return found + [
        f"{node.fullname}.{name} is neither set nor wired"
        for node in open_nodes
        for name in needed(node)
        if name not in wired[node] and not isdefined(getattr(node.inputs, name))
    ]


def needed(node: pe.Node) -> list[str]:
    """Mandatory inputs; all of them where a node only passes values on."""
    passes_on = isinstance(node.interface, IdentityInterface)
    names: list[str] = node.inputs.copyable_trait_names()
    return [name for name in names if passes_on or node.inputs.traits()[name].mandatory]


@pytest.mark.parametrize(
    "name",
    [
        "anat",
        "anat with FreeSurfer",
        "pet",
        "pet with correction",
        "subject",
        "subject in spaces",
        "subject with surfaces",
        "subject with surfaces of FreeSurfer",
        "synthetic scans",
    ],
)
def test_every_field_is_spelt_right_and_wired(job: ParticipantJob, name: str) -> None:
    wf = workflows(job)[name]
    assert mistakes(wf, is_part=name in PARTS) == []
    on_surfaces = [node for node in wf._create_flat_graph().nodes() if node.name.startswith(ON_SURFACES)]
    assert bool(on_surfaces) == ("surfaces" in name)


def test_each_participants_graph_has_a_node_for_each_synthetic_scan_which_takes_a_gpu_where_one_is_wanted(
    job: ParticipantJob,
) -> None:
    for device, wanted in (("cpu", False), ("cuda", True)):
        folder = job.bids_dir
        wf = init_synthetic_scans_wf(synthetic_scans(folder), context(folder, device), folder)
        nodes = wf._create_flat_graph().nodes()
        assert {node.fullname for node in nodes} == {
            "synthesize_wf.sub_01_wf.synthesize_ses_a_desc_synthSUVR",
            "synthesize_wf.sub_01_wf.synthesize_ses_b_desc_synthSUVR",
            "synthesize_wf.sub_02_wf.synthesize_desc_synthSUVR",
        }
        assert {node.is_gpu_node() for node in nodes} == {wanted}


def test_no_node_takes_the_whole_configuration(job: ParticipantJob) -> None:
    for name, wf in workflows(job).items():
        for node in wf._create_flat_graph().nodes():
            assert not any(isinstance(value, Configuration) for value in node.inputs.get().values()), name


def test_an_interface_takes_the_settings_that_its_inputs_are_named_after():
    given = Settings(random_seed=7, motion_correction=False, ref_region=("Pons", "CerebellarGM"))
    motion = CorrectMotion.with_settings(given, pet_file=str(Path(__file__)))
    assert (motion.inputs.motion_correction, motion.inputs.pet_file) == (False, str(Path(__file__)))
    assert FindReference.with_settings(given).inputs.ref_region == ["Pons", "CerebellarGM"]
    assert not isdefined(PetOnT1w.with_settings(given).inputs.target_fwhm)
    assert PetOnT1w.with_settings(Settings(target_fwhm=8.0)).inputs.target_fwhm == 8.0


def test_a_misspelt_field_is_reported(job: ParticipantJob) -> None:
    wf = pe.Workflow(name="wrong")
    first = pe.Node(IdentityInterface(fields=["mask_file"]), name="first")
    first.inputs.mask_file = "x"
    second = pe.Node(IdentityInterface(fields=["mask_file", "dseg_file"]), name="second")
    wf.connect(first, "mask_file", second, "mask_flie")
    found = mistakes(wf, is_part=False)
    assert any("no input mask_flie" in text for text in found)
    assert any("dseg_file is neither set nor wired" in text for text in found)


def test_every_image_interface_is_used_by_a_graph(job: ParticipantJob) -> None:
    from tau_workflows.interfaces import anat, figures, outputs, pet, spaces, synthesis
    from tau_workflows.interfaces.base import LibraryInterface

    written = {
        cls
        for module in (anat, figures, outputs, pet, spaces, synthesis)
        for cls in vars(module).values()
        if isinstance(cls, type) and issubclass(cls, LibraryInterface) and cls is not LibraryInterface
    }
    used = {type(node.interface) for wf in workflows(job).values() for node in wf._create_flat_graph().nodes()}
    assert written <= used


@pytest.mark.parametrize("preset", ["laptop", "paper"])
@pytest.mark.parametrize("network", get_args(Network))
def test_the_memory_of_every_training_is_known_and_grows_with_what_it_holds(network: Any, preset: Any) -> None:
    one = Training(network=network, network_preset=preset, batch_size=1)
    four = Training(network=network, network_preset=preset, batch_size=4)
    in_parts = Training(network=network, network_preset=preset, batch_size=4, micro_batch_size=1)
    small, large = training_gb(one, (64, 64, 64)), training_gb(one, (96, 96, 96))
    assert 0 < small < large < training_gb(four, (96, 96, 96))
    assert training_gb(in_parts, (96, 96, 96)) == large


def test_nodes_that_the_table_waits_for_go_before_figures(job: ParticipantJob) -> None:
    plugin = ProcessPlugin({"n_procs": 1})
    plugin._generate_dependency_list(init_subject_wf(job)._create_flat_graph())
    order = [plugin.procs[place].name for place in plugin._sort_jobs(range(len(plugin.procs)))]
    for sooner, later in (("template", "coregister"), ("labels", "early_figures"), ("tissue", "activity_figures")):
        assert order.index(sooner) < order.index(later)
