"""Answers of the program to an input, within limits of time and memory."""

from __future__ import annotations

import contextlib
import io
import resource
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

from tau_pipeline.errors import TauPipelineError
from tau_workflows.cli import main as tau_pipeline

#: No answer may take more processor time, nor more memory than this beside what was in use before.
LONGEST_S = 20.0
#: Nor longer by the clock: what waits for something uses no processor, and what others keep waiting is no hang.
LONGEST_BY_THE_CLOCK_S = 300.0
MOST_MEMORY = 3 << 30


class NoAnswerError(BaseException):
    """No answer came in time. Not an `Exception`, so that nothing between takes it for one."""


class WrongAnswerError(AssertionError):
    """An answer that a person should not get."""


@contextlib.contextmanager
def limited() -> Iterator[None]:
    """End what takes too long, and refuse memory to what takes too much."""

    def stop(signum: int, _: object) -> None:
        of_clock = signum == signal.SIGALRM
        limit, what = (LONGEST_BY_THE_CLOCK_S, "the clock") if of_clock else (LONGEST_S, "processor time")
        raise NoAnswerError(f"no answer within {limit:g} s of {what}")

    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    timers = (
        (signal.SIGALRM, signal.ITIMER_REAL, LONGEST_BY_THE_CLOCK_S),
        (signal.SIGPROF, signal.ITIMER_PROF, LONGEST_S),
    )
    before = [signal.signal(signum, stop) for signum, _, _ in timers]
    resource.setrlimit(resource.RLIMIT_AS, (in_use + MOST_MEMORY, hard))
    for _, timer, limit in timers:
        signal.setitimer(timer, limit)
    try:
        yield
    finally:
        for _, timer, _ in timers:
            signal.setitimer(timer, 0)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        for (signum, _, _), handler in zip(timers, before, strict=True):
            signal.signal(signum, handler)


def answer_of_call(arguments: list[str]) -> str:
    """Call the program as a person would, and look at what it says; returns the exit code in words."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", errors) for errors in ("strict", "backslashreplace"))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), limited():
        try:
            code = tau_pipeline(arguments)
        except SystemExit as exc:
            code = exc.code
        out.flush()
    err.flush()
    said, complaint = (stream.buffer.getvalue().decode("utf-8") for stream in (out, err))
    if code not in (0, 1, 2, 3):
        raise WrongAnswerError(f"exit code {code!r}")
    if "Traceback" in said + complaint:
        raise WrongAnswerError(f"a traceback: {complaint[-2000:]}")
    if code and not any(len(line.split()) > 3 for line in complaint.splitlines()):
        raise WrongAnswerError(f"exit code {code} without a sentence: {complaint!r}")
    return f"exit code {code}"


def answer_of_function(function: Callable[[], object]) -> str:
    """Call a function of the library: it returns, or raises an error of ours with a sentence."""
    try:
        with limited():
            function()
    except TauPipelineError as exc:
        message = str(exc)
        if len(message.split()) < 4 or len(message) > 2000:
            raise WrongAnswerError(f"no sentence, but {message!r:.300}") from exc
        return type(exc).__name__
    return "done"
