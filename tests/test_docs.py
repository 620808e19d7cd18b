"""Links in what people read lead somewhere, and the site asks nothing of the network."""
import ast
import json
import re
import sys
import urllib.parse
from html.parser import HTMLParser
from importlib.util import find_spec

import pytest
import yaml
from conftest import ROOT, shell, tracked_files

PAGES = [name for name in tracked_files() if name.suffix == ".md" or (name.suffix == ".ipynb" and name.parts[0] == "nbs")]
MISSING = [name for name in ("sphinx", "myst_nb", "furo", "sphinx-mathjax-offline") if not find_spec(name)]


def prose(path):
    "Markdown of a file or of a notebook's cells, without code: what is in backticks is no link."
    text = (ROOT / path).read_text()
    if path.suffix == ".ipynb":
        text = "\n\n".join("".join(c["source"]) for c in json.loads(text)["cells"] if c["cell_type"] == "markdown")
    return re.sub(r"`[^`\n]*`", "``", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))


def anchors(path):
    "Names that headings of a page answer to, on a forge and on the site: `# The fused cell` is #the-fused-cell."
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", (ROOT / path).read_text(), flags=re.M | re.S) if path.suffix == ".md" else prose(path), re.M)
    return {re.sub(r"[^\w\- ]", "", h.strip().lower()).replace(" ", "-") for h in headings}


def links(text):
    "Targets of Markdown links and pictures."
    return re.findall(r"\]\(<?([^)\s>]+)>?(?: \"[^\"]*\")?\)", text)


def dead(path):
    "Relative links of a page that lead nowhere."
    for link in links(prose(path)):
        file, _, anchor = urllib.parse.unquote(link).partition("#")
        if re.match(r"[a-z]+:", link): continue
        place = (ROOT / path.parent / file).resolve() if file else ROOT / path
        if not place.exists(): yield link
        elif anchor and anchor not in anchors(place.relative_to(ROOT)): yield link


def test_the_checker_sees_dead_links():
    assert links("[a](b.md) ![c](<d.png>) [e](f.md#g \"h\")") == ["b.md", "d.png", "f.md#g"]
    assert "licence" in anchors(ROOT.joinpath("README.md").relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_lead_somewhere(page):
    assert not list(dead(page))


def test_every_tutorial_is_in_the_sidebar():
    (named,) = [n.value for n in ast.parse((ROOT / "docs/conf.py").read_text()).body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "TUTORIALS"]
    assert sorted(ast.literal_eval(named)) == sorted(p.stem for p in ROOT.glob("nbs/tutorials/*.ipynb"))


def test_citation_names_software_and_paper():
    "The keys that version 1.2.0 of the format asks for, the package's own version, and the paper."
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= citation.keys() and citation["cff-version"] == "1.2.0"
    version = re.search(r'__version__ = "(.+)"', (ROOT / "tirnas/__init__.py").read_text())[1]
    assert str(citation["version"]) == version and f"## {version}" in (ROOT / "CHANGELOG.md").read_text()
    (paper,) = citation["references"]
    assert paper["identifiers"] == [{"type": "other", "value": "arXiv:2402.16570"}]
    assert all({"family-names", "given-names"} <= author.keys() for author in paper["authors"])


class Page(HTMLParser):
    "What a page loads (scripts, styles, pictures), where it points, and the names it can be pointed at."
    def __init__(self, text):
        super().__init__()
        self.loads, self.points, self.names = set(), set(), set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if "id" in attrs: self.names.add(attrs["id"])
        if tag in ("script", "img", "iframe", "source") and attrs.get("src"): self.loads.add(attrs["src"])
        if tag == "link" and attrs.get("rel") in ("stylesheet", "preload", "icon") and attrs.get("href"): self.loads.add(attrs["href"])
        if tag == "a" and attrs.get("href"): self.points.add(attrs["href"])


def is_outer(address):
    return bool(re.match(r"([a-z]+:)?//|mailto:", address))


def missing_from(page, address, pages):
    "Whether a relative address of a built page leads to no file, or to no name in it."
    file, _, name = urllib.parse.unquote(address).partition("#")
    place = (page.parent / file.partition("?")[0]).resolve() if file else page
    return not place.exists() or bool(name and place in pages and name not in pages[place].names)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    "The site with a few notebooks, one with formulas, one with a table, one with a widget; all of it is `make docs`."
    if MISSING: pytest.skip(f"{', '.join(MISSING)} not installed: pip install -e '.[docs]' -c constraints.txt")
    out = tmp_path_factory.mktemp("site")
    few = ["README.md", "C*.md", "docs/*.md", "tirnas/models/README.md", "nbs/01_boxes.ipynb", "nbs/31_filter.ipynb", "nbs/71_widgets.ipynb", "nbs/stages/search.ipynb"]
    run = shell(sys.executable, "-m", "sphinx", "-q", "-c", "docs", "-d", str(out / "trees"), "-D", f"include_patterns={','.join(few)}",
                "-D", "suppress_warnings=toc.glob,toc.not_readable,myst.xref_missing,mystnb.unknown_mime_type", ".", str(out / "html"), cwd=ROOT)
    assert run.returncode == 0, run.stderr
    assert "WARNING" not in (said := "\n".join(line for line in run.stderr.splitlines() if "toctree" not in line)), said
    return {path: Page(path.read_text()) for path in (out / "html").rglob("*.html")}


def test_site_is_whole_and_asks_no_network(site):
    for path, page in site.items():
        assert not [a for a in page.loads if is_outer(a)], path
        assert not [a for a in page.loads | page.points if not is_outer(a) and not a.startswith("data:") and missing_from(path, a, site)], path


def test_site_teaches_without_bookkeeping(site):
    (path,) = [p for p in site if p.name == "31_filter.html"]
    text = path.read_text()
    assert "#| " not in re.sub(r"<[^>]+>", "", text) and "nbdev_export" not in text
    assert {"reference-tirnas-dimp-filter", "tirnas.dimp.filter.apply_filter"} <= site[path].names
    assert "tex-svg.js" in text and '<span class="math' in text and "_images" in text
    assert (path.parents[1] / "index.html").read_text() == (path.parents[1] / "README.html").read_text()


def test_the_moving_picture_is_what_its_command_makes(tmp_path):
    "Every twentieth frame of the sequence, the first with its given box in white; the README's own is small enough to load."
    from PIL import Image
    run = shell(sys.executable, "docs/make_gif.py", str(tmp_path / "track.gif"), "--model", "mini", "--step", "20", cwd=ROOT)
    assert run.returncode == 0, run.stderr
    picture = Image.open(tmp_path / "track.gif")
    x, y, w, h = (float(v) for v in (ROOT / "samples/person_field_07/groundtruth.txt").read_text().split("\n")[0].split(","))
    edge = picture.convert("RGB").getpixel((round(x + w / 2 - 1), round(y + h - 1)))      # the box's lower one
    assert picture.n_frames == 5 and picture.size == (320, 240) and min(edge) > 200
    assert (ROOT / "docs/track.gif").stat().st_size < 1.5e6
