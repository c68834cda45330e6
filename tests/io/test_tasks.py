"""Tasks run in order, here or elsewhere; what happens to workers is one message."""

import os
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import pytest

from badpix.errors import DataError
from badpix.io.tasks import Spread, run_in_order


def add(a, b):
    return a + b


def end(item):
    os._exit(3)


def test_results_come_in_the_order_of_the_items():
    seen = []
    items = [(k, 10 * k) for k in range(50)]
    here = list(run_in_order(None, Spread(add), items, lambda done, total: seen.append((done, total))))
    with ThreadPoolExecutor(4) as pool:
        there = list(run_in_order(pool, Spread(add), items))
    assert here == there == [11 * k for k in range(50)]
    assert seen == [(k, 50) for k in range(1, 51)]


def test_nothing_to_do_is_nothing_done():
    assert list(run_in_order(None, add, [])) == []


def test_a_worker_that_is_killed_is_said():
    with ProcessPoolExecutor(1) as pool, pytest.raises(DataError, match="worker process was ended"):
        list(run_in_order(pool, end, [1]))


def test_threads_that_are_refused_are_said():
    def refused(item):
        raise RuntimeError("can't start new thread")

    with pytest.raises(DataError, match="no worker can be started"):
        list(run_in_order(None, refused, [1]))


def test_an_error_of_ours_stays_one():
    def wrong(item):
        raise RuntimeError("ours")

    with pytest.raises(RuntimeError, match="ours"):
        list(run_in_order(None, wrong, [1]))
