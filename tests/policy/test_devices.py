import os

import jax
import pytest

from grpo_jax.policy import devices


class Chip:
    def __init__(self, device_kind: str):
        self.device_kind = device_kind


@pytest.mark.parametrize(
    ("text", "name", "count"),
    [("h200", "H200", 1), ("V5Ex8", "v5e", 8), ("A100-80-PCIeX16", "A100-80-PCIe", 16)],
)
def test_names_in_any_case_and_how_many(text, name, count):
    assert devices.parse(text) == (devices.DEVICES[name], count)


@pytest.mark.parametrize("text", ["B300", "x8", "v5ex0", "v5e-8", "v5ex"])
def test_other_names_are_refused(text):
    with pytest.raises(ValueError, match=rf"'{text}' is not known: use one of T4, L4"):
        devices.parse(text)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("Tesla T4", "T4"),
        ("NVIDIA A10G", "A10G"),
        ("NVIDIA A100-SXM4-40GB", "A100-40"),
        ("NVIDIA A100-SXM4-80GB", "A100-80"),
        ("NVIDIA A100 80GB PCIe", "A100-80-PCIe"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100-PCIe"),
        ("NVIDIA H200", "H200"),
        ("TPU v5 lite", "v5e"),
        ("TPU v5", "v5p"),
        ("TPU v6 lite", "v6e"),
    ],
)
def test_a_chip_is_known_by_what_jax_calls_it(kind, name, monkeypatch):
    monkeypatch.setattr(jax, "devices", lambda: [Chip(kind)])
    found = devices.detect()
    assert found is not None and found.name == name


def test_what_is_not_known_is_not_guessed(monkeypatch):
    assert devices.detect() is None  # a processor
    monkeypatch.setattr(jax, "devices", lambda: [Chip("NVIDIA Unheard-of")])
    assert devices.detect() is None


def test_every_chip_is_whole_and_no_kind_is_two_chips():
    kinds = [kind for device in devices.DEVICES.values() for kind in device.kinds]
    assert len(kinds) == len(set(kinds)) and kinds == [kind.lower() for kind in kinds]
    for device in devices.DEVICES.values():
        assert 10e9 < device.memory_bytes < 200e9
        # Operations for each byte that is read.
        assert 100 < device.flops_per_second / device.bytes_per_second < 600
        assert (device.compute_capability > 0) == (device.backend == "gpu")


def test_figures_of_the_vendors():
    """Dense bfloat16 and memory bandwidth, as the data sheets have them."""
    figures = {
        name: (device.flops_per_second / 1e12, device.bytes_per_second / 1e9)
        for name, device in devices.DEVICES.items()
    }
    assert figures["A100-80"] == (312, 2039)
    assert figures["H100"] == (989, 3350) and figures["H200"] == (989, 4800)
    assert figures["H100-PCIe"] == (756, 2000)
    assert figures["v5e"] == (197, 819) and figures["v6e"] == (918, 1640)
    assert figures["v5p"] == (459, 2765)


def test_this_machine_has_what_is_free_of_its_memory():
    host = devices.host()
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert host.backend == "cpu" and 1e8 < host.memory_bytes <= physical
    assert host.flops_per_second == host.bytes_per_second == 0
