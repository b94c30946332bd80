"""The README's Python runs as it stands, with fewer iterations."""

import functools
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import bism_jax
from bism_jax.data import ImageSplits, LabelledImages

README = Path(__file__).parent.parent / "README.md"


def test_python_of_the_readme(tmp_path, monkeypatch):
    def short_fit(*args, **options):
        return functools.partial(fit)(*args, **{**options, "num_steps": 2})

    def short_plan(*args, **options):
        assert options.keys() == {"memory_budget"}  # whose search compiles many programs
        return plan(*args, strategies=[bism_jax.StopGradient(1)])

    fit, plan = bism_jax.fit, bism_jax.plan
    monkeypatch.setattr(bism_jax, "fit", short_fit)
    monkeypatch.setattr(bism_jax, "plan", short_plan)
    small = LabelledImages(np.random.default_rng(1).uniform(size=(100, 8, 8, 1)).astype(np.float32), None)
    monkeypatch.setattr(bism_jax.data, "load_images", lambda name, data_dir: ImageSplits(small, small, small))
    monkeypatch.chdir(tmp_path)
    data = np.random.default_rng(0).uniform(size=(200, 2)).astype(np.float32)
    names = {"data": data}
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(blocks) == 8
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    assert (tmp_path / "runs" / "mine" / "history.csv").exists()
    gradient = names["hypergradient"](
        jnp.asarray(0.5), jnp.ones(3), jax.random.normal(jax.random.key(0), (64, 3))
    )
    assert np.isfinite(gradient)
    assert gradient != 0


def test_the_two_commands_exist():
    makefile = (README.parent / "Makefile").read_text()
    for target in ("demo", "test"):
        assert f"make {target}" in README.read_text()
        assert f"\n{target}:" in makefile
