"""Depthwise convolution whose backward pass is quick on a CPU: the same gradients from faster kernels.

oneDNN's depthwise kernels serve stride 1 and 3x3 weights well, but fall back to slow general code for the input
gradient at stride 2 and for the weight gradient of 5x5 kernels (10 to 30 times the forward time, measured with torch
2.13 in bfloat16). Both are rewritten here as sums of the quick cases; on other devices nothing changes.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DepthwiseConv2d(nn.Conv2d):
    """`nn.Conv2d` with groups = channels and no bias; weights and state dict are the same."""

    def __init__(self, channels: int, kernel: int, stride: int = 1, padding: int = 0) -> None:
        super().__init__(channels, channels, kernel, stride, padding, groups=channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, C, H, W) → (B, C, H', W') as `nn.Conv2d` gives them."""
        stride, padding = self.stride[0], int(self.padding[0])
        training = torch.is_grad_enabled() and (x.requires_grad or self.weight.requires_grad)
        if not training or x.device.type != "cpu" or torch.compiler.is_exporting():
            return F.conv2d(x, self.weight, None, stride, padding, 1, self.groups)
        weight: Tensor = self.weight
        if torch.is_autocast_enabled("cpu"):
            dtype = torch.get_autocast_dtype("cpu")
            x, weight = x.to(dtype), weight.to(dtype)
        result: Tensor = _Depthwise.apply(x, weight, stride, padding)  # type: ignore[no-untyped-call]
        return result


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        with torch.autocast("cpu", enabled=False):
            return F.conv2d(x, weight, None, stride, padding, 1, len(weight))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        (grad,) = grads
        x, weight = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", enabled=False):
            to_x = input_gradient(grad, weight, ctx.stride, ctx.padding, x.shape) if ctx.needs_input_grad[0] else None
            to_w = weight_gradient(grad, x, weight, ctx.stride, ctx.padding) if ctx.needs_input_grad[1] else None
        return to_x, to_w, None, None


def input_gradient(grad: Tensor, weight: Tensor, stride: int, padding: int, shape: torch.Size) -> Tensor:
    """Gradient of the input of `shape` (B, C, H, W) from that of the output; stride 1 or 2.

    At stride 2 every pixel of the input meets only every second weight, so the four classes of even and odd rows and
    columns are four small stride-1 convolutions whose results are woven together.
    """
    if stride == 1:
        kernel = weight.shape[-1]
        return F.conv2d(grad, weight.flip(2, 3), None, 1, kernel - 1 - padding, 1, len(weight))
    out = torch.empty(shape, dtype=grad.dtype, memory_format=torch.channels_last)
    for a in range(2):
        row_first, row_pads = _phase(a, padding, weight.shape[2], shape[2], grad.shape[2])
        for b in range(2):
            column_first, column_pads = _phase(b, padding, weight.shape[3], shape[3], grad.shape[3])
            part = weight[:, :, row_first::2, column_first::2].flip(2, 3)
            target = out[:, :, a::2, b::2]
            if part.numel() == 0 or target.numel() == 0:
                target.zero_()
                continue
            padded = F.pad(grad, (*column_pads, *row_pads))
            target.copy_(F.conv2d(padded, part, None, 1, 0, 1, len(weight)))
    return out


def _phase(parity: int, padding: int, kernel: int, side: int, grad_side: int) -> tuple[int, tuple[int, int]]:
    """For input positions of one parity: the first weight that meets them and the padding of the output gradient."""
    first = (parity + padding) % 2
    taps = len(range(first, kernel, 2))
    count = len(range(parity, side, 2))
    before = taps - 1 - (parity + padding - first) // 2
    return first, (before, count + taps - 1 - before - grad_side)


def weight_gradient(grad: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """Gradient of the weights (C, 1, k, k); for k = 5 put together from four quick 3x3 gradients.

    Maps narrower than the kernel are padded beforehand: on a map of width 1 oneDNN's bfloat16 kernel of stride 2 reads
    beyond the end of its input (torch 2.13), and what lies there becomes the gradient.
    """
    kernel = weight.shape[-1]
    if kernel != 5 and min(x.shape[2:]) >= kernel:
        return _direct(grad, x, weight, stride, padding)
    padded = F.pad(x, (padding,) * 4) if padding else x
    if kernel != 5:
        return _direct(grad, padded, weight, stride, 0)
    out = torch.empty_like(weight)
    corner = weight.new_zeros(len(weight), 1, 3, 3)
    rows, columns = ((side - 1) * stride + 3 for side in grad.shape[2:])
    for a in (0, 2):
        for b in (0, 2):
            window = padded[:, :, a : a + rows, b : b + columns].contiguous(memory_format=torch.channels_last)
            out[:, :, a : a + 3, b : b + 3] = _direct(grad, window, corner, stride, 0)
    return out


def _direct(grad: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """The library's own weight gradient."""
    _, result, _ = torch.ops.aten.convolution_backward(
        grad, x, weight, None, [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], len(weight), [False, True, False]
    )
    return result  # type: ignore[no-any-return]
