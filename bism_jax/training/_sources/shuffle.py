"""The order in which rows are trained on."""

from __future__ import annotations

import numpy as np


class Shuffle:
    """Rows in a new random order each epoch, as a function of the iteration alone; drops the remainder."""

    def __init__(self, num_rows: int, batch_size: int, seed: tuple[int, ...]) -> None:
        self.num_rows, self.batch_size, self.seed = num_rows, batch_size, seed
        self.steps_per_epoch = num_rows // batch_size
        self._epoch, self._order = -1, np.zeros(0, np.int32)

    def indices(self, step: int, num_steps: int) -> np.ndarray:
        """The rows of iterations `step .. step + num_steps - 1`, `[num_steps, B]`."""
        return np.stack(
            [self._batch(*divmod(k, self.steps_per_epoch)) for k in range(step, step + num_steps)]
        )

    def _batch(self, epoch: int, position: int) -> np.ndarray:
        if epoch != self._epoch:
            # Seeded anew for each epoch: a resumed run needs none of the orders before.
            generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([*self.seed, epoch])))
            self._epoch, self._order = epoch, generator.permutation(self.num_rows).astype(np.int32)
        return self._order[position * self.batch_size : (position + 1) * self.batch_size]
