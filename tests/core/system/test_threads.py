"""Work in threads: in order, a few pieces at a time, and over soon when something fails."""

import threading
import time

import pytest

from ibma_app.core.system.threads import in_order, in_threads, open_queue


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_results_come_in_the_order_of_the_jobs(threads):
    def work(job):
        time.sleep(0.002 * (job % 3 == 0))
        return job**2

    assert list(in_order(work, range(40), threads)) == [job**2 for job in range(40)]
    found = {}
    in_threads(work, range(40), threads, lambda job, result: found.update({job: result}))
    assert found == {job: job**2 for job in range(40)}


@pytest.mark.parametrize("threads", [1, 3])
def test_no_more_is_begun_than_a_few_ahead(threads):
    begun = []
    results = in_order(lambda job: begun.append(job), range(1000), threads)
    for taken in range(1, 6):
        next(results)
        assert len(begun) <= taken + 2 * threads
    results.close()
    time.sleep(0.02)
    assert len(begun) <= 5 + 2 * threads


@pytest.mark.parametrize("threads", [1, 3])
def test_the_first_failure_ends_it_and_no_thread_outlives_it(threads):
    begun = []

    def work(job):
        begun.append(job)
        if job == 4:
            raise ValueError("the fifth")
        return job

    before = threading.active_count()
    for run in (lambda: list(in_order(work, range(1000), threads)), lambda: in_threads(work, range(1000), threads)):
        begun.clear()
        with pytest.raises(ValueError, match="the fifth"):
            run()
        assert len(begun) < 20
        assert threading.active_count() == before


def test_a_queue_holds_a_few_pieces_and_gives_results_in_order():
    go = threading.Event()
    with open_queue(2, 3) as queue:
        assert [queue.put(lambda job: (go.wait(10), job)[1], job) for job in range(3)] == [[], [], []]
        go.set()
        assert queue.put(lambda: 3) == [0]
        assert list(queue.finish()) == [1, 2, 3]


def test_what_waits_when_a_queue_is_left_is_not_begun():
    go, begun = threading.Event(), []

    def interrupted():
        with open_queue(1, 50) as queue:
            for job in range(20):
                queue.put(lambda job: (begun.append(job), go.wait(0.2)), job)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(begun) <= 2
