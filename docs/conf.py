"""The site: `make docs` turns notebooks and Markdown, as they lie in the repository, into pages that need no network.

The repository's root is the source folder, so links that work between files work between pages. No notebook is run: pages
show the outputs that the notebooks keep. What a page adds is the reference of the module that its notebook exports.
"""
import importlib.util
import json
import re
from pathlib import Path

project, author, copyright = "tirnas", "The tirnas developers", "2026 onwards, the tirnas developers"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.mathjax"]
root_doc = "README"
include_patterns = ["*.md", "docs/*.md", "nbs/**.ipynb", "tirnas/models/README.md", "samples/README.md"]
exclude_patterns = [".*", "**/.*", "_docs", "build", "data", "prepared", "out", "runs", "checkpoints", "results", "scores", "workspace"]

html_theme = "furo"
html_title = "tirnas"
html_static_path = ["site.css", str(Path(importlib.util.find_spec("sphinx-mathjax-offline").origin).parent / "static/mathjax/tex-svg.js")]
html_css_files = ["site.css"]
html_copy_source = False
mathjax_path = "tex-svg.js"             # one file holds the program and its letters; the default is a server
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3
highlight_language = "text"             # of blocks in Markdown that name none
nb_execution_mode = "off"
nb_ipywidgets_js = {}                   # the default is a server
autodoc_default_options = {"members": True, "undoc-members": True, "member-order": "bysource", "exclude-members": "set"}
autodoc_typehints = "signature"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 110
add_module_names = False
default_role = "literal"                # docstrings are plain text with names in single backticks
suppress_warnings = ["mystnb.unknown_mime_type", "myst.xref_missing", "toc.not_readable"]

# From the shortest way in to the longest.
TUTORIALS = ("track_your_video", "bring_your_data", "compare_trackers", "reproduce_the_paper", "search_a_cell", "many_processors")

# Captions of the sidebar and the pages below each: a notebook's number is its layer.
LAYERS = {
    "Start": ["docs/guide", "docs/figures", "tirnas/models/README", "samples/README", "CONTRIBUTING", "CHANGELOG"], "Tutorials": [f"nbs/tutorials/{name}" for name in TUTORIALS],
    "Ground": ["nbs/0[0-4]*"], "Data": ["nbs/0[5-9]*", "nbs/10_*", "nbs/1[2-5]*"], "Simulator": ["nbs/10[a-z]*", "nbs/11*"],
    "Networks and search space": ["nbs/19*", "nbs/2*"], "Tracking network": ["nbs/3*"], "Search and training": ["nbs/40*", "nbs/41*", "nbs/42*"],
    "Online tracking": ["nbs/4[3-9]*", "nbs/5*"], "Evaluation": ["nbs/6*"], "Ways to use it": ["nbs/7*", "nbs/8*"],
    "Pipeline": ["nbs/stages/prepare", "nbs/stages/search", "nbs/stages/retrain", "nbs/stages/evaluate"],
}


def sidebar() -> str:
    "The site's tree as MyST: one hidden list a layer, whose pages are found by pattern."
    trees = (f"```{{toctree}}\n:hidden:\n:glob:\n:caption: {caption}\n\n" + "\n".join(pages) + "\n```" for caption, pages in LAYERS.items())
    return "\n\n" + "\n\n".join(trees)


def shown(cell: dict) -> bool:
    "Whether a reader needs the cell: not nbdev's and papermill's bookkeeping."
    text = "".join(cell["source"])
    hidden = cell["cell_type"] == "raw" or re.search(r"^#\|\s*(hide|default_exp)\b", text, re.M)
    return not hidden and bool(without_directives(text).strip())


def without_directives(text: str) -> str:
    "Code without its `#|` lines."
    return re.sub(r"^#\|.*\n?", "", text, flags=re.M)


def reference(module: str) -> dict:
    "A Markdown cell that stands for the signatures and docstrings of `tirnas.<module>`."
    text = f"## Reference: `tirnas.{module}`\n\n```{{eval-rst}}\n.. automodule:: tirnas.{module}\n```"
    return {"cell_type": "markdown", "id": "reference", "metadata": {}, "source": text}


def as_page(app, name: str, content: list[str]) -> None:
    "Turn what Sphinx has read of the file `name` into what it should show."
    if name == root_doc: content[0] += sidebar()
    if not name.startswith("nbs/"): return
    notebook = json.loads(content[0])
    code = "\n".join("".join(c["source"]) for c in notebook["cells"])
    notebook["cells"] = [c for c in notebook["cells"] if shown(c)]
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code": cell["source"] = without_directives("".join(cell["source"]))
    if exported := re.search(r"^#\|\s*default_exp (\S+)", code, re.M): notebook["cells"].append(reference(exported[1]))
    content[0] = json.dumps(notebook)


def as_text(app, what: str, name: str, obj, options, lines: list[str]) -> None:
    "Docstrings are no markup: stars, bars and trailing underscores outside backticks stand for themselves."
    lines[:] = [re.sub(r"`[^`]*`|[*|]|_(?!\w)", lambda m: m[0] if m[0][0] == "`" else "\\" + m[0], line) for line in lines]


def copy_start(app, error) -> None:
    "A server and a reader look for index.html; links within the start page are relative, so a copy will do."
    if not error: (Path(app.outdir) / "index.html").write_bytes((Path(app.outdir) / f"{root_doc}.html").read_bytes())


def setup(app) -> None:
    "Called by Sphinx."
    app.connect("source-read", as_page)
    app.connect("autodoc-process-docstring", as_text)
    app.connect("build-finished", copy_start)
