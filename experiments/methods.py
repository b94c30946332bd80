"""The methods that the experiments choose from by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from bism_jax import DSM, SSM, BiSM, Optimizers, ScoreMatching, Unrolled, checks
from bism_jax.methods import paper_adam
from bism_jax.objectives import Objective


@dataclass(frozen=True)
class MethodConfig:
    """What to train by.

    Attributes:
        name: bidsm, bissm (bi-level), dsm or ssm (on the exact free energy).
        num_steps: N, the differentiated lower-level steps; 0 differentiates through none.
        lower_steps: K, the lower-level steps before them.
        keep_unrolled: keep phi^N instead of throwing the N steps away.
        noise: fresh visible noise at each lower-level step, or the higher level's for all.
        latents: of bissm, whether h moves with v in the Jacobian of the score; "fixed" is the paper's form.
        noise_std: sigma of denoising score matching, in units of the data.
        learning_rate: of both levels' Adam.
    """

    name: Literal["bidsm", "bissm", "dsm", "ssm"] = "bidsm"
    num_steps: int = 5
    lower_steps: int = 5
    keep_unrolled: bool = False
    noise: Literal["fresh", "shared"] = "fresh"
    latents: Literal["moving", "fixed"] = "moving"
    noise_std: float = 0.05
    learning_rate: float = 1e-3

    def __post_init__(self) -> None:
        checks.non_negative_int("num_steps", self.num_steps)
        checks.non_negative_int("lower_steps", self.lower_steps)
        checks.positive("noise_std", self.noise_std)
        checks.positive("learning_rate", self.learning_rate)

    @property
    def is_bilevel(self) -> bool:
        """Whether the method fits a posterior."""
        return self.name.startswith("bi")

    def make(self) -> Any:
        """The method."""
        objective: Objective = SSM(latents=self.latents)
        if self.name.endswith("dsm"):
            objective = DSM(self.noise_std)
        if not self.is_bilevel:
            return ScoreMatching(objective, paper_adam(self.learning_rate))
        return BiSM(
            objective,
            lower_steps=self.lower_steps,
            hypergradient=Unrolled(self.num_steps),
            optimizers=Optimizers(paper_adam(self.learning_rate), paper_adam(self.learning_rate)),
            noise=self.noise,
            keep_unrolled=self.keep_unrolled,
        )
