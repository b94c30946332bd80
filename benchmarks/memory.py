"""Temporary memory of a compiled hypergradient: a two-layer tanh network fitted to 1,024 points by Adam."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
import tyro

from bism_jax import checks
from bism_jax.hypergradient import LowerProblem, Strategy, Truncated, Unrolled
from experiments.command_line import run_command


@dataclass(frozen=True)
class Options:
    """What to compile.

    Attributes:
        num_steps: N.
    """

    num_steps: int = 64

    def __post_init__(self) -> None:
        checks.positive_int("num_steps", self.num_steps)


def setting() -> tuple[Callable[..., Any], dict[str, jax.Array]]:
    """The lower-level loss, with theta a weight decay, and phi."""
    points = jax.random.normal(jax.random.key(0), (1024, 64))
    targets = jnp.sin(points)
    phi = {
        "w1": 0.1 * jax.random.normal(jax.random.key(1), (64, 128)),
        "b1": jnp.zeros(128),
        "w2": 0.1 * jax.random.normal(jax.random.key(2), (128, 64)),
        "b2": jnp.zeros(64),
    }

    def loss(phi: dict[str, jax.Array], theta: jax.Array, _: None) -> jax.Array:
        prediction = jnp.tanh(points @ phi["w1"] + phi["b1"]) @ phi["w2"] + phi["b2"]
        decay = sum(jnp.sum(leaf**2) for leaf in phi.values())
        return jnp.mean((prediction - targets) ** 2) + jnp.exp(theta) * decay

    return loss, phi


def plain_scan(num_steps: int) -> Callable[..., Any]:
    """Reverse mode through `scan` as one would write it without the library."""
    loss, _ = setting()
    optimizer = optax.adam(1e-3)

    def solve(phi: Any, theta: jax.Array) -> Any:
        def step(carry: Any, _: None) -> tuple[Any, None]:
            phi, state = carry
            updates, state = optimizer.update(jax.grad(loss)(phi, theta, None), state, phi)
            return (optax.apply_updates(phi, updates), state), None

        return jax.lax.scan(step, (phi, optimizer.init(phi)), None, length=num_steps)[0][0]

    return solve


def by_strategy(strategy: Strategy) -> Callable[..., Any]:
    """The same through a strategy."""
    loss, _ = setting()
    problem = LowerProblem(loss, optax.adam(1e-3))
    return lambda phi, theta: strategy.solve(problem, phi, theta).phi


def temporary_bytes(solve: Callable[..., Any]) -> int:
    """What the compiler plans for the gradient in theta of a function of phi^N."""
    _, phi = setting()

    def value(theta: jax.Array) -> jax.Array:
        return jnp.asarray(sum(jnp.sum(leaf) for leaf in jax.tree.leaves(solve(phi, theta))))

    compiled = jax.jit(jax.grad(value)).lower(jnp.float32(-5.0)).compile()
    analysis: Any = compiled.memory_analysis()
    return analysis.temp_size_in_bytes


def main(options: Options) -> None:
    """Prints a Markdown table."""
    n = options.num_steps
    strategies: tuple[Strategy, ...] = (
        Unrolled(n, mixed_mode=False),
        Unrolled(n, segment="sqrt", mixed_mode=False),
        Unrolled(n),
        Unrolled(n, segment="sqrt"),
        Truncated(n, last=max(1, n // 8)),
    )
    solvers = {"plain `scan`": plain_scan(n)}
    solvers |= {f"`{strategy}`": by_strategy(strategy) for strategy in strategies}
    sizes = {name: temporary_bytes(solve) for name, solve in solvers.items()}
    first = next(iter(sizes.values()))
    print("| strategy | MiB | less than the first by |\n|---|---|---|")
    for name, size in sizes.items():
        print(f"| {name} | {size / 2**20:.2f} | {first / size:.1f} |")


if __name__ == "__main__":
    run_command(lambda: main(tyro.cli(Options, description=__doc__)))
