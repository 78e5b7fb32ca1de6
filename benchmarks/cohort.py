"""Cost of a cohort besides its work: overhead of the engine, and scaling over participants.

    python benchmarks/cohort.py overhead [--tasks 12] [--nprocs 2]
    python benchmarks/cohort.py scaling BIDS_DIR [--nprocs 2] [--counts 1 2 4 8]

``overhead`` runs tasks that do nothing: a module that ends at once, and a participant's process with everything that it
loads, whose graph has one step that passes on a number; beside them the same processes started one after the other by
a plain loop, each of which loads everything itself. ``scaling`` runs the first participants of a dataset
(`tau-simulate`), each time with new folders.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tau_pipeline.settings.execution import Execution
from tau_workflows.execution import participant
from tau_workflows.execution.pool import environment
from tau_workflows.execution.spread import spread
from tau_workflows.execution.task import ProgressWriter, Task, outcome_path

TRIVIAL = "import sys; from pathlib import Path; Path(sys.argv[1]).with_suffix('.json').write_text('{}')"


def trivial_participant(job_file: str) -> None:
    """Load what a participant's process loads, and run a graph of one step."""
    from nipype.interfaces import utility as niu
    from nipype.pipeline import engine as pe

    from tau_workflows.execution import nipype_engine as engine
    from tau_workflows.graphs.subject import init_subject_wf

    assert init_subject_wf
    participant.preload()
    wf = pe.Workflow(name="trivial_wf")
    node = pe.Node(niu.Function(function=_same, input_names=["number"], output_names=["out"]), name="same")
    node.inputs.number = 1
    wf.add_nodes([node])
    engine.set_verbosity(0)
    engine.configure(wf, Path(job_file).with_suffix(".work"))
    ProgressWriter(job_file, engine.n_steps(wf))
    engine.execute(wf, Execution(nprocs=1), engine.NodeTimes())
    outcome_path(job_file).write_text("{}")


def _same(number: int) -> int:
    return number


def measured(run: Callable[[], None]) -> tuple[float, float]:
    """Return wall time and processor time, in seconds, of a function and of the processes it waited for."""
    started, before = time.monotonic(), _cpu_s()
    run()
    return time.monotonic() - started, _cpu_s() - before


def _cpu_s() -> float:
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(use.ru_utime + use.ru_stime for use in both)


def overhead(n_tasks: int, nprocs: int) -> None:
    """Print the costs of tasks that do nothing."""
    print(f"{n_tasks} tasks, {nprocs} at a time; seconds a task")
    print(f"{'':44s} wall   cpu")
    for name, module, code, preload in (
        ("a module that ends at once", "trivial_work", TRIVIAL, ()),
        ("a participant with a graph of one step", "trivial_participant", _PARTICIPANT, participant.PRELOADED),
    ):
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / f"{module}.py").write_text(code)
            os.environ["PYTHONPATH"] = os.pathsep.join([folder, str(Path(__file__).parent)])
            files = [Path(folder) / f"w{k}.job" for k in range(n_tasks)]
            tasks = [Task(file.stem, module, file, 100, preload=preload) for file in files]
            for task in tasks:
                task.job_file.write_text("")
            wall, cpu = measured(lambda tasks=tasks: spread(tasks, Execution(), nprocs))
            assert all(outcome_path(task.job_file).is_file() for task in tasks)
            for task in tasks:
                shutil.rmtree(task.job_file.with_suffix(".work"), ignore_errors=True)
            plain_wall, plain_cpu = measured(lambda tasks=tasks: _plain_loop(tasks))
        print(f"{name + ', spread':44s} {wall / n_tasks:5.2f} {cpu / n_tasks:5.2f}")
        print(f"{name + ', plain loop':44s} {plain_wall / n_tasks:5.2f} {plain_cpu / n_tasks:5.2f}")


_PARTICIPANT = "import sys; import cohort; cohort.trivial_participant(sys.argv[1])"


def _plain_loop(tasks: list[Task]) -> None:
    for task in tasks:
        env = environment(1, task.job_file.parent)
        subprocess.run([sys.executable, "-m", task.module, str(task.job_file)], env=env, check=True)


def scaling(bids: Path, nprocs: int, counts: list[int]) -> None:
    """Print wall and processor time of the first participants, for several numbers of them."""
    labels = sorted(path.name for path in bids.glob("sub-*") if list(path.glob("**/pet/*_pet.nii.gz")))
    first = None
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            places = [str(bids), f"{folder}/out", "participant", "-w", f"{folder}/work", "--skip-bids-validation"]
            options = ["--nprocs", str(nprocs), "--participant-label", *labels[:count]]
            call = [sys.executable, "-m", "tau_workflows.cli", *places, *options]
            wall, cpu = measured(lambda call=call: subprocess.run(call, check=True, stderr=subprocess.DEVNULL) and None)
        first = first or wall
        print(
            f"{count:3d} participants {wall:7.1f} s, {wall / count:6.1f} s each, {cpu / count:6.1f} s of CPU each,",
            end=" ",
        )
        print(f"{first * count / wall:4.2f} times as quick as one after the other")


def main() -> int:
    """Run the measurements named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["overhead", "scaling"])
    parser.add_argument("bids", type=Path, nargs="?")
    parser.add_argument("--tasks", type=int, default=12)
    parser.add_argument("--nprocs", type=int, default=2)
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 2, 4, 8])
    args = parser.parse_args()
    if args.what == "overhead":
        overhead(args.tasks, args.nprocs)
    else:
        scaling(args.bids.absolute(), args.nprocs, args.counts)
    return 0


if __name__ == "__main__":
    sys.exit(main())
