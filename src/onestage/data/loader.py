"""From a dataset to batches; order and augmentation are pure functions of (seed, epoch, image id)."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from onestage.data.augment import Picture, Policy, Sample, augmentation, with_fit
from onestage.data.dataset import Dataset
from onestage.data.images import Fit, Pixels, Size, decode
from onestage.errors import DataError, OnestageError, UsageError
from onestage.records import Annotations, Batch, ImageId, ImageTransform

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

GIB = 2**30


def augmentation_seed(seed: int, epoch: int, image_id: ImageId | None) -> int:
    """The number from which the chance of one image in one epoch is drawn; None: the order of the epoch.

    Any two of (seed, epoch, image id) give unrelated numbers, the same on every machine. `1` and `"1"` differ.
    """
    words = f"{seed}\0{epoch}\0{type(image_id).__name__}\0{image_id}"
    return int.from_bytes(hashlib.blake2b(words.encode(), digest_size=8).digest(), "little")


def generator(seed: int) -> np.random.Generator:
    """The generator that belongs to a number of `augmentation_seed` (and to `Batch.seeds`)."""
    return np.random.Generator(np.random.Philox(key=seed))


class Loader:
    """Batches of a dataset at network size, the same whoever makes them and wherever an epoch is taken up.

    `size` is (width, height) of the network's input, `policy` a name or a policy of `onestage.data.augment`; `fit`
    replaces the policy's own ("squash" or "letterbox"). `shuffle` draws an order per epoch, else the dataset's order
    holds. `drop_last` leaves out the last batch when it is not full.

    Batches are made ahead by `prefetch` threads (0: when asked for), which need no torch; OpenCV works beside the
    loop, as it lets go of the interpreter. `workers` processes take their place when there are any: they need torch,
    and their images come through shared memory. Call `close` when done, or use the loader as a context, to end them.

    `cache` keeps decoded images in memory, the first of the dataset up to `cache_bytes` in all (each worker process
    keeps its own, within its share).

    Raises DataError naming the file when an image cannot be read or is not of the size the dataset says: the reader
    has looked at every file, so it must have changed since.
    """

    def __init__(
        self,
        dataset: Dataset,
        size: Size,
        policy: str | Policy = "none",
        *,
        batch: int = 8,
        seed: int = 0,
        shuffle: bool = True,
        fit: Fit | None = None,
        drop_last: bool = False,
        workers: int = 0,
        prefetch: int = 1,
        cache: bool = False,
        cache_bytes: int = 2 * GIB,
    ) -> None:
        if not len(dataset):
            raise DataError(f"{dataset.root}: split {dataset.split!r} has no images to load")
        if batch < 1 or min(size) < 1 or workers < 0 or prefetch < 0:
            raise UsageError(
                f"loader: expected batch and size of at least 1, workers and prefetch of at least 0, "
                f"got batch={batch}, size={size}, workers={workers}, prefetch={prefetch}"
            )
        policy = augmentation(policy) if isinstance(policy, str) else policy
        self.dataset = dataset
        self.policy = policy if fit is None else with_fit(policy, fit)
        self.batch, self.seed, self.shuffle, self.drop_last = batch, seed, shuffle, drop_last
        self.workers, self.prefetch = workers, prefetch
        room = 0 if not cache else cache_bytes // max(1, workers)
        self._maker = _Maker(dataset, (int(size[0]), int(size[1])), seed, room)
        self._tasks: list[_Task] = []
        self._processes: DataLoader[Any] | None = None

    def __len__(self) -> int:
        """Batches per epoch."""
        whole, rest = divmod(len(self.dataset), self.batch)
        return whole + (1 if rest and not self.drop_last else 0)

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def order(self, epoch: int) -> list[int]:
        """The indices of the dataset's images in the order of that epoch."""
        indices = np.arange(len(self.dataset))
        if self.shuffle:
            indices = generator(augmentation_seed(self.seed, epoch, None)).permutation(indices)
        return [int(index) for index in indices]

    def epoch(self, epoch: int, start: int = 0, policy: Policy | None = None) -> Iterator[Batch]:
        """The batches of an epoch from number `start` on; `policy` replaces the loader's own for this epoch.

        Which images a batch holds and how they look does not depend on `start`, on `workers`, or on what was asked
        for before. One epoch at a time when there are worker processes.
        """
        if start < 0:
            raise UsageError(f"loader: expected a batch number of at least 0 to start at, got {start}")
        order = self.order(epoch)
        tasks = [
            _Task(epoch, tuple(order[i * self.batch : (i + 1) * self.batch]), policy or self.policy)
            for i in range(start, len(self))
        ]
        if not tasks:
            return iter(())
        if self.workers:
            return self._from_processes(tasks)
        return self._from_threads(tasks) if self.prefetch else (self._maker.batch(task).as_batch() for task in tasks)

    def close(self) -> None:
        """Ends the worker processes; a later epoch starts new ones."""
        self._processes = None

    def _from_threads(self, tasks: Sequence[_Task]) -> Iterator[Batch]:
        waiting = iter(tasks)
        ahead: deque[Future[_Parts]] = deque()
        pool = ThreadPoolExecutor(self.prefetch, thread_name_prefix="onestage-loader")
        try:
            for task in islice(waiting, self.prefetch + 1):
                ahead.append(pool.submit(self._maker.batch, task))
            while ahead:
                parts = ahead.popleft().result()
                for task in islice(waiting, 1):
                    ahead.append(pool.submit(self._maker.batch, task))
                yield parts.as_batch()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _from_processes(self, tasks: Sequence[_Task]) -> Iterator[Batch]:
        self._tasks[:] = tasks  # the sampler of the running processes reads this list anew for each epoch
        if self._processes is None:
            self._processes = _worker_processes(self._maker, self._tasks, self.workers)
        try:
            for made in self._processes:
                if isinstance(made, _Failure):
                    raise made.error()
                images, rest = made
                yield rest._replace(images=images.numpy()).as_batch()
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            self.close()
            raise DataError(
                f"a loader process ended unexpectedly: {str(error).splitlines()[0]}",
                hint="fewer or no workers (workers=0), or more shared memory (/dev/shm)",
            ) from None


