"""Build the pages of docs/ as a site with search: `make docs`.

The pages are plain Markdown that reads as well on GitHub, so their order is here.
"""

from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx

HERE = Path(__file__).parent
MERMAID = HERE / "node_modules" / "mermaid" / "dist" / "mermaid.min.js"
# Each folder of pages with its title and the order of its pages.
NAVIGATION = {
    "start": ("Start", "index import clients demo"),
    "marketer": ("Marketer", "index staff prefect simulation reports experiments"),
    "journeys": ("Journeys", "index steps templates segments traits personas policy"),
    "operate": (
        "Operate",
        "index deploy providers webhooks customer-pages monitoring troubleshooting faults security "
        "profiles matching privacy upgrades scale",
    ),
    "reference": ("Reference", "command-line settings http decide glossary"),
    "how-it-works": ("How it works", "index architecture lifecycles benchmarks dependencies"),
}

project = "Segue"
html_title = "Segue"
extensions = ["myst_parser"]
root_doc = "index"
exclude_patterns = ["site", "requirements.lock"]
html_theme = "furo"
# Without npm there is no Mermaid, and pages show the text of their diagrams.
html_static_path = [str(path) for path in (HERE / "static", MERMAID) if path.exists()]
html_css_files = ["site.css"]
html_show_sphinx = False
html_show_copyright = False
# Summaries are fetched, which browsers refuse for pages that are files.
html_show_search_summary = False
html_copy_source = False
html_theme_options = {"top_of_page_buttons": []}
myst_heading_anchors = 4
myst_fence_as_directive = {"mermaid"}
nitpicky = True


class Mermaid(Directive):
    """A diagram, which mermaid.min.js draws in the browser."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        text = escape("\n".join(self.content))
        return [nodes.raw("", f'<pre class="mermaid">{text}</pre>', format="html")]


def add_navigation(_app: Sphinx, name: str, source: list[str]) -> None:
    """Append the tables of contents, which GitHub would show as code."""
    if name == root_doc:
        for folder, (title, pages) in NAVIGATION.items():
            source[0] += tree(title, [f"{folder}/{page}" for page in pages.split()])
        source[0] += tree("Decisions", ["decisions/*"], glob=True)


def tree(caption: str, pages: list[str], *, glob: bool = False) -> str:
    options = ":hidden:\n" + (":glob:\n" if glob else "")
    return f"\n\n```{{toctree}}\n:caption: {caption}\n{options}\n" + "\n".join(pages) + "\n```\n"


def add_diagrams(
    app: Sphinx, _page: str, _template: str, context: dict[str, Any], _doctree: nodes.document
) -> None:
    """Load Mermaid on pages with diagrams only; it is large."""
    if 'class="mermaid"' in context.get("body", ""):
        app.add_js_file("mermaid.min.js")
        app.add_js_file("diagrams.js")


def setup(app: Sphinx) -> None:
    app.add_directive("mermaid", Mermaid)
    app.connect("source-read", add_navigation)
    app.connect("html-page-context", add_diagrams)
