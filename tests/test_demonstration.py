"""What is listened on, and what is missing, before there is a page."""

import socket

import pytest
from omegaconf import OmegaConf

from deblur_lab.demonstration import FIRST_PORT, demonstrate, is_loopback, listening
from deblur_lab.errors import ConfigurationError, MachineError


def test_a_port_that_is_free():
    with listening("127.0.0.1", None) as first, listening("127.0.0.1", None) as second:
        ports = [ear.getsockname()[1] for ear in (first, second)]
        assert FIRST_PORT <= ports[0] < ports[1] < FIRST_PORT + 100
        taken = ports[0]
        with pytest.raises(MachineError, match=f"^port={taken} is taken by another program"):
            listening("127.0.0.1", taken).__enter__()
        with listening("localhost", 0) as third:
            assert third.getsockname()[1] not in (0, *ports)
    with listening("127.0.0.1", taken) as again:
        assert again.getsockname() == ("127.0.0.1", taken)


@pytest.mark.parametrize("host", ["198.51.100.7", "no such name", "::1", "a" * 70])
def test_a_host_that_is_not_here(host):
    with pytest.raises(ConfigurationError, match=f"^host={host} is no address of this machine"):
        listening(host, 0).__enter__()


def test_who_can_reach_it():
    assert [is_loopback(host) for host in ("127.0.0.1", "localhost", "127.1.2.3")] == [True] * 3
    assert [is_loopback(host) for host in ("0.0.0.0", "")] == [False] * 2


def test_without_gradio_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MachineError, match=r"^the page needs Gradio: pip install 'deblur_lab\[demo\]'$"):
        demonstrate(OmegaConf.create({"checkpoint": "none.ckpt"}))


def test_a_port_is_taken_before_anything_is_read(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        config = {"checkpoint": "none.ckpt", "host": "127.0.0.1", "port": other.getsockname()[1]}
        with pytest.raises(MachineError, match="is taken"):
            demonstrate(OmegaConf.create(config))
