"""Execution of a graph: Nipype's settings, its plugin, and records of failures."""

from __future__ import annotations

import errno
import logging
import os
import re
import shutil
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nipype.interfaces.utility import IdentityInterface
from nipype.pipeline import engine as pe
from nipype.pipeline.plugins.multiproc import MultiProcPlugin

import tau_pipeline
from tau_pipeline.errors import SettingError
from tau_pipeline.files import read_json
from tau_pipeline.settings.execution import Execution
from tau_workflows.interfaces.base import ERROR_RECORD
from tau_workflows.interfaces.own_process import die_with_parent

#: In the place of a traceback, where the process of a node ended and could say nothing.
KILLED = "Killed: the process of this step, or of one beside it, was ended; too little memory is the usual reason\n"


class ProcessPlugin(MultiProcPlugin):
    """Nipype's MultiProc, except for what a kill leaves and for the order of nodes that could run.

    A worker that is killed from outside fails the nodes that were running instead of hanging the run, and new workers
    do the others; if this process is killed, its workers end too. Of the nodes that could run, those with the longest
    way to the end of the graph go first: figures do not hold up what the table waits for.
    """

    def __init__(self, plugin_args: dict[str, Any]) -> None:
        super().__init__(plugin_args=plugin_args)
        # Nipype's own pool has started no process yet.
        self.pool = self._new_pool()

    def _new_pool(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(self.processors, initializer=die_with_parent, initargs=(os.getpid(),))

    def _generate_dependency_list(self, graph: Any) -> None:
        super()._generate_dependency_list(graph)
        # how many nodes follow each other from this one to the end; Nipype lists nodes in topological order
        self._ahead = [1] * len(self.procs)
        for place in reversed(range(len(self.procs))):
            after = self.depidx.getrow(place).nonzero()[1]
            self._ahead[place] += max((self._ahead[other] for other in after), default=0)

    def _sort_jobs(self, jobids: Any, scheduler: str | None = None) -> list[Any]:
        return sorted(jobids, key=lambda place: self._ahead[place], reverse=True)

    def _submit_job(self, node: Any, updatehash: bool = False) -> Any:
        try:
            taskid = super()._submit_job(node, updatehash)
        except BrokenProcessPool:
            self.pool = self._new_pool()
            taskid = super()._submit_job(node, updatehash)
        # Nipype notes the task after it has asked to be called: a future that failed in between has notified nobody.
        future = self._task_obj[taskid]
        if future.done() and taskid not in self._taskresult:
            self._async_callback(future)
        return taskid

    def _async_callback(self, args: Any) -> None:
        try:
            super()._async_callback(args)
        except BrokenProcessPool:
            self._fail(args, [KILLED])
        except BaseException:
            self._fail(args, traceback.format_exc().splitlines(keepends=True))

    def _fail(self, future: Any, lines: list[str]) -> None:
        """Put lines where Nipype looks for the traceback of the future's node."""
        lost = [taskid for taskid, other in self._task_obj.items() if other is future]
        for taskid in lost:
            self._taskresult[taskid] = {"result": None, "traceback": list(lines), "taskid": taskid}


@dataclass
class NodeTimes:
    """Record of nodes: wall time in seconds of each that ran, by its full name, and those that failed.

    Nodes whose results were there already do not appear.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    failed: dict[str, pe.Node] = field(default_factory=dict)
    listener: Callable[[str, str], None] | None = None
    _started: dict[str, float] = field(default_factory=dict)

    def __call__(self, node: pe.Node, status: str) -> None:
        """Take one event of the plugin: start, end or exception; an end without a start is a result that was there."""
        name = node.fullname
        if status == "start":
            self._started[name] = time.monotonic()
        elif name in self._started:
            self.seconds[name] = round(time.monotonic() - self._started[name], 2)
        if status == "exception":
            self.failed[name] = node
        if self.listener:
            unchanged = status == "end" and name not in self._started
            self.listener(name, "cached" if unchanged else status)


def configure(workflow: pe.Workflow, work_dir: Path, stop_on_first_crash: bool = False) -> None:
    """Set how Nipype runs ``workflow``: by content of the inputs, quick polling, readable crash files.

    Each version of this package has its own folder in the work folder: Nipype knows the inputs of a step, but not the
    code, and must not take another version's result for this one's.
    """
    work_dir = own_work_dir(work_dir)
    workflow.base_dir = str(work_dir)
    workflow.config["execution"] = {
        "hash_method": "content",
        "crashfile_format": "txt",
        "crashdump_dir": str(work_dir / workflow.name / "crashes"),
        "poll_sleep_duration": "0.05",
        "stop_on_first_crash": str(stop_on_first_crash).lower(),
        "remove_unnecessary_outputs": "false",
        "create_report": "false",
        "check_version": "false",
    }


def own_work_dir(work_dir: Path) -> Path:
    """Return the part of a work folder that belongs to this version."""
    return work_dir / f"tau-pipeline-{tau_pipeline.__version__}"


def set_verbosity(verbose: int) -> None:
    """Let Nipype log nothing (its errors go into our records), or its steps (1), or everything (2 and more)."""
    for name in ("nipype.workflow", "nipype.interface", "nipype.utils"):
        logging.getLogger(name).setLevel([logging.CRITICAL, logging.INFO, logging.DEBUG][min(verbose, 2)])


def n_steps(workflow: pe.Workflow) -> int:
    """Count the nodes of a workflow that compute something; identity nodes are removed before it runs."""
    nodes = workflow._create_flat_graph().nodes()
    return sum(not isinstance(node.interface, IdentityInterface) for node in nodes)


def execute(workflow: pe.Workflow, execution: Execution, times: NodeTimes) -> None:
    """Run a configured workflow to its end; failed nodes are in ``times.failed`` and stop only what needs them."""
    try:
        workflow.run(plugin=_plugin(execution, times))
    except RuntimeError:
        # Nipype raises the first node's error again when all is over; each has its own record by then.
        if not times.failed:
            raise


def _plugin(execution: Execution, times: NodeTimes) -> Any:
    """Make Nipype's plugin: this machine's processes, or what the file of ``--use-plugin`` names."""
    if execution.use_plugin is not None:
        plugin, given = check_plugin(execution.use_plugin)
        return plugin(plugin_args={**given, "status_callback": times})
    args: dict[str, Any] = {"n_procs": execution.nprocs or 1, "status_callback": times, "raise_insufficient": False}
    if execution.mem_mb:
        args["memory_gb"] = execution.mem_mb / 1024
    return ProcessPlugin(plugin_args=args)


def check_plugin(file: Path) -> tuple[type, dict[str, Any]]:
    """Read ``{"plugin": NAME, "plugin_args": {...}}``, the form of fMRIPrep's file, as JSON: Nipype's class, arguments.

    Raises
    ------
    MissingInputError, DamagedFileError
        There is no such file, or it is not JSON.
    SettingError
        Nipype has no such plugin.
    """
    from nipype.pipeline import plugins

    content = read_json(file)
    name = content.get("plugin")
    found = getattr(plugins, f"{name}Plugin", None)
    if found is None:
        known = ", ".join(sorted(n.removesuffix("Plugin") for n in dir(plugins) if n.endswith("Plugin")))
        raise SettingError(f"{file} names the plugin {name!r}; known to Nipype are {known}")
    return found, dict(content.get("plugin_args", {}))


def error_of(node: pe.Node) -> dict[str, Any]:
    """Tell why a node failed: the record that its interface left, or the last line of its crash file."""
    record = Path(node.output_dir()) / ERROR_RECORD
    if record.is_file():
        return read_json(record)
    crashes = Path(node.config["execution"]["crashdump_dir"])
    matching = sorted(crashes.glob(f"crash-*-{node.name}-*.txt"), key=lambda path: path.stat().st_mtime)
    text = matching[-1].read_text(encoding="utf-8") if matching else ""
    lines = [line.strip() for line in text.splitlines()]
    last = next((line for line in reversed(lines) if re.match(r"([\w.]+(Error|Exception|Exit)|Killed)\b", line)), "")
    name, _, message = last.partition(":")
    message = _about_lost_result(message.strip()) or message.strip() or "no message"
    return {"error": name.rsplit(".", 1)[-1] or "Error", "message": message, "traceback": lines}


def _about_lost_result(message: str) -> str:
    """Say what happened where Nipype names nothing but the file of a result that it could not write or find again."""
    path = Path(message)
    if not re.fullmatch(r"result_\w+\.pklz", path.name):
        return ""
    there = next((folder for folder in path.parents if folder.is_dir()), Path("/"))
    if shutil.disk_usage(there).free < _NEARLY_FULL_BYTES:
        return f"cannot write {path}: {os.strerror(errno.ENOSPC)}"
    return f"the result of this step, {path}, was not written or is gone; run the same command again"


#: A disk with less is full: the result of a step has some thousands of bytes.
_NEARLY_FULL_BYTES = 1_000_000
