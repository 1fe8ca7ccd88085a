"""Predicted layer: the layer between two neighbours, by regression over the other layers of the stack.

As LESA (arXiv 2502.13794), each kind of matrix on its own: in a basis that all layers share, a map is fitted
that gives layer l from layers l - 1 and l + 1, for every l that has both, and is then asked for the layer
between two adjacent ones. LESA trains a small network for the map. Ours is linear and has a closed form: a
ridge regression on the columns of the matrices, of what the mean of the neighbours misses. With few examples
or outside of the basis it stays near the mean; where the layers tell little about each other, least squares
makes the new layer smaller than the mean, so that it does less.

A basis has at most 512 directions. For matrices of 4,096 x 14,336 in 32 layers the fit takes about 6 TFLOP
and 1.2 GB, reads the matrices of that name twice, and keeps 10 MB. It is made once for each name, in whatever
order tensors are asked for. Vectors (gains and biases) are the mean. The numbers come from matrix
products, so another machine or another number of threads may round them otherwise.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tli.errors import Problem
from tli.initializers.combine import Layout, Read, mean

if TYPE_CHECKING:
    from torch import Tensor

_DIRECTIONS = 512  # of the basis
_SAMPLED = 2048  # columns of each layer that the basis is found from
_RIDGE = 0.3  # of the mean square of what the map reads: least error on left-out layers of the built-in base
_LEAST = 3  # layers that make one example


@dataclass(frozen=True)
class _Fit:
    """What was learned of one kind of matrix: `basis` (m, r), None for all directions; `map` (r, 2 r)."""

    basis: Tensor | None
    map: Tensor

    def correction(self, below: Tensor, above: Tensor) -> Tensor:
        """What the mean of two matrices of shape (m, n) misses, of the same shape."""
        read = _within(self.basis, below), _within(self.basis, above)
        missed = self.map @ _stacked(*read)
        return missed if self.basis is None else self.basis @ missed


class Predicted:
    """Predictions for the layers of one model. `layout` has the shapes of the weights of every old layer."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._fits: dict[tuple[str, tuple[int, ...]], _Fit] = {}
        self._lock = threading.Lock()  # shards may be written side by side; a fit is made once

    def problems(self, sources: set[int]) -> list[Problem]:
        """Whether there are examples for every matrix of the layers that new ones are made from."""
        for source in sorted(sources):
            for name, shape in self._layout[source].items():
                if len(shape) > 1 and (count := len(self._alike(name, shape))) < _LEAST:
                    got = f"predicted, where {count} of {len(self._layout)} layers hold {name} in its shape"
                    expected = f"at least {_LEAST}: one, and the two around it"
                    return [Problem("injection.init", got, expected, "mean")]
        return []

    def __call__(self, pair: tuple[int, int], name: str, read: Read) -> Tensor:
        """A tensor of the layer between two others."""
        between = mean(pair, name, read)
        if between.dim() < 2:
            return between
        fit = self._fit(name, tuple(between.shape), read)
        missed = fit.correction(*(_matrix(read(layer, name)) for layer in pair))
        missed = missed if _wide(between) else missed.T
        return between + missed.reshape(between.shape).to(between)

    def _alike(self, name: str, shape: tuple[int, ...]) -> list[int]:
        return [layer for layer, shapes in enumerate(self._layout) if shapes.get(name) == shape]

    def _fit(self, name: str, shape: tuple[int, ...], read: Read) -> _Fit:
        with self._lock:
            key = name, shape
            if key not in self._fits:
                layers = self._alike(name, shape)
                basis = _basis(name, layers, read)
                self._fits[key] = _Fit(basis, _map(basis, name, layers, read))
            return self._fits[key]


def _wide(tensor: Tensor) -> bool:
    return tensor.shape[:-1].numel() <= tensor.shape[-1]


def _matrix(tensor: Tensor) -> Tensor:
    """With the shorter side first, as float32 in fresh memory of the CPU: the same in, the same out."""
    import torch

    matrix = tensor.reshape(-1, tensor.shape[-1])
    matrix = matrix if _wide(tensor) else matrix.T
    return matrix.to(device="cpu", dtype=torch.float32, copy=True).contiguous()


def _basis(name: str, layers: list[int], read: Read) -> Tensor | None:
    """The directions in which the matrices of all layers together are largest: eigenvectors of the sum of
    W W^T over the layers, from evenly spaced columns of each.
    """
    import torch

    total: Tensor | None = None
    for layer in layers:
        matrix = _matrix(read(layer, name))
        if len(matrix) <= _DIRECTIONS:
            return None
        sample = matrix[:, :: -(-matrix.shape[1] // _SAMPLED)]
        total = sample @ sample.T if total is None else total.addmm_(sample, sample.T)
    assert total is not None, "there are layers to learn from"
    vectors: Tensor = torch.linalg.eigh(total).eigenvectors
    return vectors[:, -_DIRECTIONS:].contiguous()


def _map(basis: Tensor | None, name: str, layers: list[int], read: Read) -> Tensor:
    """The ridge regression: from the coefficients of two neighbours to what their mean misses."""
    import torch

    squares: Tensor | float = 0.0
    products: Tensor | float = 0.0
    for below, middle, above in _triples(basis, name, layers, read):
        given = _stacked(below, above)
        missed = middle - (below + above) / 2
        squares = squares + (given @ given.T).double()
        products = products + (missed @ given.T).double()
    assert isinstance(squares, torch.Tensor)
    assert isinstance(products, torch.Tensor)
    ridge = _RIDGE * squares.diagonal().mean()
    if not ridge > 0 or not ridge.isfinite():  # nothing but zeros, or numbers that are none
        return torch.zeros(products.shape)
    squares.diagonal().add_(ridge)
    solved: Tensor = torch.linalg.solve(squares, products.T)
    return solved.T.float().contiguous()


def _triples(
    basis: Tensor | None, name: str, layers: list[int], read: Read
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Coefficients of each three layers in a row, shape (r, n); three are in memory at a time."""
    row: list[Tensor] = []
    for layer in layers:
        row = [*row[-2:], _within(basis, _matrix(read(layer, name)))]
        if len(row) == _LEAST:
            yield row[0], row[1], row[2]


def _within(basis: Tensor | None, matrix: Tensor) -> Tensor:
    return matrix if basis is None else basis.T @ matrix


def _stacked(below: Tensor, above: Tensor) -> Tensor:
    import torch

    return torch.cat([below, above])
