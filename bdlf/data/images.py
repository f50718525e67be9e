"""Keeps the stored images on the device, in memory or on disk, and brings batches of them to the device."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from bdlf.system.errors import InputError
from bdlf.system.memory import available_memory

log = logging.getLogger("bdlf")

CACHES = ("auto", "device", "host", "disk")
"""The values of `data.cache`."""
_PLACES = {"device": "on the device", "host": "in memory", "disk": "on disk"}
_CHUNK = 256  # images copied at a time

T = TypeVar("T")
Prepared = TypeVar("Prepared")


class Images:
    """The images of `store`, from which batches are taken to `device`.

    `cache` says where all images are kept:

    - "device": in the memory of the device;
    - "host": in the memory of this machine;
    - "disk": in the memory-mapped file of the store;
    - "auto": "device" if the images take at most a third of its free memory, else "host" if they take at most half of
      the available memory, else "disk". On a CPU always "disk", because the operating system keeps files that were
      read in memory.

    The choice is logged. Raises `InputError` for an unknown `cache`, and where the chosen memory has too little room.
    """

    def __init__(self, store: UInt8[np.ndarray, "n h w 3"], device: torch.device | str, cache: str = "auto") -> None:
        self.device = torch.device(device)
        self.cache = choose_cache(cache, store.nbytes, self.device)
        """`device`, `host` or `disk`."""
        log.info("images     %s %s", _size(store.nbytes), _PLACES[self.cache])
        self._store = store
        self._resident: Tensor | None = None
        if self.cache == "device":
            self._resident = torch.empty(store.shape, dtype=torch.uint8, device=self.device)
            for start in range(0, len(store), _CHUNK):  # np.array copies, because torch wants writable memory
                self._resident[start : start + _CHUNK] = torch.from_numpy(np.array(store[start : start + _CHUNK]))
        elif self.cache == "host":
            self._store = np.empty(store.shape, np.uint8)
            for start in range(0, len(store), _CHUNK):
                self._store[start : start + _CHUNK] = store[start : start + _CHUNK]

    def __len__(self) -> int:
        return len(self._store)

    def take(self, rows: Int[np.ndarray, " b"]) -> UInt8[Tensor, "b h w 3"]:
        """A copy of the images `rows` on the device, in this order. The host does not wait for a GPU.

        Raises `IndexError` for a row outside 0 .. n - 1.
        """
        if rows.size and (rows.min() < 0 or rows.max() >= len(self)):
            raise IndexError(f"rows {rows.min()}..{rows.max()} are asked of a store of {len(self)} images")
        on_gpu = self.device.type == "cuda"
        if self._resident is not None:
            index = torch.from_numpy(rows.astype(np.int64))
            index = index.pin_memory() if on_gpu else index
            return self._resident.index_select(0, index.to(self.device, non_blocking=True))
        images = torch.empty((len(rows), *self._store.shape[1:]), dtype=torch.uint8, pin_memory=on_gpu)
        np.take(self._store, rows, axis=0, out=images.numpy(), mode="clip")  # mode="raise" would copy through a buffer
        return images.to(self.device, non_blocking=True)  # torch reuses pinned memory only after this copy has ended

    def batches(self, rows: Iterable[np.ndarray]) -> Iterator[UInt8[Tensor, "b h w 3"]]:
        """Yields `take(some)` for each array `some` of `rows`, in order.

        If a GPU takes its images from the host, a thread gathers the next batch and copies it to the GPU while the GPU
        computes on the current one. The thread ends when the iterator is closed or dropped. An error of `take` is
        raised when its batch is due.
        """
        if self.device.type != "cuda" or self.cache == "device":
            yield from map(self.take, rows)
            return
        copying = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]

        def prepare(some: np.ndarray) -> tuple[Tensor, torch.cuda.Event]:
            with torch.cuda.stream(copying):
                return self.take(some), copying.record_event()

        with closing(_ahead(rows, prepare)) as prepared:
            for images, copied in prepared:
                computing = torch.cuda.current_stream(self.device)
                computing.wait_event(copied)
                images.record_stream(computing)  # else a later copy could reuse this memory while it is still read
                yield images


def choose_cache(cache: str, size: int, device: torch.device) -> str:
    """`device`, `host` or `disk`: where `size` bytes of images are kept under `data.cache=<cache>`; see `Images`.

    Raises `InputError` for an unknown `cache`, and where the chosen memory has too little room.
    """
    check_cache(cache)
    if cache == "auto":
        if device.type != "cuda":
            return "disk"
        if size <= _free(device) / 3:
            return "device"
        return "host" if size <= available_memory() / 2 else "disk"
    if cache == "device" and size > (free := _free(device)):
        raise InputError(
            f"data.cache=device: the images take {_size(size)}, {device} has {_size(free)} free: use data.cache=host, "
            "disk or auto"
        )
    if cache == "host" and size > (free := available_memory()):
        raise InputError(
            f"data.cache=host: the images take {_size(size)}, this machine has {_size(free)} available: use "
            "data.cache=disk or auto"
        )
    return cache


def check_cache(cache: str) -> None:
    """Raise `InputError` for a value that `data.cache` cannot have."""
    if cache not in CACHES:
        raise InputError(f"data.cache='{cache}' is not known; known: {', '.join(CACHES)}")


def _free(device: torch.device) -> int:
    """Free memory of the device, in bytes."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else available_memory()


def _size(size: int) -> str:
    return f"{size / 2**30:,.1f} GiB" if size >= 2**30 else f"{size / 2**20:,.1f} MiB"


def _ahead(items: Iterable[T], prepare: Callable[[T], Prepared]) -> Generator[Prepared, None, None]:
    """Yields `prepare(item)` for each item, in order. A thread prepares one item ahead while the caller uses the last.

    An error of `items` or `prepare` is raised when the result is due. When the iterator is closed, the thread finishes
    the item that it is working on and ends; the caller does not wait for it.
    """
    remaining = iter(items)

    def following() -> tuple[Prepared] | None:
        for item in remaining:
            return (prepare(item),)
        return None

    thread = ThreadPoolExecutor(1, thread_name_prefix="images")
    try:
        coming = thread.submit(following)
        while (found := coming.result()) is not None:
            coming = thread.submit(following)
            yield found[0]
    finally:
        thread.shutdown(wait=False, cancel_futures=True)
