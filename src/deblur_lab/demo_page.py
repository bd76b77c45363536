"""The page on which a network is tried: what stands on it, and how it follows a photo that is being restored.

Gradio draws it. It is imported late, as it is an extra and takes seconds.
"""

import html
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deblur_lab.demo_tasks import Task
from deblur_lab.errors import UserError
from deblur_lab.images import PICTURE_SUFFIXES
from deblur_lab.tried_photos import Tried, named
from deblur_lab.writing import duration

if TYPE_CHECKING:
    import gradio

TITLE = "Deblur a photo"

_POLL_S = 0.2
_CACHE_CHECKED_S, _CACHE_KEPT_S = 600, 3600

_ADVICE = (
    "A network restores the kind of blur that it was trained on. "
    "What looks sharp may be invented: faces and letters that it restored are no evidence."
)

# Colours are readable on Gradio's light and dark ground.
_STYLE = """
.gradio-container { max-width: 1080px !important; width: 100%; margin: 0 auto !important; }
.gradio-container { --quiet: #4b5563; --told: #b42318; --track: #d1d5db; --done: #2563eb; }
.dark .gradio-container, .gradio-container.dark { --quiet: #b6bcc6; --told: #f97066; --track: #3f4653; }
#heading, #status, #refusal, #heading > div, #status > div, #refusal > div {
  padding-left: 0; padding-right: 0; }
#refusal:not(:has(.error)), #status:not(:has(p)) { display: none; }
#heading h1 { font-size: 1.75rem; font-weight: 650; line-height: 1.2; margin: 0.4rem 0 0.5rem; }
#heading p { margin: 0.15rem 0 0; color: var(--quiet); overflow-wrap: anywhere; line-height: 1.45; }
#status p, #refused p { margin: 0; overflow-wrap: anywhere; font-size: 1rem; }
#compared [data-testid=block-label], [id^=figure-] [data-testid=block-label] { position: static; }
#status .facts { color: var(--quiet); }
#status .error, #refused .error { border-left: 4px solid var(--told);
  padding: 0.5rem 0.8rem; color: var(--told); }
#status .bar { height: 0.5rem; margin-top: 0.6rem; border-radius: 0.25rem; overflow: hidden;
  background: var(--track); }
#status .bar div { height: 100%; border-radius: inherit; background: var(--done); min-width: 2%; }
#download { background: var(--done); }
#photo button:focus-visible, #download:focus-visible { outline: 3px solid var(--done); outline-offset: 2px; }
footer { display: none !important; }
"""

# A file that is too large is told before it is sent: the server would refuse it in the middle, and Gradio
# tells that in a note that goes away by itself.
_REFUSING = """
<script>
(() => {
  const mostBytes = %(bytes)d;
  const judge = (event, files) => {
    if (!event.target.closest || !event.target.closest("#photo")) return;
    const told = document.querySelector("#refused");
    const large = [...(files || [])].find((file) => file.size > mostBytes);
    told.textContent = "";
    if (!large) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    if (event.target.type === "file") event.target.value = "";
    const line = document.createElement("p");
    line.className = "error";
    const size = (large.size / 1e6).toFixed(1);
    line.textContent =
      `${large.name}: ${size} MB are more than max_megabytes=%(megabytes)s, the largest file that is taken`;
    told.append(line);
  };
  document.addEventListener("change", (event) => judge(event, event.target.files), true);
  document.addEventListener("drop", (event) => judge(event, event.dataTransfer?.files), true);
})();
</script>
"""


