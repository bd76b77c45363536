"""How Sphinx makes the documentation site: ``make docs``.

The pages are the repository's own Markdown files where they lie, so that a link between two of them works on
the site and on a code host alike, and nothing is written twice: the front page is ``README.md``. What is made
while the site is built is the reference of settings (`settings_reference.py`, from the YAMLs of ``conf``) and
that of the Python interface (`python_reference.py`, from docstrings).

Nothing is fetched: no fonts, no scripts, no inventories of other projects.
"""

import re
import sys
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.ext.napoleon.docstring import GoogleDocstring

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE))

from deblur_lab import __version__  # noqa: E402 - after the path is set

FRONT_PAGE = "README"

# The site's table of contents: (caption, pages). A page that is missing here is a warning, and thus an error.
CONTENTS = (
    (
        "Use it",
        (
            "docs/photos",
            "docs/demo",
            "docs/export",
            "docs/own_data",
            "docs/video",
            "docs/data",
            "docs/datasets/gopro",
            "docs/datasets/hide",
            "docs/datasets/realblur",
            "docs/datasets/reloblur",
            "docs/verify",
            "docs/prepare",
            "docs/training",
            "docs/scores",
            "docs/protocols",
            "docs/report",
            "docs/ablations",
            "docs/compare",
            "docs/search",
            "docs/clusters",
            "docs/wandb",
        ),
    ),
    (
        "Look it up",
        (
            "docs/settings",
            "docs/errors",
            "docs/costs",
            "docs/peers",
            "docs/results",
            "docs/papers",
            "experiments/README",
            "experiments/m2aenet/README",
            "experiments/aibnet/README",
            "experiments/compare/README",
            "experiments/compare/small/report",
            "docs/python",
        ),
    ),
    ("Take part", ("CONTRIBUTING", "CHANGELOG")),
)

project = "deblur_lab"
project_copyright = "The deblur_lab developers"
version = release = __version__

extensions = [
    "myst_parser",
    "python_reference",
    "settings_reference",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
root_doc = FRONT_PAGE
include_patterns = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/**.md", "experiments/**.md"]
# Or every file of .venv and runs would be looked at.
exclude_patterns = sorted(
    path.name for path in ROOT.iterdir() if path.is_dir() and path.name not in ("docs", "experiments")
)
show_warning_types = True

# Anchors of headings as code hosts make them.
myst_heading_anchors = 4
# Quotes are curled and -- is a dash, but dots stay three.
smartquotes_action = "qD"

# Signatures as they are read: short names, one argument a line if they are long, defaults as written.
autodoc_default_options = {"members": True, "member-order": "bysource", "show-inheritance": True}
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80
add_module_names = False
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
napoleon_custom_sections = ["Assumes", "Deviates", "Shape"]
viewcode_line_numbers = True

# In docstrings `x` is code, and a link where it is the name of something that is documented.
default_role = "py:obj"
# Names of other projects: their documentation is not looked up.
OTHERS = (
    "gradio",
    "hydra",
    "lightning",
    "nn",
    "np",
    "numpy",
    "omegaconf",
    "PIL",
    "torch",
    "wandb",
    *sys.stdlib_module_names,
)
# What is imported for type checkers alone, and what a decorator passes on.
nitpick_ignore = [("py:class", name) for name in ("DictConfig", "Logger", "_Given")]
nitpick_ignore_regex = [
    ("py:obj", r".*"),
    ("py:.*", rf"({'|'.join(OTHERS)})\..*"),
    ("py:exc", r"CancelledError|ConfigLoadError|SIGTERMException"),
    # Half of a type, as napoleon splits it at its comma.
    ("py:class", r"(dict|list)\[.*"),
    # Of a module that runs as a process of its own, and has no page.
    ("py:class", r"deblur_lab\.wandb_process\.\w+"),
    # Type variables have no page.
    ("py:class", r"deblur_lab\.(.*\.)?(AnyMotion|Choice|Given|Kind|Made|Number|Result)"),
]

html_theme = "furo"
html_title = f"deblur_lab {release}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_domain_indices = False
html_last_updated_fmt = None
# Blocks that do not say what they are hold commands, folders and what commands print.
highlight_language = "text"
pygments_style = "friendly"
pygments_dark_style = "native"

# What is said of a constant or a property is a sentence: what precedes a colon in it is not its type.
GoogleDocstring._parse_attribute_docstring = GoogleDocstring._consume_to_end


def setup(app: Sphinx) -> None:
    """Sphinx calls this."""
    app.connect("source-read", _add_contents)
    app.connect("autodoc-skip-member", _skip)
    # Before napoleon.
    app.connect("autodoc-process-docstring", _tell_names_apart, priority=400)
    app.connect("autodoc-process-signature", _without_borrowed_arguments)
    app.connect("build-finished", _lead_to_the_front_page)


def _add_contents(app: Sphinx, page: str, source: list[str]) -> None:
    """Append the table of contents to the front page, which a code host would show as code."""
    if page == FRONT_PAGE:
        for caption, pages in CONTENTS:
            source[0] += "\n".join(("\n\n```{toctree}", ":hidden:", f":caption: {caption}", *pages, "```\n"))


def _tell_names_apart(
    app: Sphinx, what: str, name: str, documented: object, options: object, lines: list[str]
) -> None:
    """Arguments or attributes that are told of together, ``a, b: text``, on lines of their own."""
    told: list[str] = []
    number = 0
    while number < len(lines):
        together = re.fullmatch(r"(\s+)(\w+(?:, \w+)+)(: .*)", lines[number])
        if together is None:
            told.append(lines[number])
            number += 1
            continue
        indent, names, text = together.groups()
        end = number + 1
        while end < len(lines) and lines[end].startswith(f"{indent} "):
            end += 1
        for single in names.split(", "):
            told += [f"{indent}{single}{text}", *lines[number + 1 : end]]
        number = end
    lines[:] = told


def _skip(app: Sphinx, what: str, name: str, member: Any, skip: bool, options: Any) -> bool | None:  # noqa: ANN401
    """Leave out what only fulfils another project's interface, and says so."""
    return True if re.fullmatch(r"\w+'s\.", (getattr(member, "__doc__", None) or "").strip()) else None


def _without_borrowed_arguments(
    app: Sphinx,
    what: str,
    name: str,
    documented: object,
    options: object,
    signature: str | None,
    returns: str | None,
) -> tuple[str, str | None] | None:
    """What is no help to a reader, left out of a signature.

    A module without a constructor of its own takes nothing, whatever that of `torch.nn.Module` says. The
    range of an argument (`deblur_lab.ranges`) is told in words among the settings.
    """
    if what == "class" and re.fullmatch(r"\(\*args: \S*Any, \*\*kwargs: \S*Any\)", signature or ""):
        return "()", returns
    plain = re.sub(r"~?(?:typing\.)?Annotated\[([\w.~]+), [^\]]*\]", r"\1", signature or "")
    return (plain, returns) if signature else None


def _lead_to_the_front_page(app: Sphinx, failure: Exception | None) -> None:
    """The front page is made of README.md, and browsers ask for index.html."""
    if failure is None:
        page = app.builder.get_target_uri(FRONT_PAGE)
        lead = f'<meta http-equiv="refresh" content="0; url={page}"><title>{project}</title>'
        text = f'<!doctype html><meta charset="utf-8">{lead}<a href="{page}">{project}</a>\n'
        (Path(app.outdir) / "index.html").write_text(text, encoding="utf-8")
