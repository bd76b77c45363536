"""A page in the browser on which a checkpoint is tried."""

import errno
import importlib.util
import ipaddress
import logging
import os
import socket
import sys
import tempfile
import threading
import time
import warnings
import webbrowser
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from omegaconf import DictConfig
from torch import nn

from deblur_lab.checkpoints import load_net
from deblur_lab.config import plain
from deblur_lab.console import say
from deblur_lab.demo_guard import Guard
from deblur_lab.demo_tasks import Task, Tasks
from deblur_lab.errors import ConfigurationError, MachineError
from deblur_lab.images import quoted
from deblur_lab.restoring import Restorer, device_named
from deblur_lab.tried_photos import Tried, figure_titles, try_photo

if TYPE_CHECKING:
    import fastapi

FIRST_PORT = 7860
_PORTS = 100
_PATIENCE_S = 30.0


def demonstrate(config: DictConfig) -> None:
    """Serve the page until Ctrl-C.

    Args:
        config: ``conf/demo.yaml``, composed and checked (`deblur_lab.command_line.run`).

    Raises:
        ConfigurationError: `host` is no address of this machine.
        CheckpointError: The checkpoint cannot be used.
        MachineError: Gradio is missing, the port is taken, or the device cannot be used.
    """
    settings = plain(config)
    if importlib.util.find_spec("gradio") is None:
        raise MachineError("the page needs Gradio: pip install 'deblur_lab[demo]'")
    host = settings["host"]
    with listening(host, settings["port"]) as ear, tempfile.TemporaryDirectory(prefix="deblur_lab-") as name:
        device = device_named(settings["device"])
        path = Path(settings["checkpoint"])
        net, _ = load_net(path, tuple(settings["trusted_packages"]))
        restorer = Restorer(net.to(device), device, say=say)
        tasks = Tasks(partial(_tried, restorer, max_pixels=settings["max_pixels"]))
        alone = is_loopback(host)
        app = _app(tasks, _about(net, path, device, alone), settings, Path(name), figure_titles(net))
        with _served(app, ear):
            address = f"http://{_shown_host(host)}:{ear.getsockname()[1]}/"
            say(f"the page is at {address} (Ctrl-C ends it)")
            if not alone:
                warnings.warn(
                    f"host={host}: whoever reaches this machine by the network can use the page, without a "
                    "password, and nothing is encrypted on the way",
                    stacklevel=1,
                )
            if settings["open_browser"] and _has_screen():
                webbrowser.open(address)
            tasks.carry_out()


@contextmanager
def listening(host: str, port: int | None) -> Iterator[socket.socket]:
    """A socket on which nobody is answered yet.

    Args:
        host: A name or an address (IPv4) of this machine.
        port: 0: any that is free; None: the first that is free from `FIRST_PORT`.

    Raises:
        ConfigurationError: The host is none of this machine's.
        MachineError: The port is taken, or not for everybody.
    """
    tried = [port] if port is not None else range(FIRST_PORT, FIRST_PORT + _PORTS)
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as ear:
        if os.name == "posix":  # elsewhere it would let two programs have one port
            ear.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for number in tried:
            try:
                ear.bind((host, number))
                ear.listen()
            except (OSError, UnicodeError) as error:
                if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
                    continue
                if isinstance(error, PermissionError):
                    raise MachineError(
                        f"port={number} is not for everybody: choose one from 1024 on"
                    ) from error
                raise ConfigurationError(
                    f"host={host} is no address of this machine: 127.0.0.1 is for this machine alone, "
                    "0.0.0.0 for all that reach it"
                ) from error
            yield ear
            return
    if port is not None:
        raise MachineError(f"port={port} is taken by another program: choose another, or leave it out")
    raise MachineError(f"the ports from {FIRST_PORT} to {FIRST_PORT + _PORTS - 1} are all taken: give port=0")


def is_loopback(host: str) -> bool:
    """Whether a host that can be listened on is reached from this machine alone.

    >>> is_loopback("localhost"), is_loopback("127.0.0.1"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    return ipaddress.ip_address(socket.gethostbyname(host)).is_loopback


def _tried(restorer: Restorer, task: Task, progress: Callable[[float], None], *, max_pixels: int) -> Tried:
    return try_photo(restorer, task.source, task.folder, max_pixels=max_pixels, progress=progress)


def _about(net: nn.Module, path: Path, device: torch.device, alone: bool) -> str:
    millions = sum(parameter.numel() for parameter in net.parameters()) / 1e6
    on = {"cpu": "the CPU", "cuda": "the GPU"}.get(device.type, str(device))
    where = "photos stay on this machine" if alone else "photos are sent to the machine that runs this page"
    return f"{type(net).__name__} ({millions:.3g} M parameters) of {quoted(path)}, on {on}; {where}"


def _app(
    tasks: Tasks, about: str, settings: dict[str, Any], folder: Path, figures: Sequence[str]
) -> "fastapi.FastAPI":
    """What answers browsers."""
    # Read when Gradio is imported, or when it stores a file.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    cache = folder / "cache"
    os.environ["GRADIO_TEMP_DIR"] = str(cache)

    import fastapi
    import gradio as gr
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    from deblur_lab.demo_page import build_page, look

    megabytes, pixels = settings["max_megabytes"], settings["max_pixels"]
    page = build_page(
        tasks.ask,
        about=about,
        limits=f"at most {megabytes:g} MB and {pixels / 1e6:.3g} megapixels",
        figures=figures,
        folder=folder,
    )
    app = fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    inputs = {number: len(function.inputs) for number, function in page.fns.items()}
    app.add_middleware(Guard, cache=cache, inputs=inputs)
    host = settings["host"]
    if is_loopback(host):
        # A page of somebody else's, under a name that leads to this machine, is not answered.
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost", host])
    # Gradio itself asks whether a file was uploaded only where it was launched, which a page that is mounted
    # is not (6.31: processing_utils._check_allowed).
    page.has_launched = page.is_running = True
    gr.mount_gradio_app(
        app,
        page,
        path="/",
        footer_links=[],
        run_history=False,
        show_error=True,
        max_file_size=round(megabytes * 1e6),
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        **look(megabytes),
    )
    return app


@contextmanager
def _served(app: "fastapi.FastAPI", ear: socket.socket) -> Iterator[None]:
    """Answers browsers in a thread of its own.

    Raises:
        MachineError: The server does not start.
    """
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(app, log_level="error", ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [ear]}, daemon=True)
    thread.start()
    deadline = time.monotonic() + _PATIENCE_S
    while not server.started:
        if not thread.is_alive() or time.monotonic() > deadline:
            raise MachineError(f"the server of the page did not start within {_PATIENCE_S:.0f} s")
        time.sleep(0.01)
    try:
        yield
    finally:
        # Pages that are open keep their connections, and are not waited for; that they were cut, and which of
        # the server's tasks were, is nothing to tell.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        server.should_exit = server.force_exit = True
        thread.join(timeout=5)


def _shown_host(host: str) -> str:
    return "127.0.0.1" if host in ("", "0.0.0.0") else host


def _has_screen() -> bool:
    """Whether there is somewhere to show a browser; without, one for the terminal might take it over."""
    if sys.platform in ("win32", "darwin"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
