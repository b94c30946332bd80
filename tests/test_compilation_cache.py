"""The experiments keep their programs where the environment says."""

import jax
import pytest

from experiments.launch.compilation_cache import enable_compilation_cache

FOLDER, SECONDS = "JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"


@pytest.mark.parametrize(
    ("environment", "folder", "seconds"),
    [
        ({}, "cache/bism_jax", 0.0),
        ({FOLDER: "mine"}, None, 0.0),
        ({FOLDER: "", SECONDS: "2"}, None, None),
        ({SECONDS: "2"}, "cache/bism_jax", None),
    ],
)
def test_the_environment_decides(environment, folder, seconds, monkeypatch, tmp_path):
    for name in (FOLDER, SECONDS):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found = {}
    monkeypatch.setattr(jax.config, "update", found.__setitem__)
    enable_compilation_cache()
    expected = {
        "jax_compilation_cache_dir": folder and str(tmp_path / folder),
        "jax_persistent_cache_min_compile_time_secs": seconds,
    }
    assert found == {name: value for name, value in expected.items() if value is not None}
