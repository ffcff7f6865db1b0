"""From a dataset to batches; order and augmentation are pure functions of (seed, epoch, image id)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, Any

from onestage.data.augment import Plain, augmentation, for_classes, with_fit
from onestage.data.batches import Maker, Parts, Task
from onestage.data.dataset import Dataset
from onestage.data.images import Fit, Size, native_size
from onestage.data.order import augmentation_seed, epoch_order, generator, turns
from onestage.data.policy import Policy
from onestage.data.workers import Failure, worker_processes
from onestage.errors import DataError, UsageError
from onestage.records import Batch

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

__all__ = ["Loader", "augmentation_seed", "generator"]

GIB = 2**30


class Loader:
    """Batches of a dataset at network size, the same whoever makes them and wherever an epoch is taken up.

    `size` is (width, height) of the network's input, `policy` a name or a policy of `onestage.data.augment`; `fit`
    replaces the policy's own ("squash" or "letterbox"); class names in the policy's `swap` get the dataset's labels.
    `shuffle` draws an order per epoch, else the dataset's order holds. `drop_last` leaves out the last batch when it is
    not full.

    `fit` "native" is for judging alone, unshuffled and with the policy "none": every batch is one image, at `scale`
    times its own pixels, whatever `size` and `batch` say.

    Batches are made ahead by `prefetch` threads (0: when asked for), which need no torch; OpenCV works beside the
    loop, as it lets go of the interpreter. `workers` processes take their place when there are any: they need torch,
    and their images come through shared memory. Call `close` when done, or use the loader as a context, to end them.

    `cache` keeps decoded images in memory, the first of the dataset up to `cache_bytes` in all (each worker process
    keeps its own, within its share).

    With `ranks` processes that train together `batch` is the whole batch, drawn alike by all, and this loader makes
    images `rank::ranks` of each: the shares together are the batches of one loader alone, bit for bit. When shuffled,
    every rank has an image in every batch, so that all make as many steps. In order, as validation goes, a batch too
    short for a rank is left out for that rank: every image lies in exactly one share.

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
        scale: float = 1.0,
        drop_last: bool = False,
        workers: int = 0,
        prefetch: int = 1,
        cache: bool = False,
        cache_bytes: int = 2 * GIB,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        if not len(dataset):
            raise DataError(f"{dataset.root}: split {dataset.split!r} has no images to load")
        if batch < 1 or min(size) < 1 or workers < 0 or prefetch < 0:
            raise UsageError(
                f"loader: expected batch and size of at least 1, workers and prefetch of at least 0, "
                f"got batch={batch}, size={size}, workers={workers}, prefetch={prefetch}"
            )
        if not 0 <= rank < ranks:
            raise UsageError(f"loader: expected a rank from 0 to ranks - 1, got rank={rank}, ranks={ranks}")
        policy = augmentation(policy) if isinstance(policy, str) else policy
        self.scale = scale if fit == "native" else None
        if self.scale is not None:
            if shuffle or not isinstance(policy, Plain):
                raise UsageError("loader: fit='native' is for judging: expected shuffle=False and the policy 'none'")
            batch = 1
        self.dataset = dataset
        self.policy = for_classes(policy if fit is None else with_fit(policy, fit), dataset.classes)
        self.batch, self.seed, self.shuffle, self.drop_last = batch, seed, shuffle, drop_last
        self.size = (int(size[0]), int(size[1]))
        self.rank, self.ranks = rank, ranks
        self.workers, self.prefetch = workers, prefetch
        self._refuse_idle_ranks()
        room = 0 if not cache else cache_bytes // max(1, workers)
        self._maker = Maker(dataset, seed, room)
        self._tasks: list[Task] = []
        self._processes: DataLoader[Any] | None = None

    def __len__(self) -> int:
        """Batches per epoch that this rank makes."""
        return sum(self._share(number) > 0 for number in range(self._batches()))

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def order(self, epoch: int) -> list[int]:
        """The indices of the dataset's images in the order of that epoch, as many as there are images.

        Where sets are mixed by ratio some come several times, others not at all; unshuffled, each comes once.
        """
        return epoch_order(self.dataset, self.seed, epoch) if self.shuffle else list(range(len(self.dataset)))

    def epoch(
        self,
        epoch: int,
        start: int = 0,
        policy: Policy | None = None,
        size_of: Callable[[int], Size] | None = None,
        stop: int | None = None,
    ) -> Iterator[Batch]:
        """The batches of an epoch from number `start` on, up to `stop`; `policy` replaces the loader's own for it.

        `size_of` gives the input size of each batch by its number in the epoch, where it is not the same throughout.
        Which images a batch holds and how they look does not depend on `start`, on `workers`, or on what was asked
        for before. One epoch at a time when there are worker processes.
        """
        if start < 0:
            raise UsageError(f"loader: expected a batch number of at least 0 to start at, got {start}")
        order = self._turned(epoch)
        policy = policy and for_classes(policy, self.dataset.classes)
        tasks = [
            self._task(epoch, number, order, policy, None if size_of is None else size_of(number))
            for number in range(start, min(stop if stop is not None else self._batches(), self._batches()))
            if self._share(number)
        ]
        if not tasks:
            return iter(())
        if self.workers:
            return self._from_processes(tasks)
        return self._from_threads(tasks) if self.prefetch else (self._maker.batch(task).as_batch() for task in tasks)

    def batch_of(self, epoch: int, number: int, policy: Policy | None = None, size: Size | None = None) -> Batch:
        """Batch `number` of an epoch once more, bit for bit as `epoch` gave it with this policy and size.

        It is made here and now, without threads or processes, and does not disturb an epoch under way. Raises
        UsageError where the epoch has no such batch.
        """
        if not 0 <= number < self._batches():
            raise UsageError(f"loader: expected a batch from 0 to {self._batches() - 1}, got {number}")
        policy = policy and for_classes(policy, self.dataset.classes)
        return self._maker.batch(self._task(epoch, number, self._turned(epoch), policy, size)).as_batch()

    def close(self) -> None:
        """Ends the worker processes; a later epoch starts new ones."""
        self._processes = None

    def _batches(self) -> int:
        """Batches per epoch of all ranks together."""
        whole, rest = divmod(len(self.dataset), self.batch)
        return whole + (1 if rest and not self.drop_last else 0)

    def _share(self, number: int) -> int:
        """How many images of a batch this rank makes."""
        if self.scale is not None:
            return int(number % self.ranks == self.rank)
        held = min(self.batch, len(self.dataset) - number * self.batch)
        return len(range(self.rank, held, self.ranks))

    def _turned(self, epoch: int) -> list[tuple[int, int]]:
        """The order of an epoch, each index with how often it has come before."""
        order = self.order(epoch)
        return list(zip(order, turns(order), strict=True))

    def _task(
        self, epoch: int, number: int, order: list[tuple[int, int]], policy: Policy | None, size: Size | None
    ) -> Task:
        whole = order[number * self.batch : (number + 1) * self.batch]
        if self.scale is not None:
            index, turn = whole[0]
            image = self.dataset.images[index]
            return Task(epoch, (index,), self.policy, native_size((image.width, image.height), self.scale), (turn,))
        width, height = size or self.size
        if min(width, height) < 1:
            raise UsageError(f"loader: expected an input size of at least 1x1, got {width}x{height}")
        share = whole[self.rank :: self.ranks]
        indices, before = tuple(index for index, _ in share), tuple(turn for _, turn in share)
        return Task(epoch, indices, policy or self.policy, (int(width), int(height)), before)

    def _refuse_idle_ranks(self) -> None:
        """UsageError where training would give one rank fewer steps than another, which would then wait for ever."""
        if not self.shuffle or not self._batches():
            return
        least = min(self.batch, len(self.dataset) - (self._batches() - 1) * self.batch)
        if least < self.ranks:
            raise UsageError(
                f"loader: a batch of {least} images cannot be shared among {self.ranks} processes",
                hint=f"batch={self.ranks} or more, or fewer processes"
                if self.batch < self.ranks
                else "drop_last=True, or fewer processes",
            )

    def _from_threads(self, tasks: Sequence[Task]) -> Iterator[Batch]:
        waiting = iter(tasks)
        ahead: deque[Future[Parts]] = deque()
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

    def _from_processes(self, tasks: Sequence[Task]) -> Iterator[Batch]:
        self._tasks[:] = tasks  # the sampler of the running processes reads this list anew for each epoch
        if self._processes is None:
            self._processes = worker_processes(self._maker, self._tasks, self.workers)
        try:
            for made in self._processes:
                if isinstance(made, Failure):
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
