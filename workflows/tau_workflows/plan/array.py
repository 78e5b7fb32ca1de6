"""Array job of a cluster: one call of the program per task, and a last job that collects the cohort's tables.

The scripts need nothing of the program that writes them, so that a site can change them. Any task can be submitted
again: it computes only what is missing.
"""

from __future__ import annotations

import json
import math
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from tau_pipeline.errors import OutputError
from tau_pipeline.files import complete_file
from tau_pipeline.settings.configuration import SECTIONS, Configuration
from tau_pipeline.settings.execution import Execution
from tau_workflows.graphs.job import ParticipantJob
from tau_workflows.plan.earlier import anatomy_is_done, scan_is_done

#: SLURM refuses arrays of more tasks than its MaxArraySize, which is 1,001 unless a site has changed it.
MOST_TASKS = 1000

_NAME = "tau-pipeline"


@dataclass(frozen=True)
class _Scheduler:
    """Text of a scheduler's scripts: header lines, the variable that numbers the tasks, and the submission."""

    header: str
    of_array: str
    task: str
    submit: str


_SCHEDULERS: Mapping[str, _Scheduler] = {
    "slurm": _Scheduler(
        "#SBATCH --job-name={name}\n#SBATCH --cpus-per-task={processes}\n#SBATCH --mem={memory}M\n"
        "#SBATCH --output={output}\n#SBATCH {more}",
        "#SBATCH --array=1-{n}%{limit}",
        "SLURM_ARRAY_TASK_ID",
        'array=$(sbatch --parsable "$here/array.sh")\n'
        'group=$(sbatch --parsable --dependency="afterany:${array%%;*}" "$here/group.sh")\n'
        'echo "submitted: array $array, group $group"',
    ),
    "sge": _Scheduler(
        "#$ -N {name}\n#$ -S /bin/bash\n#$ -j y\n#$ -o {logs}\n#$ {more}",
        "#$ -t 1-{n}\n#$ -tc {limit}",
        "SGE_TASK_ID",
        # The number of an array is printed as 12.1-100:1.
        'array=$(qsub -terse "$here/array.sh")\ngroup=$(qsub -terse -hold_jid "${array%%.*}" "$here/group.sh")\n'
        'echo "submitted: array ${array%%.*}, group $group"',
    ),
    "pbs": _Scheduler(
        "#PBS -N {name}\n#PBS -j oe\n#PBS -o {logs}\n#PBS -l select=1:ncpus={processes}:mem={memory}mb\n#PBS {more}",
        "#PBS -J 1-{n}%{limit}",
        "PBS_ARRAY_INDEX",
        'array=$(qsub "$here/array.sh")\ngroup=$(qsub -W "depend=afterany:$array" "$here/group.sh")\n'
        'echo "submitted: array $array, group $group"',
    ),
}


def unfinished(jobs: Sequence[ParticipantJob]) -> list[str]:
    """Return the labels of participants of whom something is still to be computed, in their order."""
    return [job.participant for job in jobs if not _is_done(job)]


def _is_done(job: ParticipantJob) -> bool:
    return all(
        anatomy_is_done(job, t1w) and all(scan_is_done(job, t1w, scan) for scan in t1w.scans) for t1w in job.t1ws
    )