def build_page(
    ask: Callable[[Path, Path], Task],
    *,
    about: str,
    limits: str,
    figures: Sequence[str],
    folder: Path,
) -> "gradio.Blocks":
    """The page.

    Args:
        ask: Given a photo and an empty folder for the results, has the photo restored.
        about: Which net it is and where, a line or two of plain text.
        limits: What a photo may be at most, in words.
        figures: The titles of the pictures of what the net says that there may be.
        folder: For results, until they are shown.
    """
    import gradio as gr

    page: gradio.Blocks
    with gr.Blocks(
        title=TITLE, analytics_enabled=False, delete_cache=(_CACHE_CHECKED_S, _CACHE_KEPT_S)
    ) as page:
        heading = f"<h1>{TITLE}</h1><p>{html.escape(about)}</p><p>{_ADVICE}</p>"
        gr.HTML(heading, elem_id="heading", padding=False)
        photo = gr.File(
            label=f"Photo ({limits})",
            file_types=["image", *sorted(PICTURE_SUFFIXES)],
            type="filepath",
            height=150,
            elem_id="photo",
        )
        gr.HTML('<div id="refused" role="alert"></div>', elem_id="refusal", padding=False)
        status = gr.HTML("", elem_id="status", padding=False)
        slider = gr.ImageSlider(
            label="Left: as it was; right: restored",
            type="filepath",
            max_height=680,
            buttons=["fullscreen"],
            interactive=False,
            visible=False,
            elem_id="compared",
        )
        kept = gr.DownloadButton(
            "Download the restored photo", variant="primary", visible=False, elem_id="download"
        )
        with gr.Row():
            slots = {
                title: gr.Image(
                    label=title,
                    alt_text=title,
                    type="filepath",
                    buttons=["fullscreen", "download"],
                    interactive=False,
                    visible=False,
                    min_width=320 if len(figures) < 3 else 1000,  # side by side, if they can be read so
                    elem_id=f"figure-{number}",
                )
                for number, title in enumerate(figures, start=1)
            }
        outputs = [status, slider, kept, *slots.values()]

        def laid_out(line: str, tried: Tried | None = None) -> dict[Any, Any]:
            """The whole page, with or without a result."""
            updates = {status: line, **{part: gr.update(visible=False, value=None) for part in outputs[1:]}}
            if tried is None:
                return updates
            updates[slider] = gr.update(visible=True, value=(str(tried.before), str(tried.after)))
            updates[kept] = gr.update(visible=True, value=str(tried.restored))
            for figure in tried.figures:
                updates[slots[figure.title]] = gr.update(visible=True, value=str(figure.path))
            return updates

        def restore(path: str) -> Iterator[dict[Any, Any]]:
            source = Path(path)
            with tempfile.TemporaryDirectory(dir=folder) as results:
                task = ask(source, Path(results))
                started = time.monotonic()
                try:
                    yield laid_out(_busy(source, task, 0))
                    while not task.wait(_POLL_S):
                        if not task.begun:
                            started = time.monotonic()
                        yield {status: _busy(source, task, time.monotonic() - started)}
                    tried = task.result()
                except UserError as error:
                    yield laid_out(_error(named(error, source)))
                except CancelledError:
                    yield laid_out(_error("the page is being closed: start the command again"))
                except Exception as error:
                    fault = f"{type(error).__name__}: this is a fault of deblur_lab, told in the terminal"
                    yield laid_out(_error(fault))
                else:
                    yield laid_out(_facts(source, tried, time.monotonic() - started), tried)
                finally:
                    # Whoever has taken the photo away, or closed the page, waits for it no more.
                    task.abandon()

        # Our own tasks are done one after the other, and whose is not yet begun is told so.
        asked = photo.upload(
            restore, photo, outputs, show_progress="hidden", concurrency_limit=16, api_visibility="private"
        )
        photo.clear(
            lambda: laid_out(""), None, outputs, cancels=[asked], show_progress="hidden",
            api_visibility="private",
        )  # fmt: skip
    page.queue(max_size=32)
    return page


def look(max_megabytes: float) -> dict[str, Any]:
    """Theme, style and script, as Gradio takes them: with fonts of the system, so that none is fetched.

    Args:
        max_megabytes: a larger file is refused before it is sent.
    """
    import gradio as gr

    theme = gr.themes.Default(
        primary_hue="blue",
        neutral_hue="gray",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )
    script = _REFUSING % {"bytes": round(max_megabytes * 1e6), "megabytes": f"{max_megabytes:g}"}
    return {"theme": theme, "css": _STYLE, "head": script}


def _busy(source: Path, task: Task, seconds: float) -> str:
    name = html.escape(source.name)
    if not task.begun:
        return f'<p role="status">{name} waits: another photo is being restored</p>'
    so_far = f", {duration(seconds)}" if seconds >= 1 else ""
    return (
        f'<p role="status">Restoring {name}: {task.share:.0%}{so_far}</p>'
        f'<div class="bar" aria-hidden="true"><div style="width: {task.share:.1%}"></div></div>'
    )


def _facts(source: Path, tried: Tried, seconds: float) -> str:
    width, height = tried.size_px
    lines = [f"{source.name}: {width} x {height} px, restored in {duration(max(1.0, seconds))}"]
    if tried.reduced:
        lines.append("shown reduced; the download has all pixels")
    lines += tried.notes
    return f'<p role="status" class="facts">{html.escape("; ".join(lines))}</p>'


def _error(line: str) -> str:
    return f'<p role="alert" class="error">{html.escape(line)}</p>'
