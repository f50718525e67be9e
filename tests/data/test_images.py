"""Where the pixels are kept, which changes none of them, and how the next batch is prepared."""

from __future__ import annotations

import gc
import threading

import numpy as np
import pytest
import torch

from bdlf.data import images
from bdlf.data.images import Images, choose_cache
from bdlf.system.errors import InputError

PLACES = ["device", "host", "disk"]
ROWS = [np.array([4, 0, 4, 6]), np.array([], dtype=np.int64), np.array([5]), np.arange(7)[::-1]]
WAIT = 20  # seconds that an event which must come may take


@pytest.fixture
def store(tmp_path):
    """Seven images in a file, mapped read-only."""
    pixels = np.random.default_rng(0).integers(0, 256, (7, 4, 3, 3), dtype=np.uint8)
    np.save(tmp_path / "store.npy", pixels)
    return np.load(tmp_path / "store.npy", mmap_mode="r")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("cache", PLACES)
def test_batches_are_the_rows_of_the_store(store, cache, monkeypatch):
    monkeypatch.setattr(images, "_CHUNK", 3)
    with monkeypatch.context() as patch:  # or fresh memory may happen to hold what an earlier test has left
        patch.setattr(np, "empty", lambda shape, dtype: np.full(shape, 99, dtype))
        held = Images(store, "cpu", cache)
    assert held.cache == cache and len(held) == 7 and held.device == torch.device("cpu")
    for rows, batch in zip(ROWS, held.batches(iter(ROWS)), strict=True):
        assert batch.dtype == torch.uint8 and np.array_equal(batch, store[rows])
        assert torch.equal(held.take(rows), batch)
        assert torch.equal(held.take(rows.astype(np.int32)), batch)
    held.take(ROWS[0]).zero_()
    assert np.array_equal(held.take(ROWS[0]), store[ROWS[0]]), "what is taken is a copy"


@pytest.mark.parametrize("cache", PLACES)
@pytest.mark.parametrize("rows", [[0, 7], [-1, 3]])
def test_rows_outside_the_store_are_refused_everywhere(store, cache, rows):
    with pytest.raises(IndexError, match=rf"rows {rows[0]}\.\.{rows[1]} .* 7 images"):
        Images(store, "cpu", cache).take(np.array(rows))


def test_only_the_mapped_file_is_read_again(tmp_path):
    np.save(tmp_path / "store.npy", np.full((3, 2, 2, 3), 5, np.uint8))
    store = np.load(tmp_path / "store.npy", mmap_mode="r+")
    held = {cache: Images(store, "cpu", cache) for cache in PLACES}
    store[:] = 6
    seen = {cache: int(one.take(np.array([2])).max()) for cache, one in held.items()}
    assert seen == {"device": 5, "host": 5, "disk": 6}


GPU = torch.device("cuda", 0)
GIB = 2**30


@pytest.fixture
def room(monkeypatch):
    """`room(device, host)`: so many bytes are free."""

    def set_to(device: float, host: float) -> None:
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda asked: (int(device), 10**15) if asked == GPU else None)
        monkeypatch.setattr(images, "available_memory", lambda: int(host))

    return set_to


@pytest.mark.parametrize(
    ("device", "free", "available", "chosen"),
    [
        (GPU, 9 * GIB, 0, "device"),
        (GPU, 9 * GIB - 3, 6 * GIB, "host"),
        (GPU, 9 * GIB - 3, 6 * GIB - 2, "disk"),
        (GPU, 9 * GIB - 3, 100 * GIB, "host"),
        (torch.device("cpu"), 0, 100 * GIB, "disk"),
    ],
)
def test_auto_takes_the_first_place_with_room(room, device, free, available, chosen):
    room(free, available)
    assert choose_cache("auto", 3 * GIB, device) == chosen


@pytest.mark.parametrize(
    ("cache", "device", "free", "available", "message"),
    [
        (
            "device",
            GPU,
            3 * GIB - 1,
            100 * GIB,
            r"data\.cache=device: .* take 3\.0 GiB, cuda:0 has 3\.0 GiB free: use ",
        ),
        (
            "device",
            torch.device("cpu"),
            100 * GIB,
            2**20,
            r"take 3\.0 GiB, cpu has 1\.0 MiB free: use data\.cache=host",
        ),
        ("host", GPU, 100 * GIB, 2 * GIB, r"data\.cache=host: .* 3\.0 GiB, this machine has 2\.0 GiB available: use "),
        ("ram", GPU, 100 * GIB, 100 * GIB, r"data\.cache='ram' is not known; known: auto, device, host, disk"),
    ],
)
def test_what_does_not_fit_where_it_was_asked_for_is_refused(room, cache, device, free, available, message):
    room(free, available)
    with pytest.raises(InputError, match=message) as caught:
        choose_cache(cache, 3 * GIB, device)
    assert "\n" not in str(caught.value)
    assert choose_cache("disk", 3 * GIB, device) == "disk"
    room(3 * GIB, 3 * GIB)
    assert [choose_cache(asked, 3 * GIB, device) for asked in ("device", "host")] == ["device", "host"]


@pytest.mark.parametrize("cache", ["device", "host"])
def test_refused_before_anything_is_allocated(room, monkeypatch, store, cache):
    def allocate(*_, **__):
        raise AssertionError("allocated")

    room(0, store.nbytes - 1)
    monkeypatch.setattr(torch, "empty", allocate)
    monkeypatch.setattr(np, "empty", allocate)
    with pytest.raises(InputError, match=rf"data\.cache={cache}"):
        Images(store, "cpu", cache)


