"""Memory of batches: used again, and never while something still refers to it."""

from __future__ import annotations

import gc
import pickle
import threading

import jax
import numpy as np

from fairgrape_jax.data.images import buffers


def place(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def test_memory_is_used_again_when_all_views_are_gone():
    shape = (3, 5, 7)
    first = buffers.empty(shape)
    first[...] = 1
    where, row, turned = place(first), first[1], first.reshape(-1)[::2].T
    del first
    second = buffers.empty(shape)
    assert place(second) != where
    second[...] = 2
    assert (row == 1).all()
    del row
    assert (turned == 1).all()
    assert place(buffers.empty(shape)) != where
    del turned
    gc.collect(0)  # all of it is new
    places = [buffers.empty(shape) for _ in range(3)]
    assert where in map(place, places)
    assert len(set(map(place, places))) == 3


def test_a_device_that_looks_at_it_holds_it():
    given = buffers.empty((64, 64))
    given[...] = 3
    on_device = jax.device_put(given)
    copy = pickle.loads(pickle.dumps(given))
    del given
    for _ in range(4):
        buffers.empty((64, 64))[...] = 9
    np.testing.assert_array_equal(on_device, 3)
    np.testing.assert_array_equal(copy, 3)


def test_threads_never_share_a_piece():
    def work(number: int) -> None:
        for _ in range(300):
            mine = buffers.empty((1000,))
            mine[...] = number
            if not (mine == number).all():
                wrong.append(number)

    wrong: list[int] = []
    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
