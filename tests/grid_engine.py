"""Stand-ins for Grid Engine's qsub, qstat, qacct and qdel, which follow the contract of those programs locally."""

from __future__ import annotations

from pathlib import Path

QSUB = """#!/bin/sh
# -t 1-N makes an array of N tasks, which find their number in SGE_TASK_ID.
here=$(dirname "$0")
echo "$@" >> "$here/asked"
for script; do :; done
n=${2#1-}
touch "$here/running"
setsid sh -c 'i=1
while [ $i -le $1 ]; do SGE_TASK_ID=$i sh "$2"; i=$((i+1)); done; rm "$3/running"' tasks "$n" "$script" "$here" \\
    </dev/null >/dev/null 2>&1 &
echo $! > "$here/session"
echo "Your job-array 7.1-$n:1 (\\"tasks\\") has been submitted"
"""
QSTAT = """#!/bin/sh
[ "$1 $2" = "-j 7" ] || exit 1
[ -e "$(dirname "$0")/running" ] && echo "job_number: 7" || echo "Following jobs do not exist: 7" >&2
"""
QACCT = """#!/bin/sh
[ "$1 $2" = "-j 7" ] || exit 1
printf 'jobnumber    7\\nfailed       0\\nexit_status  0\\n'
"""
QDEL = """#!/bin/sh
here=$(dirname "$0")
echo "$@" >> "$here/deleted"
rm -f "$here/running"
kill -TERM -- "-$(cat "$here/session")"
"""


def write_stand_ins(folder: Path) -> Path:
    """Write the programs to a folder that is to stand first in PATH.

    The arguments of qsub are written to ``asked`` in it, those of qdel to ``deleted``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (("qsub", QSUB), ("qstat", QSTAT), ("qacct", QACCT), ("qdel", QDEL)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return folder
