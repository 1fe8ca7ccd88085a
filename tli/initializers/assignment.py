"""The linear assignment problem: exact for small ones, by auction for large ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

_STEPS = (
    1.0,
    1 / 4,
    1 / 16,
    1 / 64,
)  # of the deviation of all likenesses: how much a bid goes beyond the last
_FINEST = 1e-6  # of the largest likeness: below, float32 would not see a bid rise
_ROWS = 1024  # that bid at once: bounds the memory of a round to so many rows of the table


def exact(likeness: np.ndarray) -> np.ndarray:
    """The best assignment, by shortest augmenting paths (Jonker and Volgenant 1987): n^3, for some hundreds.

    `likeness` has shape (n, n) and is finite. Returns the column of each row, shape (n,).
    """
    import numpy as np

    size = len(likeness)
    cost = -likeness.astype(np.float64)
    # Column `size` is where each path starts; a column's owner is the row that has it.
    owner = np.full(size + 1, -1)
    of_rows, of_columns = np.zeros(size), np.zeros(size + 1)
    for row in range(size):
        owner[size], column = row, size
        reached = np.zeros(size + 1, dtype=bool)
        nearest, came_from = np.full(size, np.inf), np.full(size, size)
        while owner[column] >= 0:
            reached[column] = True
            at = owner[column]
            free = ~reached[:size]
            further = cost[at] - of_rows[at] - of_columns[:size]
            shorter = free & (further < nearest)
            nearest[shorter], came_from[shorter] = further[shorter], column
            column = int(np.where(free, nearest, np.inf).argmin())
            length = nearest[column]
            of_rows[owner[reached]] += length
            of_columns[reached] -= length
            nearest[free] -= length
        while column != size:
            owner[column], column = owner[came_from[column]], came_from[column]
    columns = np.empty(size, dtype=np.int64)
    columns[owner[:size]] = np.arange(size)
    return columns


def near(likeness: Tensor) -> Tensor:
    """An assignment whose sum is within n / 64 deviations of the best, for tens of thousands.

    By auction (Bertsekas 1988): every row without a column bids for the one that is worth most to it at the
    present prices, and the highest bid takes it; from coarse to fine steps, keeping the prices. `likeness` is
    a float32 tensor of shape (n, n) on the CPU; it is only read, and a round takes the memory of 1,024 rows
    of it twice. Returns the column of each row, shape (n,); 0, 1, ... where the likenesses are all equal, or
    one is not finite.
    """
    import torch

    size = len(likeness)
    order = torch.arange(size)
    low, high = likeness.aminmax()
    if not (low.isfinite() and high.isfinite() and low < high):
        return order
    finest = _FINEST * max(abs(low.item()), abs(high.item()))
    deviation = likeness.std().item()
    prices = torch.zeros(size)
    for part in _STEPS:
        order = _auction(likeness, prices, max(part * deviation, finest))
    return order


def _auction(likeness: Tensor, prices: Tensor, step: float) -> Tensor:
    """One auction until every row has a column; raises `prices`, shape (n,), in place."""
    import torch

    size = len(likeness)
    owner = torch.full((size,), -1)
    waiting = torch.arange(size)
    while len(waiting):
        bidders, waiting = waiting[:_ROWS], waiting[_ROWS:]
        worth = likeness[bidders] - prices
        most, column = worth.max(1)
        worth.scatter_(1, column[:, None], -torch.inf)
        bids = prices[column] + (most - worth.max(1).values) + step
        # The highest bid for each column first; of equal ones the one that waited longest.
        by_bid = torch.argsort(bids, descending=True, stable=True)
        by_bid = by_bid[torch.argsort(column[by_bid], stable=True)]
        sold = column[by_bid]
        first = torch.ones(len(sold), dtype=torch.bool)
        first[1:] = sold[1:] != sold[:-1]
        winners, losers = by_bid[first], by_bid[~first]
        taken = column[winners]
        outbid = owner[taken]
        owner[taken], prices[taken] = bidders[winners], bids[winners]
        waiting = torch.cat([waiting, bidders[losers], outbid[outbid >= 0]])
    return torch.argsort(owner)