@dataclass(frozen=True)
class _Task:
    """One batch to be made: the epoch, the images by index, and how to augment them."""

    epoch: int
    indices: tuple[int, ...]
    policy: Policy


class _Parts(NamedTuple):
    """A batch on its way: images (B, H, W, 3) and what goes with them."""

    images: NDArray[np.uint8]
    annotations: tuple[Annotations, ...]
    transforms: tuple[ImageTransform, ...]
    ids: tuple[ImageId, ...]
    seeds: tuple[int, ...]

    def as_batch(self) -> Batch:
        return Batch(self.images.transpose(0, 3, 1, 2), *self[1:])


class _Maker:
    """Makes batches from tasks, in whatever thread or process."""

    def __init__(self, dataset: Dataset, size: Size, seed: int, room: int) -> None:
        self.dataset, self.size, self.seed = dataset, size, seed
        bytes_up_to = np.cumsum([3 * image.width * image.height for image in dataset.images])
        self.kept = int(np.searchsorted(bytes_up_to, room, side="right"))  # known beforehand, so no race can exceed it
        self.cache: dict[int, Pixels] = {}

    def batch(self, task: _Task, into: Pixels | None = None) -> _Parts:
        """The batch of a task; its images are written to `into` (B, H, W, 3) when given."""
        width, height = self.size
        images = np.empty((len(task.indices), height, width, 3), np.uint8) if into is None else into
        ids = tuple(self.dataset.images[index].id for index in task.indices)
        seeds = tuple(augmentation_seed(self.seed, task.epoch, image_id) for image_id in ids)
        annotations, transforms = [], []
        for i, (index, seed) in enumerate(zip(task.indices, seeds, strict=True)):
            sample = self.sample(index, seed, task.policy)
            images[i] = sample.image
            annotations.append(sample.annotations)
            transforms.append(sample.transform)
        return _Parts(images, tuple(annotations), tuple(transforms), ids, seeds)

    def sample(self, index: int, seed: int, policy: Policy) -> Sample:
        """One image as its policy and its own chance show it."""
        image, annotations = self.picture(index)
        return policy(image, annotations, generator(seed), self.size, self.any_picture)

    def any_picture(self, rng: np.random.Generator) -> Picture:
        """A picture of the set drawn by `rng`, for policies that mix several."""
        return self.picture(int(rng.integers(len(self.dataset))))

    def picture(self, index: int) -> Picture:
        """An image as read, with its annotations; policies must not write to it."""
        info = self.dataset.images[index]
        image = self.cache.get(index)
        if image is None:
            image = decode(info.path)
            if image.shape[:2] != (info.height, info.width):
                raise DataError(
                    f"{info.path}: expected {info.width}x{info.height} pixels as when the dataset was read, "
                    f"got {image.shape[1]}x{image.shape[0]}",
                    hint="read the dataset again; the file has changed since",
                )
            if index < self.kept:
                self.cache[index] = image
        return image, self.dataset.annotations[info.id]


@dataclass(frozen=True)
class _Failure:
    """A failure raised on purpose in a worker process, so that it arrives as it was and not as a stack of traces."""

    kind: type[OnestageError]
    message: str
    problems: tuple[str, ...]
    hint: str | None

    def error(self) -> OnestageError:
        return self.kind(self.message, problems=self.problems, hint=self.hint)


class _InProcess:
    """What runs in a worker process: a task in, its images as a tensor in shared memory and the rest out."""

    def __init__(self, maker: _Maker) -> None:
        self.maker = maker

    def __getitem__(self, task: _Task) -> Any:
        import torch

        width, height = self.maker.size
        images = torch.empty((len(task.indices), height, width, 3), dtype=torch.uint8)
        try:
            parts = self.maker.batch(task, images.numpy())
        except OnestageError as error:
            return _Failure(type(error), error.message, error.problems, error.hint)
        return images, parts._replace(images=np.empty(0, np.uint8))


def _worker_processes(maker: _Maker, tasks: list[_Task], workers: int) -> DataLoader[Any]:
    """Processes that stay from epoch to epoch and take their work from the list `tasks`."""
    try:
        import torch
        from torch.utils.data import DataLoader
    except ImportError:
        raise UsageError(
            "loader: worker processes need torch, which is not installed",
            hint='workers=0, or pip install "onestage[train]"',
        ) from None
    source: Any = _InProcess(maker)
    own_chance = torch.Generator()  # else every epoch would take a number from torch's global generator
    return DataLoader(
        source, batch_size=None, sampler=tasks, num_workers=workers, collate_fn=_as_it_is,
        worker_init_fn=_one_thread_each, persistent_workers=True, prefetch_factor=2, generator=own_chance,
    )  # fmt: skip


def _as_it_is(made: Any) -> Any:
    return made


def _one_thread_each(_worker: int) -> None:
    cv2.setNumThreads(0)
