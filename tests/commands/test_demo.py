"""The page on which a checkpoint is tried, in a browser."""

import http.client
import re
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image
from playwright.sync_api import Page, expect

from tests.browser import opened, started_browser
from tests.commands.processes import Running
from tests.nets import checkpoint_of, small_m2aenet

DEMO = "deblur_lab.demo"
PATIENCE_MS = 60_000
expect.set_options(timeout=PATIENCE_MS)


def scene(width: int, height: int) -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


@pytest.fixture
def photos(tmp_path) -> Path:
    """A photo that is stored turned; one of too many pixels, and one of too many bytes."""
    folder = tmp_path / "photos"
    folder.mkdir()
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation], turned[ExifTags.Base.Make] = 6, "Some Camera"
    Image.fromarray(scene(96, 64)).save(folder / "photo.jpg", exif=turned, quality=95)
    Image.fromarray(scene(300, 200)).save(folder / "wide.jpg")
    noise = np.random.default_rng(0).integers(0, 255, (150, 150, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "heavy.png")
    return folder


@contextmanager
def served(tmp_path: Path, *typed: str) -> Iterator[tuple[int, Running]]:
    """The page of a small M2AENet that is being started: its port, and the command; ends with Ctrl-C."""
    sizes = {"width": 4, "encoder_blocks": [1, 1, 1], "middle_blocks": 1, "decoder_blocks": [1, 0, 1]}
    checkpoint = checkpoint_of(small_m2aenet(), tmp_path / "net.ckpt", **sizes, predictor_stages=[3])
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    running = Running(
        DEMO,
        f"checkpoint={checkpoint}",
        f"port={port}",
        "open_browser=false",
        "device=cpu",
        *typed,
        cwd=tmp_path,
        forked=True,
        env={"HTTP_PROXY": "http://127.0.0.1:9", "NO_PROXY": None},
    )
    ended = None
    try:
        yield port, running
        running.send(signal.SIGINT)
        ended = running.ended(30)
    finally:
        if ended is None:
            running.send(signal.SIGKILL)
            running.ended(30)
    assert (ended.code, ended.stderr) == (130, "stopped by Ctrl-C\n")
    assert ended.stdout == f"the page is at http://127.0.0.1:{port}/ (Ctrl-C ends it)\n"


def answers(port: int) -> bool:
    try:
        return status(port) == 200
    except OSError:
        return False


def status(port: int, path: str = "/", host: str = "localhost", body: bytes | None = None) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    kind = {"Content-Type": "multipart/form-data; boundary=x"} if body else {}
    connection.request("POST" if body else "GET", path, body, {"Host": host, **kind})
    code = connection.getresponse().status
    connection.close()
    return code


def drop(page: Page, photo: Path) -> None:
    page.set_input_files("#photo input[type=file]", photo)


def assert_shown(page: Page) -> None:
    """The slider and both figures are there, and their pictures have come."""
    for picture in ("#compared img >> nth=0", "#compared img >> nth=1", "#figure-1 img", "#figure-2 img"):
        expect(page.locator(picture)).to_be_visible()
        page.wait_for_function("image => image.naturalWidth > 0", arg=page.locator(picture).element_handle())


def test_a_photo_is_tried(tmp_path, photos):
    with (
        # Both take their seconds to start.
        served(tmp_path, "max_pixels=50_000", "max_megabytes=0.05") as (port, running),
        started_browser() as browser,
        opened(browser, "about:blank", width=390, height=800, dark=True) as page,
    ):
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        running.wait_until(lambda: answers(port))
        page.goto(f"http://127.0.0.1:{port}/")
        # A photo, and what stands on the page then.
        drop(page, photos / "photo.jpg")
        assert_shown(page)
        expect(page.locator("#status")).to_contain_text("photo.jpg: 64 x 96 px, restored in ")
        size = "image => [image.naturalWidth, image.naturalHeight]"
        shown = page.locator("#compared img")
        assert [one.evaluate(size) for one in shown.all()] == [[64, 96]] * 2
        assert page.locator("#figure-1, #figure-2").all_inner_texts() == [
            "Where it sees blur",
            "Which motion it sees",
        ]
        temporary = Path(shown.first.evaluate("image => image.src").partition("file=")[2]).parents[2]
        assert temporary.name.startswith("deblur_lab-")
        assert temporary.is_dir()
        # On a telephone it is as wide as that, and as dark as that wants it.
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert max(map(int, re.findall(r"\d+", ground)[:3])) < 64
        # The slider moves: less of the restored photo is cut off.
        cut = "image => parseFloat(image.style.clipPath.split(' ').at(-1))"
        assert shown.nth(1).evaluate(cut) == pytest.approx(50, abs=1)
        knob = page.locator("#compared [data-testid=slider] .icon-wrap")
        knob.scroll_into_view_if_needed()
        handle = knob.bounding_box()
        assert handle is not None
        x, y = handle["x"] + handle["width"] / 2, handle["y"] + handle["height"] / 2
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(x - 60, y, steps=2)
        page.mouse.up()
        assert shown.nth(1).evaluate(cut) < 45
        # What is kept is the photo with all that belongs to it.
        with page.expect_download() as download:
            page.locator("#download").click()
        assert download.value.suggested_filename == "photo-restored.jpg"
        kept = Image.open(download.value.path())
        assert (kept.format, kept.size) == ("JPEG", (64, 96))
        assert dict(kept.getexif()) == {int(ExifTags.Base.Make): "Some Camera"}
        # Taken away, and others that are refused.
        page.locator("#photo button[aria-label*=lear]").click()
        expect(page.locator("#compared")).to_be_hidden()
        sent = len(asked)
        drop(page, photos / "heavy.png")
        expect(page.locator("#refused")).to_have_text(
            re.compile(r"^heavy\.png: 0\.1 MB are more than max_megabytes=0\.05, the largest file")
        )
        assert not any("upload" in url for url in asked[sent:])
        drop(page, photos / "wide.jpg")
        expect(page.locator("#status [role=alert]")).to_have_text(
            "wide.jpg: 300 x 200 pixels are more than max_pixels=50000, the largest that is decoded"
        )
        expect(page.locator("#refused")).to_be_empty()
        expect(page.locator("#compared")).to_be_hidden()
        # And on a desk.
        page.set_viewport_size({"width": 1200, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= 1200
        assert {urlsplit(url).netloc for url in asked if not url.startswith(("data:", "blob:"))} == {
            f"127.0.0.1:{port}"
        }
        # Whoever goes round the page is refused as well, and so is another site's name for this machine.
        form = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
        form += bytes(60_000) + b"\r\n--x--\r\n"
        assert status(port, "/gradio_api/upload", body=form) == 413
        assert status(port, host="evil.example") == 400
    assert not temporary.exists()
