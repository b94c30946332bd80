"""Eight simulated devices, and two processes, give what one device gives."""

import functools
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
FAST = ("unrolled", "implicit", "fresh_mdsm", "marginal", "persistent")
SLOW = ("plain", "segments", "truncated", "stop_gradient")
BASELINES = ("ksd", "nce", "vnce", "vages", "persistent_vi", "bidvl")


def start(output, parallel, names, devices=1, distributed=None):
    environment = {
        **os.environ,
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}",
        "JAX_PLATFORMS": "cpu",
    }
    if distributed is not None:
        environment["BISM_JAX_DISTRIBUTED"] = distributed
    arguments = [sys.executable, "-m", "tests.parallel_worker", str(output), str(parallel), ",".join(names)]
    return subprocess.Popen(
        arguments, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(process, output):
    text, _ = process.communicate(timeout=540)
    assert process.returncode == 0, text[-4000:]
    return dict(np.load(output))


@functools.cache
def results(folder, names):
    """What each layout gives; two processes at a time."""
    single = start(folder / "single.npz", None, names)
    spread = start(folder / "jit.npz", "jit", names, devices=8)
    found = {"single": finish(single, folder / "single.npz")}
    mapped = start(folder / "pmap.npz", "pmap", names, devices=8)
    return found | {"jit": finish(spread, folder / "jit.npz"), "pmap": finish(mapped, folder / "pmap.npz")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("parallel")


@pytest.mark.parametrize("parallel", ["jit", "pmap"])
@pytest.mark.parametrize(
    "name", [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW + BASELINES)]
)
def test_eight_devices_equal_one(folder, parallel, name):
    """theta, phi and the history of losses after 50 steps."""
    found = results(folder, next(names for names in (FAST, SLOW, BASELINES) if name in names))
    assert found["single"]["devices"] == 1
    assert found[parallel]["devices"] == 8
    np.testing.assert_allclose(found[parallel][name], found["single"][name], rtol=1e-10, atol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["jit", "pmap"])
def test_two_processes_equal_one(tmp_path, parallel):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    names = ("unrolled", "marginal")
    outputs = [tmp_path / f"{index}.npz" for index in range(2)]
    processes = [
        start(output, parallel, names, devices=2, distributed=f"{address},2,{index}")
        for index, output in enumerate(outputs)
    ]
    single = finish(start(tmp_path / "single.npz", None, names), tmp_path / "single.npz")
    texts = [process.communicate(timeout=540)[0] for process in processes]
    assert all(process.returncode == 0 for process in processes), "\n".join(texts)[-4000:]
    found = dict(np.load(outputs[0]))
    assert found["devices"] == 4
    for name in names:
        np.testing.assert_allclose(found[name], single[name], rtol=1e-10, atol=1e-10)
