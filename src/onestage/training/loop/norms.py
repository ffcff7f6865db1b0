"""Batch norms of a run on many devices: each its own, one over all, or frozen."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm


class SynchronisedNorm(nn.BatchNorm2d):
    """nn.BatchNorm2d whose training statistics are over the images of all processes, on any device.

    Parameters, buffers and their names are nn.BatchNorm2d's; outputs, running statistics and gradients are those of
    one process with the images of all, also where the processes have different numbers of images. All processes must
    go through it the same number of times. The gradient is right where the losses of all processes are parts of one
    sum. In evaluation, and in one process alone, it is nn.BatchNorm2d. torch.nn.SyncBatchNorm does the same on CUDA.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (B, C, H, W), B >= 0, by the mean and variance over all processes."""
        if not self.training or not dist.is_initialized():
            return super().forward(input)
        self._check_input_dim(input)
        count, mean, variance = _moments(input)
        if self.track_running_stats:
            self._remember(count, mean, variance)
        return _Normalise.apply(input, self.weight, self.bias, mean, variance, count, self.eps)  # type: ignore[no-any-return, no-untyped-call]

    def _remember(self, count: float, mean: Tensor, variance: Tensor) -> None:
        """Take the batch into the running statistics, the variance unbiased, as nn.BatchNorm2d does."""
        assert self.running_mean is not None and self.running_var is not None  # noqa: S101, PT018
        assert self.num_batches_tracked is not None  # noqa: S101
        with torch.no_grad():
            self.num_batches_tracked += 1
            share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
            self.running_mean += share * (mean - self.running_mean).to(self.running_mean.dtype)
            unbiased = variance * (count / max(count - 1, 1))
            self.running_var += share * (unbiased - self.running_var).to(self.running_var.dtype)


def batch_norms(module: nn.Module) -> list[_BatchNorm]:
    """The norms within a module that keep running statistics, synchronised ones included."""
    return [found for found in module.modules() if isinstance(found, _BatchNorm)]


def synchronise(module: nn.Module, device: str = "cpu") -> None:
    """Have every nn.BatchNorm2d within `module` use the statistics of all processes; parameters stay the same objects.

    On CUDA by torch.nn.SyncBatchNorm, elsewhere by `SynchronisedNorm`. A norm of a kind of its own (darknet's) takes
    statistics as `SynchronisedNorm` on any device, and keeps its kind in evaluation. State dicts keep their names.
    """
    _replace(module, nn.BatchNorm2d, nn.SyncBatchNorm if device.startswith("cuda") else SynchronisedNorm)
    kinds: dict[type, type] = {}
    for norm in batch_norms(module):
        if isinstance(norm, nn.BatchNorm2d) and not isinstance(norm, SynchronisedNorm):
            norm.__class__ = kinds.setdefault(type(norm), _also_synchronised(type(norm)))


def _also_synchronised(kind: type[nn.BatchNorm2d]) -> type[nn.BatchNorm2d]:
    """`kind`, which computes in evaluation as before, with SynchronisedNorm's forward in training."""
    return type(f"Synchronised{kind.__name__}", (SynchronisedNorm, kind), {"__doc__": kind.__doc__})


def _replace(module: nn.Module, old: type[_BatchNorm], new: type[_BatchNorm]) -> None:
    """Put a norm of the kind `new` in the place of each that is exactly of the kind `old`."""
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if type(child) is old:
                setattr(parent, name, _copy(child, new))


def _copy(norm: _BatchNorm, kind: type[_BatchNorm]) -> _BatchNorm:
    """A norm of another kind with the very parameters and buffers of `norm`."""
    made = kind(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    made._parameters.update(norm._parameters)
    made._buffers.update(norm._buffers)
    made.training = norm.training
    return made


def _moments(images: Tensor) -> tuple[float, Tensor, Tensor]:
    """Values per channel over all processes, their mean and biased variance (C,), by the rule of Chan et al. (1979).

    Each process sends its count, mean and sum of squared deviations, so that nothing cancels.
    """
    with torch.no_grad():
        channels, here = images.shape[1], images.numel() // images.shape[1]
        # float64 takes part in the exchange alone: (2C + 1) numbers
        sent = torch.zeros(2 * channels + 1, dtype=torch.float64, device=images.device)
        if here:
            exact = images if images.dtype == torch.float64 else images.float()
            variance, mean = torch.var_mean(exact, dim=(0, 2, 3), correction=0)
            sent[0], sent[1 : channels + 1], sent[channels + 1 :] = here, mean, variance.double() * here
        got = [torch.empty_like(sent) for _ in range(dist.get_world_size())]
        dist.all_gather(got, sent)
        counts, means, deviations = torch.stack(got).split([1, channels, channels], dim=1)  # type: ignore[no-untyped-call]
        total = counts.sum().clamp(min=1)
        mean = (counts * means).sum(0) / total
        variance = (deviations + counts * (means - mean) ** 2).sum(0) / total
    kept = torch.float64 if images.dtype == torch.float64 else torch.float32
    return float(total), mean.to(kept), variance.to(kept)


class _Normalise(torch.autograd.Function):
    """(x - mean) / sqrt(variance + eps) * weight + bias, where mean and variance depend on every process's x."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        images, weight, bias, mean, variance, count, eps = inputs
        ctx.save_for_backward(images, weight, mean, variance)
        ctx.count, ctx.eps, ctx.affine = count, eps, weight is not None
        if not images.numel():
            return torch.empty_like(images)
        return F.batch_norm(images, mean, variance, weight, bias, False, 0.0, eps)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        """The sums of the gradient, and of the gradient times x normalised, go over all processes."""
        images, weight, mean, variance = ctx.saved_tensors
        given = gradients[0].to(mean.dtype)
        scale = torch.rsqrt(variance + ctx.eps)
        normalised = (images.to(mean.dtype) - mean.view(1, -1, 1, 1)) * scale.view(1, -1, 1, 1)
        sums = torch.stack([given.sum(dim=(0, 2, 3)), (given * normalised).sum(dim=(0, 2, 3))])
        for_weight, for_bias = (sums[1].clone(), sums[0].clone()) if ctx.affine else (None, None)
        dist.all_reduce(sums)
        plain, along = (sums / ctx.count).view(2, 1, -1, 1, 1)
        factor = scale if weight is None else scale * weight
        for_images = ((given - plain - normalised * along) * factor.view(1, -1, 1, 1)).to(images.dtype)
        return for_images, for_weight, for_bias, None, None, None, None
