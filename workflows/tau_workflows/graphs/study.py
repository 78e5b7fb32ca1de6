"""A whole study as one graph: from raw T1w and PET to SUVR, to a model, and to synthetic SUVR."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe

from tau_pipeline.cohort.standardize import POOLED
from tau_pipeline.settings.configuration import Configuration
from tau_workflows.graphs.job import ParticipantJob, T1wJob, scan_steps, t1w_step
from tau_workflows.graphs.subject import init_subject_wf
from tau_workflows.graphs.synthesis import init_synthesis_wf

#: What the model is applied to.
_APPLIED = ("t1w_preproc_file", "mask_file")


def init_study_wf(
    jobs: Sequence[ParticipantJob],
    model_dir: Path,
    config: Configuration,
    diagnoses: Mapping[str, str] | None = None,
) -> pe.Workflow:
    """Every participant's graph, then a model trained on their SUVR maps, then synthetic SUVR for each T1w.

    Parameters
    ----------
    jobs
        One a participant, of one dataset; `tau_workflows.levels.participant.plan_participants` makes them.
    model_dir
        Folder of the model.
    config
        As `tau_workflows.graphs.synthesis.init_synthesis_wf` reads it, and ``as_manufacturer`` of ``synthesis``:
        whose scale the synthetic SUVR of a T1w without PET gets. Default: that of all manufacturers together.
    diagnoses
        Diagnosis by participant, for the stratification of the splits.

    Returns
    -------
    Workflow
        ``study_wf``; it has no open inputs. Its ``synthesis_wf`` has the outputs of `init_synthesis_wf`.
    """
    wf = pe.Workflow(name="study_wf")
    synthesis_wf = init_synthesis_wf(jobs[0].output_dir, model_dir, config)
    participants = [(init_subject_wf(job), job) for job in jobs]
    t1w_jobs = [(subject_wf, t1w_job) for subject_wf, job in participants for t1w_job in job.t1ws]
    saved = [(subject_wf, step) for subject_wf, t1w_job in t1w_jobs for step in _saving(t1w_job)]
    suvr_file = pe.Node(niu.Merge(len(saved)), name="suvr_file")
    for number, (subject_wf, step) in enumerate(saved, 1):
        wf.connect(subject_wf, f"{step}.out_files", suvr_file, f"in{number}")
    wf.connect(suvr_file, "out", synthesis_wf, "inputnode.suvr_file")
    for name in _APPLIED:
        merged = pe.Node(niu.Merge(len(t1w_jobs)), name=name)
        for number, (subject_wf, t1w_job) in enumerate(t1w_jobs, 1):
            wf.connect(subject_wf, f"{t1w_step(t1w_job.t1w)}.anat_wf.outputnode.{name}", merged, f"in{number}")
        wf.connect(merged, "out", synthesis_wf, f"inputnode.{name}")
    inputs = synthesis_wf.get_node("inputnode").inputs
    inputs.diagnoses = dict(diagnoses or {})
    inputs.manufacturer = [_manufacturer(t1w_job, config) for _, t1w_job in t1w_jobs]
    return wf


def _saving(t1w_job: T1wJob) -> list[str]:
    """The nodes that save the SUVR maps of a T1w's scans, by their place in the participant's graph."""
    return [f"{t1w_step(t1w_job.t1w)}.{scan_steps(scan_job.scan)[2]}" for scan_job in t1w_job.scans]


def _manufacturer(t1w_job: T1wJob, config: Configuration) -> str:
    own = next((scan_job.scan.manufacturer for scan_job in t1w_job.scans), None)
    return config.synthesis.as_manufacturer or own or POOLED
