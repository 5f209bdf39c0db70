"""Training by several processes: each takes its part of every batch, and the result is that of one process.

Losses compare all vectors of a batch with one another, so vectors are gathered before the loss, and batch normalisation
takes the statistics of the whole batch. Gradients are brought together by PyTorch's ``DistributedDataParallel``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from siamese2d_engine import distributed


def in_parallel(network: nn.Module) -> nn.Module:
    """A network that takes and returns whole batches, of which each process computes a part.

    With one process it is `network` itself. The weights stay those of `network`, whose batch normalisation layers are
    replaced by `SharedBatchNorm`. All processes must call it with the same batch, and compute the same loss from what
    it returns.
    """
    if distributed.world() == 1:
        return network
    _share_statistics(network)
    return _Parallel(network)


class _Parallel(nn.Module):
    def __init__(self, network: nn.Module):
        super().__init__()
        # The statistics are the same in all processes already.
        self.part = DistributedDataParallel(network, broadcast_buffers=False)

    def forward(self, batch: Tensor) -> Tensor | tuple[Tensor, ...]:
        vectors = self.part(distributed.share(batch))
        if isinstance(vectors, tuple):
            return tuple(_Gathered.apply(part, len(batch)) for part in vectors)
        return _Gathered.apply(vectors, len(batch))


class _Gathered(torch.autograd.Function):
    """Rows of all processes from the rows of each."""

    @staticmethod
    def forward(context, mine: Tensor, rows: int) -> Tensor:
        return distributed.joined(mine, rows)

    @staticmethod
    def backward(context, gradient: Tensor) -> tuple[Tensor, None]:
        # DistributedDataParallel takes the mean over the processes, but the loss's gradient is the sum of the parts.
        return distributed.share(gradient) * distributed.world(), None


class SharedBatchNorm(_BatchNorm):
    """Batch normalisation with the statistics of all processes' parts of a batch, on processors and GPUs."""

    def _check_input_dim(self, batch: Tensor) -> None:
        """Any number of dimensions, as that of the layer replaced."""

    def forward(self, batch: Tensor) -> Tensor:
        if not self.training:
            return super().forward(batch)
        dimensions = [0, *range(2, batch.dim())]
        shape = [1, -1] + [1] * (batch.dim() - 2)
        count = all_reduce(batch.new_tensor(batch.numel() / batch.shape[1]))
        mean = all_reduce(batch.sum(dimensions)) / count
        centred = batch - mean.view(shape)
        variance = all_reduce(centred.square().sum(dimensions)) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        result = centred * (variance + self.eps).rsqrt().view(shape)
        return result * self.weight.view(shape) + self.bias.view(shape) if self.affine else result


def _share_statistics(network: nn.Module) -> None:
    """Replace the batch normalisation layers inside a network; weights and statistics are kept."""
    for name, layer in network.named_children():
        if isinstance(layer, _BatchNorm) and not isinstance(layer, SharedBatchNorm):
            shared = SharedBatchNorm(layer.num_features, layer.eps, layer.momentum, layer.affine)
            shared.__dict__.update(layer.__dict__)
            setattr(network, name, shared)
        else:
            _share_statistics(layer)
