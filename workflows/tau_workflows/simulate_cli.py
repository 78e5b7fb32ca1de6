"""The program ``tau-simulate``: a BIDS dataset with known truth, without a download."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tau_pipeline import __version__
from tau_pipeline.errors import TauPipelineError
from tau_workflows.levels.interruption import exit_code, interruptible


def parser() -> argparse.ArgumentParser:
    """Return the argument parser of ``tau-simulate``."""
    about = "Write a BIDS dataset of simulated heads and tau PET, with the ground truth in truth/."
    p = argparse.ArgumentParser(prog="tau-simulate", description=about)
    p.add_argument("output_dir", metavar="OUTPUT_DIR", type=Path, help="output folder; must be empty or not exist")
    p.add_argument("--participants", type=int, default=4, metavar="N", help="number of participants (default 4)")
    p.add_argument("--seed", type=int, default=0, help="random seed; the same seed gives identical files (default 0)")
    p.add_argument(
        "--voxel-size", "--voxel_size", type=float, default=1.0, metavar="MM",
        help="voxel size of the T1w images, 0.8 to 4 mm (default 1); 2.5 makes 30 heads in about a minute",
    )  # fmt: skip
    p.add_argument(
        "--pet", choices=("static", "dynamic", "mixed"), default="mixed",
        help="static image, four frames of 5 minutes, or both kinds (default mixed); participant 4 never has PET",
    )  # fmt: skip
    p.add_argument(
        "--sessions", type=int, nargs="?", const=0, default=1, metavar="N",
        help="give every participant N sessions a year apart, each with T1w and PET; without N, give every third "
        "participant a second session",
    )  # fmt: skip
    p.add_argument(
        "--annual-change", "--annual_change", type=float, default=0.0, metavar="PERCENT",
        help="change of the uptake of temporal tau regions in a year, in percent of the first session; half of it in "
        "other cortex, and atrophy that follows (default 0: nothing changes)",
    )  # fmt: skip
    p.add_argument(
        "--annual-atrophy", "--annual_atrophy", type=float, default=0.0, metavar="MM",
        help="thickness that the cortex loses in a year beside what tau takes; ventricles grow with it (default 0)",
    )  # fmt: skip
    p.add_argument(
        "--t1w-differs", "--t1w_differs", action="store_true",
        help="let contrast, noise, coil, and motion of the T1w differ between the sessions",
    )  # fmt: skip
    p.add_argument(
        "--scanner-bias", "--scanner_bias", type=float, default=0.0, metavar="SHARE",
        help="bias of the scanners in the posterior fossa, so that SUVR differs by manufacturer (default 0)",
    )  # fmt: skip
    p.add_argument(
        "--p-tau217", "--p_tau217", action="store_true",
        help="add plasma p-tau217, which follows the amount of tau, to participants.tsv",
    )  # fmt: skip
    p.add_argument("--version", action="version", version=f"tau-simulate {__version__}")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``tau-simulate``.

    Returns
    -------
    int
        0 when the dataset is complete, 2 when the call is wrong or the folder cannot be used, 130 or 143 when it was
        interrupted by SIGINT or SIGTERM.
    """
    args = parser().parse_args(argv)
    from tau_pipeline.simulate.dataset import Simulation, simulate_dataset

    interrupted = (
        f"tau-simulate: interrupted; the dataset in {args.output_dir} is not complete: remove it and run the same "
        "command again"
    )
    start = time.monotonic()
    try:
        settings = Simulation(
            args.participants,
            args.seed,
            args.voxel_size,
            args.pet,
            args.sessions == 0,
            args.scanner_bias,
            args.p_tau217,
            args.sessions or 1,
            args.annual_change,
            args.annual_atrophy,
            args.t1w_differs,
        )
        with interruptible(interrupted):
            simulate_dataset(args.output_dir, settings, lambda line: print(line, flush=True))
    except TauPipelineError as error:
        print(f"tau-simulate: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        print(interrupted, file=sys.stderr)
        return exit_code(interrupt)
    print(f"{args.output_dir}: simulated BIDS dataset complete after {time.monotonic() - start:.0f} s")
    return 0
