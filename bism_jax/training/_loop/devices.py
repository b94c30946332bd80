"""The choice of devices and of their layout: one SPMD program, or `pmap`.

Both see the same global batch, so that the result does not depend on the number of devices.
"""

from __future__ import annotations

import jax

from bism_jax import checks
from bism_jax.training._loop.layout import Layout, config
from bism_jax.training._loop.pmap_layout import PmapLayout


def make_layout(parallel: str | None, batch_size: int) -> Layout:
    """The layout that `parallel` names: None or `"jit"` for one program, `"pmap"`.

    Raises:
        ValueError: for another name, or a batch that does not divide among the devices.
    """
    checks.one_of("parallel", parallel, (None, "jit", "pmap"))
    devices = _devices()
    if batch_size % len(devices):
        nearest = max(1, round(batch_size / len(devices))) * len(devices)
        raise ValueError(
            f"batch_size={batch_size} does not divide among the {len(devices)} devices; pass "
            f"batch_size={nearest}, or show JAX fewer devices."
        )
    return PmapLayout(devices) if parallel == "pmap" else Layout(devices)


def _devices() -> list[jax.Device]:
    """All devices, or what `jax_default_device` says: one device, or all of a platform.

    Raises:
        ValueError: where it names one device and there are several processes, each with devices of its own.
    """
    default = config("jax_default_device")
    if default is None or isinstance(default, str):
        return jax.devices(default)
    if jax.process_count() > 1:
        raise ValueError(
            f"jax_default_device={default} is one device, but {jax.process_count()} processes train "
            "together; leave it unset, and choose each process's devices by local_device_ids of "
            "jax.distributed.initialize."
        )
    return [default]
