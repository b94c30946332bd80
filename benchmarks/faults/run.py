"""The run that is killed: a small model with logs, evaluations and checkpoints, and what it leaves."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

import jax
import numpy as np

from bism_jax import DSM, BiSM, FitResult, Unrolled, fit
from bism_jax.models import GRBM, BernoulliPosterior
from bism_jax.training import CSVLog, Evaluate, JSONLLog, Snapshot

NUM_STEPS = 1200
CHECKPOINT_EVERY = 50
LOGS = ("history.csv", "history.jsonl")


def train(folder: Path) -> FitResult:
    """The same call every time; logs and checkpoints in `folder`."""
    data = np.random.default_rng(0).uniform(size=(500, 2)).astype(np.float32)
    return fit(
        GRBM(2),
        BernoulliPosterior(2),
        data,
        method=BiSM(DSM(0.3), hypergradient=Unrolled(1)),
        num_steps=NUM_STEPS,
        batch_size=20,
        ema_decay=0.9,
        callbacks=[
            Evaluate(_norm_of_theta, 25),
            CSVLog(folder / LOGS[0], every=7),
            JSONLLog(folder / LOGS[1], every=10),
        ],
        checkpoint_dir=folder / "checkpoints",
        checkpoint_every=CHECKPOINT_EVERY,
        progress=False,
    )


def fingerprint(result: FitResult, folder: Path) -> dict[str, str]:
    """Checksums of what a run leaves: its parameters and history to the bit, and its logs line for line."""
    leaves = jax.tree.leaves((result.theta, result.phi, result.theta_ema, result.history))
    parameters = b"".join(np.ascontiguousarray(leaf).tobytes() for leaf in leaves)
    found = {"parameters": _checksum(parameters)}
    return found | {name: _checksum((folder / name).read_bytes()) for name in LOGS}


def train_and_report(folder: Path) -> None:
    """Trains, and leaves the fingerprint in the folder."""
    result = train(folder)
    if jax.process_index() == 0:
        lines = [f"{name} {checksum}" for name, checksum in fingerprint(result, folder).items()]
        temporary = folder / "fingerprint.tmp"
        temporary.write_text("\n".join(lines))
        temporary.rename(folder / "fingerprint")


def train_in_silence(folder: Path, errors: Path, user: int | None = None) -> None:
    """`train_and_report` in a process of its own, whose messages go to a file."""
    os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666), 2)
    sys.stderr = os.fdopen(2, "w", buffering=1)
    if user is not None:
        os.setuid(user)
    train_and_report(folder)


def _norm_of_theta(snapshot: Snapshot) -> dict[str, float]:
    return {"norm": float(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(snapshot.theta)))}


def _checksum(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=12).hexdigest()


if __name__ == "__main__":
    from experiments.launch.distributed import initialize_from_environment

    initialize_from_environment()
    train_and_report(Path(sys.argv[1]))
