"""Stand-ins for Grid Engine's qsub, qstat and qacct: they do by the contract of those programs, on this machine."""

from __future__ import annotations

from pathlib import Path

QSUB = """#!/bin/sh
# -t 1-N makes an array of N tasks, which find their number in SGE_TASK_ID.
here=$(dirname "$0")
echo "$@" >> "$here/asked"
for script; do :; done
n=${2#1-}
( touch "$here/running"; i=1
while [ $i -le $n ]; do SGE_TASK_ID=$i sh "$script"; i=$((i+1)); done; rm "$here/running" ) \\
    </dev/null >/dev/null 2>&1 &
echo "Your job-array 7.1-$n:1 (\\"works\\") has been submitted"
"""
QSTAT = """#!/bin/sh
[ "$1 $2" = "-j 7" ] || exit 1
[ -e "$(dirname "$0")/running" ] && echo "job_number: 7" || echo "Following jobs do not exist: 7" >&2
"""
QACCT = """#!/bin/sh
[ "$1 $2" = "-j 7" ] || exit 1
printf 'jobnumber    7\\nfailed       0\\nexit_status  0\\n'
"""


def write_stand_ins(folder: Path) -> Path:
    """Write the programs to a folder that is to stand first in PATH; ``asked`` in it takes what qsub is asked."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (("qsub", QSUB), ("qstat", QSTAT), ("qacct", QACCT)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return folder
