"""Folders of checkpoints in which something is broken, and folders that more than one run wants."""

import os
import shutil
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest

from bism_jax import fit
from bism_jax.training import CSVLog, JSONLLog
from tests.helpers import Drift, rows

ROOT = Path(__file__).parent.parent
DATA = rows(60, (3,))


def train(folder, num_steps=6, **options):
    arguments = {"method": Drift(), "batch_size": 10, "checkpoint_every": 2, **options}
    return fit(lambda *_: None, None, DATA, num_steps=num_steps, checkpoint_dir=folder, **arguments)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of six iterations, and its folder with the checkpoints 2, 4 and 6."""
    folder = tmp_path_factory.mktemp("whole")
    return train(folder), folder


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def largest(folder):
    return max(files(folder), key=lambda path: path.stat().st_size)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    content = bytearray(path.read_bytes())
    for index in range(len(content) // 3, len(content), 7):
        content[index] ^= 0xFF
    path.write_bytes(bytes(content))


DAMAGES = {
    "emptied": lambda folder: [shutil.rmtree(folder), folder.mkdir()],
    "no run": lambda folder: shutil.rmtree(folder / "run"),
    "no state": lambda folder: shutil.rmtree(folder / "state"),
    "no history": lambda folder: shutil.rmtree(folder / "history"),
    "no files of the state": lambda folder: [
        path.unlink() for path in files(folder) if path.parent.name == "d"
    ],
    "no manifest": lambda folder: [path.unlink() for path in folder.rglob("manifest.ocdbt")],
    "cut run": lambda folder: cut(folder / "run" / "metadata"),
    "cut state": lambda folder: cut(largest(folder / "state" / "d")),
    "cut history": lambda folder: cut(largest(folder / "history" / "d")),
    "all cut": lambda folder: [cut(path) for path in files(folder)],
    "all of no bytes": lambda folder: [path.write_bytes(b"") for path in files(folder)],
    "flipped bits": lambda folder: [flip(path) for path in files(folder / "state")],
    "other numbers": lambda folder: (folder / "run" / "metadata").write_text(
        (folder / "run" / "metadata").read_text().replace('"evaluations": []', '"evaluations": [{"step": 1}]')
    ),
    "no object": lambda folder: (folder / "run" / "metadata").write_text("[]"),
    "a file": lambda folder: [shutil.rmtree(folder), folder.write_text("")],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_newest_whole_checkpoint_is_taken(whole, tmp_path, damage):
    expected, folder = whole
    copy = tmp_path / "run"
    shutil.copytree(folder, copy)
    DAMAGES[damage](copy / "6")
    if damage == "a file":  # which is no checkpoint
        assert train(copy).theta["w"].tolist() == expected.theta["w"].tolist()
        return
    with pytest.warns(
        UserWarning, match=r"checkpoint 6 is damaged \(.*going back to the newest whole one, .*/4"
    ):
        found = train(copy)
    assert (copy / "6.damaged").exists()
    for name in ("loss", "noise"):
        np.testing.assert_array_equal(found.history[name], expected.history[name])
    np.testing.assert_array_equal(found.theta["w"], expected.theta["w"])
    assert train(copy).theta["w"].tolist() == expected.theta["w"].tolist()  # and now nothing is wrong with it


def test_several_damaged_ones_are_passed_over(whole, tmp_path):
    expected, folder = whole
    copy = tmp_path / "run"
    shutil.copytree(folder, copy)
    for name in ("4", "6"):
        cut(copy / name / "run" / "metadata")
    with pytest.warns(UserWarning, match=r"checkpoint 6 is damaged .*checkpoint 4 is damaged .*/2\."):
        found = train(copy)
    np.testing.assert_array_equal(found.theta["w"], expected.theta["w"])


def test_a_folder_without_a_whole_one_is_refused(whole, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(whole[1], copy)
    for name in ("2", "4", "6"):
        cut(copy / name / "run" / "metadata")
    with pytest.raises(
        ValueError, match=r"has no checkpoint that can be read: checkpoint 6 .*Choose another"
    ):
        train(copy)
    assert {"2", "4", "6"} <= set(os.listdir(copy))


def test_what_a_kill_leaves_of_a_save_is_no_checkpoint(whole, tmp_path):
    expected, folder = whole
    copy = tmp_path / "run"
    shutil.copytree(folder, copy)
    (copy / "6").rename(copy / "6.orbax-checkpoint-tmp-1")
    np.testing.assert_array_equal(train(copy).theta["w"], expected.theta["w"])


def test_two_threads_with_a_folder_each(whole, tmp_path):
    expected, _ = whole
    results = {}

    def run(name):
        results[name] = train(tmp_path / name, checkpoint_every=1)

    threads = [threading.Thread(target=run, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 3
    for result in results.values():
        np.testing.assert_array_equal(result.theta["w"], expected.theta["w"])


def test_a_folder_in_use_is_refused(tmp_path):
    """By a thread of this process, by another process, and not once that is gone."""
    inside, done = threading.Event(), threading.Event()

    class Waiting:
        every = 1

        def __call__(self, snapshot):
            inside.set()
            done.wait(60)

    thread = threading.Thread(target=train, args=(tmp_path, 1), kwargs={"callbacks": [Waiting()]})
    thread.start()
    inside.wait(60)
    with pytest.raises(ValueError, match=r"checkpoint_dir=.* is in use by another run; wait for its end, or"):
        train(tmp_path)
    program = f"from tests.test_damaged_checkpoints import train; train({str(tmp_path)!r})"
    other = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert "is in use by another run" in other.stderr
    done.set()
    thread.join()
    train(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="gives up the rights of root to see what others see")
def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path):
    tmp_path.chmod(0o755)
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o555)
    program = f"""
        import os, sys
        from bism_jax.training._checkpoints import folder_lock
        from bism_jax._paths import as_path
        os.setuid(65534)
        try:
            with folder_lock.hold(as_path("checkpoint_dir", {str(locked)!r})):
                pass
        except ValueError as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=ROOT,
        env={**os.environ, "HOME": "/"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "cannot be written to" in done.stdout, done.stderr


def test_an_error_of_the_disk_names_the_folder_and_the_last_checkpoint(tmp_path, monkeypatch):
    from orbax.checkpoint import CheckpointManager

    save = CheckpointManager.save

    def full(self, step, *args, **options):
        if step == 4:
            raise OSError(28, "No space left on device")
        return save(self, step, *args, **options)

    monkeypatch.setattr(CheckpointManager, "save", full)
    with pytest.raises(OSError, match=r"could not be written to checkpoint_dir=.*No space left.*/2\. See to"):
        train(tmp_path)
    monkeypatch.setattr(CheckpointManager, "save", save)
    assert len(train(tmp_path).history["loss"]) == 6


@pytest.mark.parametrize("name", ["a/../b", "with space", "ünïcode", "deep/er/still"])
def test_folders_of_unusual_names(tmp_path, name):
    train(tmp_path / name, 2)
    assert len(train(tmp_path / name).history["loss"]) == 6


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("gss://bucket/run", r"'gss://bucket/run': the scheme gss:// is unknown; pass a folder, gs://BUCKET"),
        ("http://host/run", "scheme http:// is unknown"),
        (Path("gs://bucket/run"), r"has lost a slash, as pathlib's paths do; pass the string 'gs://"),
        ("gs://bucket/run", r"cannot be reached .*tensorflow or gcsfs"),
        ("", "is empty"),
        ("a\0b", "null character"),
        ("a\ud800b", "holds what is no character"),
    ],
)
def test_paths_that_lead_nowhere(tmp_path, monkeypatch, path, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        train(path)
    for log in (CSVLog, JSONLLog):
        with pytest.raises(ValueError, match=message):
            log(path)
    assert os.listdir(tmp_path) == []


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    train("~/run", 2, callbacks=[CSVLog("~/a.csv"), JSONLLog(Path("~/b.jsonl"))])
    assert os.listdir(tmp_path / "work") == []
    assert sorted(os.listdir(tmp_path / "home")) == ["a.csv", "b.jsonl", "run"]


def test_a_refused_run_leaves_no_folder(tmp_path):
    with pytest.raises(ValueError, match="batch_size"):
        train(tmp_path / "run", batch_size=1000)
    assert os.listdir(tmp_path) == []


def test_a_users_own_folder_with_a_number_is_kept(tmp_path):
    train(tmp_path, 4)
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "mine.txt").write_text("mine")
    with pytest.warns(UserWarning, match=r"checkpoint 1 is damaged \(it holds no checkpoint\)"):
        train(tmp_path, 12)
    assert (tmp_path / "1.damaged" / "mine.txt").read_text() == "mine"


def test_a_refused_run_leaves_no_folder_above_it(tmp_path):
    with pytest.raises(ValueError, match="batch_size=7000"):
        train(tmp_path / "new" / "run", batch_size=7000)
    assert list(tmp_path.iterdir()) == []