def test_the_place_is_logged_once(store, caplog):
    with caplog.at_level("INFO", "bdlf"):
        for cache in ("auto", *PLACES):
            list(Images(store, "cpu", cache).batches(ROWS))
    assert [record.getMessage() for record in caplog.records] == [
        f"images     0.0 MiB {place}" for place in ("on disk", "on the device", "in memory", "on disk")
    ]


def test_a_cpu_starts_no_thread(store):
    before = set(threading.enumerate())
    for cache in PLACES:
        batches = Images(store, "cpu", cache).batches(ROWS)
        next(batches)
        assert set(threading.enumerate()) <= before


class Preparation:
    """Squares numbers, at most one at a time, when it is let; `started` holds those it was asked for."""

    def __init__(self):
        self.started, self.may_end, self.threads = [], threading.Semaphore(0), set()
        self.begun = threading.Condition()

    def __call__(self, number: int) -> int:
        with self.begun:
            self.started.append(number)
            self.threads.add(threading.current_thread())
            self.begun.notify_all()
        assert self.may_end.acquire(timeout=WAIT)
        if number < 0:
            raise ValueError(f"{number} is negative")
        return number**2

    def wait_for(self, count: int) -> None:
        """Until `count` were begun."""
        with self.begun:
            assert self.begun.wait_for(lambda: len(self.started) >= count, timeout=WAIT)

    def require_ended(self) -> None:
        """The thread ends, and is not the one that asks."""
        (thread,) = self.threads
        assert thread is not threading.current_thread()
        thread.join(WAIT)
        assert not thread.is_alive()


def test_one_is_prepared_ahead_and_no_more():
    prepare = Preparation()
    asked = []
    results = images._ahead((asked.append(n) or n for n in range(5)), prepare)
    assert not prepare.started, "nothing before the first is asked for"
    for n in range(5):
        prepare.may_end.release()
        assert next(results) == n**2
        if n < 4:
            prepare.wait_for(n + 2)  # while n is used, the next has begun ...
            assert prepare.started == asked == list(range(n + 2))
    for _ in range(5):
        prepare.may_end.release()
    assert list(results) == []
    assert prepare.started == list(range(5))
    prepare.require_ended()


def test_the_one_after_the_next_waits_until_the_next_is_taken():
    prepare = Preparation()
    for _ in range(9):
        prepare.may_end.release()  # it never has to wait
    results = images._ahead(range(9), prepare)
    assert next(results) == 0
    (thread,) = prepare.threads
    prepare.wait_for(2)
    thread.join(0.05)  # it would have gone on by now, if it went on
    assert prepare.started == [0, 1]
    assert list(results) == [n**2 for n in range(1, 9)]
    prepare.require_ended()


@pytest.mark.parametrize("at", [0, 1, 2])
def test_an_error_comes_in_its_turn_and_ends_the_thread(at):
    prepare = Preparation()
    for _ in range(3):
        prepare.may_end.release()
    numbers = [1, 2, 3]
    numbers[at] = -5
    results = images._ahead(numbers, prepare)
    assert [next(results) for _ in range(at)] == [1, 4][:at]
    with pytest.raises(ValueError, match="-5 is negative"):
        next(results)
    assert list(results) == [] and prepare.started == numbers[: at + 1]
    prepare.require_ended()


def test_an_error_of_what_is_iterated_comes_in_its_turn():
    def numbers():
        yield 3
        raise OSError("no more")

    results = images._ahead(numbers(), lambda number: number + 1)
    assert next(results) == 4
    with pytest.raises(OSError, match="no more"):
        next(results)


@pytest.mark.parametrize("end", ["close", "drop", "collect"])
def test_an_iterator_that_is_left_ends_its_thread(end):
    prepare = Preparation()
    results = images._ahead(range(9), prepare)
    prepare.may_end.release()
    assert next(results) == 0
    prepare.wait_for(2)
    if end == "close":
        results.close()  # does not wait: the second may not end yet
    elif end == "collect":
        cycle = [results]
        cycle.append(cycle)
        del cycle
    del results
    gc.collect()
    prepare.may_end.release(9)
    prepare.require_ended()
    assert prepare.started == [0, 1], "no third was begun"


def test_an_iterator_that_was_never_asked_starts_nothing():
    prepare = Preparation()
    images._ahead(range(9), prepare).close()
    assert not prepare.started


@pytest.mark.gpu
@pytest.mark.parametrize("cache", PLACES)
def test_on_a_gpu_batches_are_the_rows_of_the_store_whatever_is_computed_meanwhile(cache):
    random = np.random.default_rng(0)
    store = random.integers(0, 256, (600, 64, 48, 3), dtype=np.uint8)
    held = Images(store, "cuda", cache)
    rows = [random.integers(600, size=size) for size in (*[64] * 40, 7)]
    work, found = torch.rand(2048, 2048, device="cuda"), []
    for batch in held.batches(iter(rows)):
        assert batch.is_cuda
        for _ in range(10):
            work = (work @ work).softmax(dim=1)  # the device lags behind the host ...
        found.append(batch.long().sum(dim=(1, 2, 3)))  # ... when it reads the batch, whose memory is free by then
        del batch
    for some, sums in zip(rows, found, strict=True):
        assert np.array_equal(sums.cpu(), store[some].sum(axis=(1, 2, 3), dtype=np.int64))
    assert np.array_equal(held.take(rows[0]).cpu(), store[rows[0]])
    batches = held.batches(iter(rows))
    assert np.array_equal(next(batches).cpu(), store[rows[0]])
    batches.close()


@pytest.mark.gpu
def test_on_a_gpu_auto_is_the_device_and_too_much_is_refused():
    assert Images(np.zeros((2, 4, 4, 3), np.uint8), "cuda").cache == "device"
    with pytest.raises(InputError, match=r"data\.cache=device: .* free: use data\.cache=host, disk or auto"):
        choose_cache("device", 2**60, torch.device("cuda"))
