"""Work on a CPU that is split by items instead of inside of each operation."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

_Item = TypeVar("_Item")
_Found = TypeVar("_Found")


def in_threads(work: Callable[[_Item], _Found], items: Sequence[_Item], workers: int) -> Iterator[_Found]:
    """Return results of ``work`` for each item, in order, from threads that each use one processor.

    Small operations keep one processor busy and not several, so that items side by side are faster than all processors
    on one item after the other; and what is found does not depend on the number of threads. No more results than twice
    the workers are waiting at any time. Autocast holds in the threads as in the caller, and the error of an item is
    raised where its result would come.

    Parameters
    ----------
    work
        Called with one item; must not depend on the order of the calls.
    items
        What to work on.
    workers
        Threads. With one, the work is done in the calling thread, with all of torch's threads.
    """
    if workers == 1 or len(items) == 1:
        yield from map(work, items)
        return
    threads = torch.get_num_threads()
    autocast = (torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu"))

    def alone(item: _Item) -> _Found:
        with torch.autocast("cpu", enabled=autocast[0], dtype=autocast[1]):
            return work(item)

    # torch's number of threads is each thread's own, but new threads begin with the one that was set last.
    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            waiting: deque[Future[_Found]] = deque()
            for item in items:
                waiting.append(pool.submit(alone, item))
                if len(waiting) == 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(threads)
