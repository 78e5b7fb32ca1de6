"""Section ``[execution]``: how the work is run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tau_pipeline.settings.fields import Checked, documented, require

Worker = Literal["cf", "slurm", "sge"]


@dataclass(frozen=True)
class Execution(Checked):
    """Settings that change only how the work is run, never the results."""

    nprocs: int | None = field(
        default=None,
        metadata=documented("Number of processes. Default: one per CPU.", flags=("--nprocs", "--n-cpus"), at_least=1),
    )
    omp_nthreads: int | None = field(
        default=None,
        metadata=documented(
            "Threads per process. Default: 1; for train and synthesize, nprocs or else all cores. Only the weights of "
            "trained networks depend on it, by rounding.",
            at_least=1,
        ),
    )
    mem_mb: int | None = field(
        default=None,
        metadata=documented(
            "Memory available to all processes together.", unit="MB", flags=("--mem-mb", "--mem"), at_least=1
        ),
    )
    work_dir: Path = field(
        default=Path("work"),
        metadata=documented(
            "Working directory for intermediate results; rerunning with the same directory computes only what "
            "has changed.",
            flags=("--work-dir", "-w"),
        ),
    )
    use_plugin: Path | None = field(
        default=None,
        metadata=documented("JSON file with the Nipype plugin and its arguments.", source="form of fMRIPrep"),
    )
    worker: Worker = field(
        default="cf",
        metadata=documented(
            "Where participants are processed: on this machine (cf) or on a SLURM or Grid Engine cluster."
        ),
    )
    worker_args: str = field(
        default="",
        metadata=documented(
            "Additional arguments for sbatch or qsub, as a single string: '--partition=long --time=8:00:00'."
        ),
    )
    max_jobs: int = field(
        default=500,
        metadata=documented(
            "Largest number of SLURM jobs in the queue at a time; further participants are submitted as jobs end.",
            at_least=1,
        ),
    )
    poll_interval: float = field(
        default=30.0,
        metadata=documented("Time between two requests to SLURM, each for all jobs.", unit="s", at_least=1),
    )
    write_array: Path | None = field(
        default=None,
        metadata=documented(
            "Do not process; write the scripts of an array job to this folder, with one call of the program per task "
            "and a job that runs the group level at the end. Participants that are done are left out."
        ),
    )
    array_chunk: int | None = field(
        default=None,
        metadata=documented("Participants per task of the array. Default: as few as give 1000 tasks.", at_least=1),
    )
    array_limit: int = field(
        default=100, metadata=documented("Largest number of tasks of the array that run at a time.", at_least=1)
    )
    array_scheduler: Literal["slurm", "sge", "pbs"] = field(
        default="slurm", metadata=documented("Scheduler for which the array is written.")
    )
    container: str | None = field(
        default=None,
        metadata=documented(
            "Image in which the tasks of the array run: a .sif file or an address such as docker://NAME for "
            "Apptainer, else the name of a Docker image. Default: the Python environment of this command."
        ),
    )
    stop_on_first_crash: bool = field(
        default=False, metadata=documented("Stop at the first failed scan instead of finishing the others.")
    )
    skip_bids_validation: bool = field(
        default=False, metadata=documented("Do not run the BIDS validator on the input.")
    )
    dry_run: bool = field(default=False, metadata=documented("Show what would be done, without processing."))
    boilerplate_only: bool = field(default=False, metadata=documented("Write only the description of the methods."))
    reports_only: bool = field(
        default=False, metadata=documented("Recreate the reports from existing outputs, without processing.")
    )
    suvr_scale: tuple[float, float] = field(
        default=(0.5, 2.5),
        metadata=documented("Ends of the color scale of SUVR in the figures; values beyond take the color of the end."),
    )
    verbose: int = field(
        default=0, metadata=documented("Increase verbosity; may be repeated.", flags=("--verbose", "-v"), at_least=0)
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        low, high = self.suvr_scale
        require(0 <= low < high, "suvr_scale", [low, high], "two values of SUVR, 0 <= low < high")
