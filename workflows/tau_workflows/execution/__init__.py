"""Tasks in separate processes, on this machine or a cluster.

Who starts whom on this machine, and which modules run there:

    program        tau-pipeline: plans, distributes tasks, shows progress     `spread`, `progress`
    └─ pool        Pydra's process: starts one task after another             `pool`: ``in_pool_...``
       └─ server   loads the modules of the tasks once and forks tasks        `fork_server`: ``in_server_...``
          └─ task     one participant, or some trainings                      `launch`: ``in_task_...``, then its module
             └─ steps    Nipype's processes, one node at a time               `nipype_engine`

On a cluster, each pool process is a job of the queue and has no server; outside of Linux there is no server either.
Signals are handled by the program only. When it ends, it announces this in its heartbeat (`heartbeat`), which other
machines see too, and each process ends the processes that it started. When it is killed, Linux kills its children and
theirs (`tau_workflows.interfaces.own_process.die_with_parent`).
"""
