"""Interactions as sparse rows: what is known of a user, and what is to be found. Dense only batch by batch."""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array


@dataclass(frozen=True, eq=False)
class Lists:
    """A row for each user (or item): `known` (n, k) is given to a model, `wanted` (n, w) is what it should give."""

    known: csr_array
    wanted: csr_array

    def __len__(self):
        return self.known.shape[0]

    def __getitem__(self, rows) -> "Lists":
        return Lists(self.known[rows], self.wanted[rows])

    @property
    def shape(self) -> tuple[int, int, int]:
        """(n, k, w)."""
        return *self.known.shape, self.wanted.shape[1]


def matrix(x: np.ndarray, values, shape: tuple[int, int]) -> csr_array:
    """float32 CSR (u, i) with a value for each rating (n, 4) of x; entries of value 0 are left out."""
    values = np.broadcast_to(np.asarray(values, np.float32), len(x))
    kept = values != 0
    rows, columns = x[kept, 0].astype(np.int64), x[kept, 1].astype(np.int64)
    found = csr_array((values[kept], (rows, columns)), shape=shape)
    found.sort_indices()
    return found
