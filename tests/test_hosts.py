"""Two and four processes that train one model: they agree, or refuse, and notice when one is gone."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
NOTICED_SECONDS = 30

pytestmark = pytest.mark.slow


def start(folder, task, count, parallel="jit", devices=1):
    """`count` processes of one run."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    environment = {
        **os.environ,
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}",
        "JAX_PLATFORMS": "cpu",
    }
    processes = []
    for index in range(count):
        distributed = {"BISM_JAX_DISTRIBUTED": f"{address},{count},{index}"} if count > 1 else {}
        processes.append(
            subprocess.Popen(
                [sys.executable, "-m", "tests.hosts_worker", str(folder), task, parallel],
                cwd=ROOT,
                env=environment | distributed,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    return processes


def finish(processes):
    """What each process said, and its status and errors."""
    found = []
    for process in processes:
        out, err = process.communicate(timeout=540)
        said = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
        found.append((said, process.returncode, err))
    return found


def train(folder, task, count, parallel="jit", devices=1):
    """The values at the end, which all processes share."""
    found = finish(start(folder, task, count, parallel, devices))
    assert all(status == 0 for _, status, _ in found), found[0][2][-3000:]
    values = [said[-1]["values"] for said, _, _ in found]
    for each in values[1:]:
        np.testing.assert_array_equal(each, values[0])
    return np.array(values[0])


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    folder = tmp_path_factory.mktemp("single")
    return train(folder, "go on", 1), (folder / "log.csv").read_text()


def assert_same_logs(found, expected):
    """Line for line, with the numbers to the last digits, which depend on the number of devices."""
    rows, others = ([line.split(",") for line in text.splitlines()] for text in (found, expected))
    assert [row[0] for row in rows] == [row[0] for row in others]
    assert rows[0] == others[0]
    for row, other in zip(rows[1:], others[1:], strict=True):
        for number, expected_number in zip(row, other, strict=True):
            assert (number == "") == (expected_number == "")
            np.testing.assert_allclose(float(number or 0), float(expected_number or 0), rtol=1e-9)


@pytest.mark.parametrize(("count", "parallel"), [(4, "jit"), (2, "pmap"), (4, "pmap")])
def test_processes_equal_one(tmp_path, single, count, parallel):
    values, log = single
    np.testing.assert_allclose(train(tmp_path, "go on", count, parallel), values, rtol=1e-10, atol=1e-10)
    assert_same_logs((tmp_path / "log.csv").read_text(), log)
    assert sorted(os.listdir(tmp_path)) == ["log.csv", "run"]


@pytest.mark.parametrize(("before", "after"), [(4, 1), (1, 4)])
def test_another_number_of_processes_goes_on(tmp_path, single, before, after):
    values, log = single
    train(tmp_path, "go half way", before)
    np.testing.assert_allclose(train(tmp_path, "go on", after), values, rtol=1e-10, atol=1e-10)
    assert_same_logs((tmp_path / "log.csv").read_text(), log)


EXPECTED = {
    "batch_size": "batch_size is 16 on process 0, 32 on process 1",
    "rng_key": "rng_key is threefry2x32 [0, 0] on process 0, threefry2x32 [0, 1] on process 1",
    "noise_std": "method.objective.noise_std is 0.3 on process 0, 0.4 on process 1",
    "data": "data.checksum is",
    "num_steps": "num_steps is 20 on process 0, 40 on process 1",
    "checkpoint_dir": "checkpoint_dir is",
    "model": "energy_fn.num_hidden is 2 on process 0, 3 on process 1",
    "parallel": "parallel is None on process 0, pmap on process 1",
    "callbacks": "callbacks is [] on process 0, [['Evaluate', 7]] on process 1",
    "ema_decay": "ema_decay is None on process 0, 0.9 on process 1",
    "a bad option": "batch_size must be an integer of at least 1, not -3",
    "versions": "versions.jax is",
}


def test_every_disagreement_is_refused_by_both(tmp_path):
    for said, status, err in finish(start(tmp_path, "disagree", 2)):
        assert status == 0, err[-3000:]
        errors = {line["name"]: line for line in said if "error" in line}
        assert errors.keys() == EXPECTED.keys()
        for name, text in EXPECTED.items():
            assert text in errors[name]["error"], name
            assert errors[name]["seconds"] < NOTICED_SECONDS
        if said[-1]["process"] == 0:  # which has cleared up behind itself
            assert said[-1]["files"] == []


def test_a_process_that_is_gone_is_noticed(tmp_path):
    processes = start(tmp_path, "kill", 2)
    processes[1].wait(540)
    gone = time.time()
    said, status, _ = finish(processes)[0]
    assert status != 0
    assert "one of them is gone" in said[-1]["error"]
    assert f"The last checkpoint is {tmp_path / 'run' / '10'}; the same call" in said[-1]["error"]
    assert time.time() - gone < NOTICED_SECONDS


def test_a_signal_to_one_ends_all(tmp_path):
    for said, status, err in finish(start(tmp_path, "terminate", 2)):
        assert status == 143
        assert said[-1]["error"] == "SystemExit: 143"
        assert (
            f"SIGTERM after iteration 12 of 1,000,000. The last checkpoint is {tmp_path / 'run' / '12'}"
            in err
        )