def write_array(
    labels: Sequence[str], bids_dir: Path, output_dir: Path, config: Configuration, processes: int, memory_mb: int
) -> Path:
    """Write the scripts of an array job; returns the one that submits it.

    Parameters
    ----------
    labels
        Participants, without ``sub-``; at least one.
    bids_dir, output_dir
        Absolute paths, which all nodes can see.
    config
        Settings of the tasks; ``write_array``, ``array_chunk``, ``array_limit``, ``array_scheduler``, ``container`` and
        ``worker_args`` of its section ``execution`` are read here.
    processes, memory_mb
        What each task asks for.

    Raises
    ------
    OutputError
        The folder cannot be written to.
    """
    execution = config.execution
    if execution.write_array is None:
        raise ValueError("write_array names no folder")
    folder = execution.write_array.absolute()
    chunk = execution.array_chunk or math.ceil(len(labels) / MOST_TASKS)
    lines = [" ".join(labels[start : start + chunk]) for start in range(0, len(labels), chunk)]
    try:
        (folder / "logs").mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise OutputError(f"cannot make the folder {folder}: {exc.strerror or exc}") from exc
    scheduler = _SCHEDULERS[execution.array_scheduler]
    program = _program(execution.container, (bids_dir, output_dir, execution.work_dir, folder, Path.cwd()))
    settings_file = shlex.quote(str(folder / "settings.toml"))
    dirs = shlex.join([str(bids_dir), str(output_dir)])
    call = f"{program} {dirs} {{level}} --config-file {settings_file}"
    known = {"processes": processes, "memory": memory_mb, "more": execution.worker_args}
    known["logs"] = _in_header(f"{folder / 'logs'}/")

    def script(header: str, body: str, log: str, **more: Any) -> str:
        output = _in_header(f"{folder / 'logs'}/{log}.log")
        # A line of options that are not given would be refused.
        filled = header.format(**known, **more, output=output)
        lines = [line for line in filled.splitlines() if len(line.split()) > 1]
        head = "\n".join(["#!/bin/bash", *lines, "set -euo pipefail", f"cd {shlex.quote(str(Path.cwd()))}"])
        return f"{head}\n{body}\n"

    # PBS refuses an array of one task.
    single = execution.array_scheduler == "pbs" and len(lines) == 1
    array = script(
        scheduler.header if single else f"{scheduler.header}\n{scheduler.of_array}",
        f"# Line of participants.txt with the labels of this task.\n"
        f'line=$(sed -n "${{{scheduler.task}:-1}}p" {shlex.quote(str(folder / "participants.txt"))})\n'
        f'read -r -a labels <<< "$line"\n{call.format(level="participant")} --participant-label "${{labels[@]}}"',
        name=_NAME,
        log="%x-%A_%a",
        n=len(lines),
        limit=execution.array_limit,
    )
    submit = f'#!/bin/bash\nset -euo pipefail\nhere=$(cd "$(dirname "$0")" && pwd)\n{scheduler.submit}\n'
    texts = {
        "participants.txt": "\n".join(lines) + "\n",
        "settings.toml": _toml(_of_tasks(config, processes, memory_mb)),
        "array.sh": array,
        "group.sh": script(scheduler.header, call.format(level="group"), name=f"{_NAME}-group", log="%x-%j"),
        "submit.sh": submit,
    }
    for name, text in texts.items():
        with complete_file(folder / name) as partial:
            partial.write_text(text, encoding="utf-8")
        if name.endswith(".sh"):
            (folder / name).chmod((folder / name).stat().st_mode | 0o111)
    return folder / "submit.sh"


def _in_header(path: str) -> str:
    """Return a path for the header of a script, which sbatch and qsub divide at spaces outside of quotation marks."""
    return f'"{path}"' if " " in path else path


def _program(container: str | None, places: Sequence[Path]) -> str:
    """Return the start of the command: this Python, or a container in which all places have the same paths."""
    if container is None:
        return shlex.join([sys.executable, "-m", "tau_workflows"])
    input_dir, *others = (str(path.absolute()) for path in dict.fromkeys(places))
    binds = [f"{input_dir}:{input_dir}:ro", *(f"{path}:{path}" for path in others)]
    if container.endswith((".sif", ".img")) or "://" in container:
        options = [word for bind in binds for word in ("-B", bind)]
        return shlex.join(["apptainer", "run", "--cleanenv", "--no-home", *options, container])
    options = [word for bind in binds for word in ("-v", bind)]
    user = '-u "$(id -u):$(id -g)"'
    return f"docker run --rm --network none {user} {shlex.join([*options, '-w', str(Path.cwd()), container])}"


def _of_tasks(config: Configuration, processes: int, memory_mb: int) -> Configuration:
    """Return the settings of a task: those of the call without what concerns the array; the input is valid by then.

    A task uses no more than it asks for, also where the scheduler does not confine it.
    """
    default = Execution()
    of_array = ("write_array", "array_chunk", "array_limit", "array_scheduler", "container")
    reset = {name: getattr(default, name) for name in (*of_array, "worker", "worker_args", "dry_run")}
    reset |= {"nprocs": processes, "mem_mb": memory_mb, "skip_bids_validation": True}
    execution = replace(config.execution, **reset)
    return replace(config, execution=execution, selection=replace(config.selection, participant_label=()))


def _toml(config: Configuration) -> str:
    """Return the settings that differ from their defaults as TOML."""
    lines = []
    for section, cls in SECTIONS.items():
        own, default = getattr(config, section), cls()
        changed = [item.name for item in fields(cls) if getattr(own, item.name) != getattr(default, item.name)]
        if changed:
            lines += [f"[{section}]", *(f"{name} = {_value(getattr(own, name))}" for name in changed), ""]
    return "\n".join(lines)


def _value(value: Any) -> str:
    """Return a value as TOML, of which texts, numbers, lists, and truth values are written as in JSON."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, Path):
        return json.dumps(str(value), ensure_ascii=False)
    return json.dumps(value, ensure_ascii=False)
