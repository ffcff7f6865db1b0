"""The processes of a run: how many there are, which one this is, and what they tell each other."""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from onestage.errors import LostRankError, OnestageError, UsageError
from onestage.training.devices.launch import placed

T = TypeVar("T")
# The longest that one process may let the others wait: rank 0 judges alone. A process that dies is noticed at once.
PATIENCE = timedelta(minutes=30)
# Gradients are summed in pieces of about so many numbers: few messages, little memory besides.
PIECE = 4_000_000
_ELSEWHERE = "told_by_the_first_process"


class Ranks:
    """The processes that train one run together; `Ranks()` is one process alone, for which everything here is free.

    `rank` counts from 0 over all machines, `local` over those of this machine. Every method but `close` must be
    called by all processes in the same order. Raises LostRankError where another process has gone.
    """

    def __init__(self, rank: int = 0, count: int = 1, *, local: int = 0, machines: int = 1, own: bool = True) -> None:
        self.rank, self.count, self.local, self.machines = rank, count, local, machines
        self._own = own

    def __repr__(self) -> str:
        return f"Ranks({self.rank}, {self.count})"

    @classmethod
    def join(cls, device: str = "cpu") -> Ranks:
        """Meet the processes that torchrun or srun started; one process alone where neither did.

        Where torch.distributed has been set up already, by whoever calls this, its processes are taken as they are.

        `device` is the kind that will be computed on: tensors there are exchanged by nccl on CUDA, by gloo else.
        Raises UsageError where the launcher's settings do not add up.
        """
        place, environment = placed(), _environment()
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size(), local=0 if place is None else place.local, own=False)
        if place is None or environment is None:
            return cls()
        count, rank, here = place.count, place.rank, place.here
        if count % here:
            raise UsageError(
                f"{count} processes, {here} of them on this machine: expected as many on every machine",
                hint="torchrun --nproc-per-node, or sbatch --ntasks-per-node",
            )
        if device.startswith("cuda"):
            if here > torch.cuda.device_count():
                raise UsageError(
                    f"{here} processes on this machine, but {torch.cuda.device_count()} CUDA devices",
                    hint="one process per device: torchrun --nproc-per-node=gpu, or device=cpu",
                )
            torch.cuda.set_device(place.local)
        ranks = cls(rank, count, local=place.local, machines=count // here)
        os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = environment.main_address, str(environment.main_port)
        backend = "cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo"
        with _lost(rank):
            dist.init_process_group(backend, store=_store(rank, count), rank=rank, world_size=count, timeout=PATIENCE)
        return ranks

    @property
    def is_first(self) -> bool:
        """Whether this process writes the run folder and speaks on the terminal."""
        return self.rank == 0

    @property
    def alone(self) -> bool:
        """Whether there is no other process."""
        return self.count == 1

    def device(self, kind: str) -> str:
        """The device of this process: on CUDA each process of a machine has its own."""
        return f"cuda:{self.local}" if kind == "cuda" and not self.alone else kind

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, a new tensor; the same bits everywhere. `values` must be alike in shape."""
        if self.alone:
            return values
        total = values.detach().clone(memory_format=torch.contiguous_format)
        with _lost(self.rank):
            dist.all_reduce(total)
        return total

    def sums(self, values: Sequence[float]) -> list[float]:
        """The sums of plain numbers over all processes, in float64."""
        return list(values) if self.alone else self.sum(torch.tensor(values, dtype=torch.float64)).tolist()

    def any(self, flag: bool) -> bool:
        """Whether any process says so."""
        return bool(self.sums([float(flag)])[0])

    def largest(self, value: float) -> float:
        """The largest of what the processes say."""
        if self.alone:
            return value
        said = torch.tensor([float(value)], dtype=torch.float64)
        with _lost(self.rank):
            dist.all_reduce(said, dist.ReduceOp.MAX)
        return float(said)

    def sum_in_place(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by its sum over all processes: gradients, in pieces of about `PIECE` numbers."""
        if self.alone:
            return
        for group in _pieces(tensors):
            flat = torch.cat([tensor.reshape(-1) for tensor in group])
            with _lost(self.rank):
                dist.all_reduce(flat)
            for tensor, part in zip(group, torch.split(flat, [tensor.numel() for tensor in group]), strict=True):
                tensor.copy_(part.view(tensor.shape))

    def gather(self, thing: T) -> list[T]:
        """What each process gave, by rank, known to all."""
        if self.alone:
            return [thing]
        things: list[Any] = [None] * self.count
        with _lost(self.rank):
            dist.all_gather_object(things, thing)
        return things

    def gather_first(self, thing: T) -> list[T]:
        """What each process gave, by rank, known to the first alone; the others get an empty list."""
        if self.alone:
            return [thing]
        things: list[Any] | None = [None] * self.count if self.is_first else None
        with _lost(self.rank):
            dist.gather_object(thing, things, 0)
        return things or []

    def broadcast(self, thing: T) -> T:
        """What the first process gave."""
        if self.alone:
            return thing
        things = [thing]
        with _lost(self.rank):
            dist.broadcast_object_list(things, 0)
        return things[0]

    def first(self, work: Callable[[], T]) -> T:
        """What `work` gives the first process, which does it alone while the others wait; its failure is all's."""
        if self.alone:
            return work()
        result: T | None = None
        failure: Exception | None = None
        if self.is_first:
            try:
                result = work()
            except Exception as error:
                failure = error
        said, elsewhere = self.broadcast((result, failure))
        if self.is_first:
            said, elsewhere = result, failure
        if elsewhere is not None:
            raise _of_another(elsewhere) if not self.is_first else elsewhere
        return said  # type: ignore[return-value]

    def together(self, work: Callable[[], T]) -> T:
        """What `work` gives this process; where it fails in any, all fail: with their own failure, or with that."""
        if self.alone:
            return work()
        result: T | None = None
        failure: Exception | None = None
        try:
            result = work()
        except LostRankError:
            raise
        except Exception as error:
            failure = error
        failures = self.gather(failure)
        if failure is not None:
            raise failure
        for rank, elsewhere in enumerate(failures):
            if elsewhere is not None:
                if isinstance(elsewhere, OnestageError):
                    elsewhere.message = f"rank {rank}: {elsewhere.message}"
                raise _of_another(elsewhere) if rank == 0 else elsewhere
        return result  # type: ignore[return-value]

    def share(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by the first process's: weights and buffers that must be the same everywhere."""
        if self.alone:
            return
        for tensor in tensors:
            with _lost(self.rank), torch.no_grad():
                given = tensor.detach().contiguous()
                dist.broadcast(given, 0)
                tensor.copy_(given)

    def close(self) -> None:
        """Part from the others; nothing more can be asked of them.

        What holds on to the connections is let go first: torch 2.13 otherwise aborts some processes at their end,
        after all work was done (pytorch issue 190489).
        """
        if self._own and not self.alone and dist.is_initialized():
            gc.collect()
            dist.destroy_process_group()
            gc.collect()
        self.count = 1


def _environment() -> ClusterEnvironment | None:
    """The launcher that started this process, as lightning-fabric knows it."""
    place = placed()
    if place is None or place.count == 1:
        return None
    if place.launcher == "torchrun":
        return TorchElasticEnvironment()
    os.environ.setdefault("SLURM_NTASKS_PER_NODE", str(place.here))  # srun sets it only where it was asked for
    return SLURMEnvironment(auto_requeue=False)


def _store(rank: int, count: int) -> Store:
    """Where the processes tell each other their addresses, fresh after every restart.

    torchrun keeps one store through all restarts (torch 2.13), in which the addresses of the dead are found.
    """
    store, _, _ = next(iter(rendezvous("env://", rank, count, timeout=PATIENCE)))
    return PrefixStore(f"onestage/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}/{count}", store)


def _pieces(tensors: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """The tensors in groups of one type and about PIECE numbers, in their order."""
    group: list[Tensor] = []
    for tensor in tensors:
        full = sum(one.numel() for one in group) + tensor.numel() > PIECE
        if group and (full or tensor.dtype != group[0].dtype):
            yield group
            group = []
        group.append(tensor)
    if group:
        yield group


def tensors_of(module: nn.Module) -> list[Tensor]:
    """Every parameter and buffer, which must be the same in all processes."""
    return [*module.parameters(), *module.buffers()]


@contextlib.contextmanager
def joined(device: str = "cpu") -> Iterator[Ranks]:
    """`Ranks.join`, and parted again when the block ends."""
    ranks = Ranks.join(device)
    try:
        yield ranks
    finally:
        ranks.close()


def told_elsewhere(error: BaseException) -> bool:
    """Whether a failure is that of the first process, which tells it."""
    return bool(getattr(error, _ELSEWHERE, False))


def _of_another(error: Exception) -> Exception:
    setattr(error, _ELSEWHERE, True)
    return error


@contextlib.contextmanager
def _lost(rank: int) -> Iterator[None]:
    """A failed exchange in words."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).strip().splitlines()
        raise LostRankError(
            f"a process of the run was lost: rank {rank} could not reach the others",
            problems=[reason[0][:200] if reason else type(error).__name__],
            hint="look above for the process that failed first; go on with onestage train --resume RUN, "
            "or have torchrun do so: --max-restarts 3",
        ) from error
