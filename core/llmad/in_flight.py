"""In flight: a few slow calls at a time."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from queue import SimpleQueue
from threading import Thread
from typing import TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


def as_they_come(work: Callable[[Job], Result], jobs: Iterable[Job], at_once: int) -> Iterator[Result]:
    """The results of `work`, each when it is there; one at once is made in this thread.

    After an error no job is begun; what was under way is still yielded, and then the first error is raised. Threads do
    not keep a process alive that is told to stop.
    """
    if at_once == 1:
        yield from map(work, jobs)
        return
    waiting, running, failure = iter(jobs), 0, None
    done: SimpleQueue[tuple[list[Result], BaseException | None]] = SimpleQueue()

    def run(job: Job) -> None:
        try:
            done.put(([work(job)], None))
        except BaseException as error:
            done.put(([], error))

    while True:
        for job in islice(waiting, 0 if failure else at_once - running):
            Thread(target=run, args=(job,), daemon=True).start()
            running += 1
        if not running:
            break
        result, error = done.get()
        running, failure = running - 1, failure or error
        yield from result
    if failure:
        raise failure
