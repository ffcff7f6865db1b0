"""Processes that make batches and hand the images over in shared memory; needs torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from onestage.data.batches import Maker, Task
from onestage.errors import OnestageError, UsageError

if TYPE_CHECKING:
    from torch.utils.data import DataLoader


@dataclass(frozen=True)
class Failure:
    """A failure raised on purpose in a worker process, so that it arrives as it was and not as a stack of traces."""

    kind: type[OnestageError]
    message: str
    problems: tuple[str, ...]
    hint: str | None

    def error(self) -> OnestageError:
        """The failure, to be raised again where the batch was asked for."""
        return self.kind(self.message, problems=self.problems, hint=self.hint)


class _InProcess:
    """What runs in a worker process: a task in, its images as a tensor in shared memory and the rest out."""

    def __init__(self, maker: Maker) -> None:
        self.maker = maker

    def __getitem__(self, task: Task) -> Any:
        import torch

        width, height = task.size
        images = torch.empty((len(task.indices), height, width, 3), dtype=torch.uint8)
        try:
            parts = self.maker.batch(task, images.numpy())
        except OnestageError as error:
            return Failure(type(error), error.message, error.problems, error.hint)
        return images, parts._replace(images=np.empty(0, np.uint8))


def worker_processes(maker: Maker, tasks: list[Task], workers: int) -> DataLoader[Any]:
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
