"""What comes from elsewhere stays where it belongs: no file is run, none written outside the output folder, no name becomes markup."""
import ast
import json
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
import textwrap
import warnings
import zipfile
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import ROOT
from test_fuzz import PARAMS, an_index, model, picture  # noqa: F401
from typer.testing import CliRunner

from tirnas.browse import facts_html
from tirnas.bundle import read_bundle
from tirnas.cli import app
from tirnas.core import UserError, load_params, load_state, resume_state, write_atomic
from tirnas.data.annotations import read_boxes, read_objects
from tirnas.names import LONGEST_NAME, check_name, is_plain, made_plain
from tirnas.data.layouts import Place
from tirnas.data.places import find_places
from tirnas.data.prepare import PrepareParams, load_index
from tirnas.data.scenes import random_scene, read_scene
from tirnas.data.sequences import Sequence, open_dataset, write_attributes, write_boxes, write_sequence
from tirnas.data.synthetic import film_to
from tirnas.dimp.card import load_card, load_model
from tirnas.nets.genotype import Genotype
from tirnas.nets.pretrained import BackboneSettings, load_pretrained, make_backbone, read_weights
from tirnas.notes import read_note
from tirnas.player import told
from tirnas.results import read_rows
from tirnas.tracker import Tracker
from tirnas.trackers import Contender
from tirnas.vot import write_workspace
from tirnas.watch import invent_history, read_history, summarise
from tirnas.widgets import status_html

pytestmark = pytest.mark.filterwarnings("ignore")
MODULES = sorted((ROOT / "tirnas").rglob("*.py")) + sorted((ROOT / "benchmarks").glob("*.py")) + sorted((ROOT / "docs").glob("*.py"))


# Nothing in a file is run

RUNNERS = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
ARCHIVES = {"zipfile", "tarfile", "gzip", "bz2", "lzma", "zipimport", "py7zr", "rarfile"}
MAY = {("nets/pretrained.py", "import pickle"): "it names pickle.UnpicklingError", ("nets/pretrained.py", "pickle.UnpicklingError"): "an error",
       **{("workers.py", what): "pipes between a process and its own workers, no file" for what in ("import pickle", "pickle.dumps", "pickle.loads")},
       ("trackers.py", "exec_module"): "the tracker that the user names, as code, on the command line"}


def dotted(node):
    if isinstance(node, ast.Attribute): return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def dangers(tree):
    "What in a module's syntax tree can run what a file holds, or unpack one."
    for node in ast.walk(tree):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        yield from (f"import {name}" for name in names if name.split(".")[0] in RUNNERS | ARCHIVES)
        if isinstance(node, ast.Attribute) and node.attr == "exec_module": yield "exec_module"
        if isinstance(node, ast.Attribute) and dotted(node).split(".")[0] in RUNNERS: yield dotted(node)
        if not isinstance(node, ast.Call): continue
        name, given = dotted(node.func), {k.arg: k.value for k in node.keywords}
        is_true = lambda key: isinstance(given.get(key), ast.Constant) and given[key].value is True
        if name in ("eval", "exec", "compile", "__import__", "os.system", "os.popen", "yaml.load", "yaml.load_all", "yaml.full_load", "yaml.unsafe_load"): yield name
        if name.endswith(("read_pickle", "unpack_archive", "extractall", "jit.load", "hub.load", "safe_globals", "add_safe_globals")): yield name
        if name.startswith("yaml.") and name.endswith("Loader") and name not in ("yaml.SafeLoader", "yaml.CSafeLoader"): yield name
        if name == "torch.load" and not is_true("weights_only"): yield "torch.load without weights_only=True"
        if name in ("np.load", "numpy.load") and "allow_pickle" in given: yield "np.load with allow_pickle"
        if is_true("shell"): yield "a shell"


def test_nothing_can_run_what_a_file_holds():
    found = {(path.relative_to(ROOT / "tirnas" if ROOT / "tirnas" in path.parents else ROOT).as_posix(), what)
             for path in MODULES for what in dangers(ast.parse(path.read_text(encoding="utf8")))}
    assert found == set(MAY), "new here, or gone"


@pytest.mark.parametrize("line", ("import pickle", "from pickle import loads", "import tarfile as t", "eval('1')", "torch.load(f)", "torch.load(f, weights_only=False)",
                                  "np.load(f, allow_pickle=True)", "yaml.load(f, yaml.Loader)", "yaml.Loader(f)", "shutil.unpack_archive(f)", "import shelve",
                                  "subprocess.run(c, shell=True)", "pd.read_pickle(f)", "joblib.load(f)", "torch.serialization.add_safe_globals([x])"))
def test_the_search_for_them_finds_them(line):
    assert list(dangers(ast.parse(line))) or line.startswith("joblib") and list(dangers(ast.parse(f"import joblib\n{line}")))


class Bomb:
    "Makes a folder when it is unpickled."
    def __init__(self, mark): self.mark = mark
    def __reduce__(self): return os.mkdir, (self.mark,)


def pickles(mark):
    "Files that run code when they are unpickled, or built by YAML, by what they are."
    home = Path(mark).parent / "made"
    home.mkdir()
    torch.save({"w": Bomb(mark)}, home / "zip")
    torch.save({"w": Bomb(mark)}, home / "old", _use_new_zipfile_serialization=False)
    np.save(home / "npy", np.array([Bomb(mark)], dtype=object), allow_pickle=True)
    kinds = {"pickle": pickle.dumps(Bomb(mark)), "text pickle": pickle.dumps({"a": Bomb(mark)}, protocol=0), "torch": (home / "zip").read_bytes(),
             "old torch": (home / "old").read_bytes(), "numpy": (home / "npy.npy").read_bytes(),
             "yaml": f"!!python/object/apply:os.mkdir [{mark}]".encode(), "yaml value": f"mini: {{a: !!python/object/apply:os.mkdir ['{mark}']}}".encode()}
    return kinds


READERS = {"model": load_model, "card": load_card, "tracker": Tracker.load, "checkpoint": load_state, "checkpoint to resume": lambda path: resume_state(path, "x"),
           "genotype": Genotype.load, "params": lambda path: load_params(PrepareParams, "prepare", "mini", path), "scene": read_scene, "boxes": read_boxes, "results": read_rows,
           "history": read_history, "weights": read_weights, "tracks": read_objects,
           "weights of a backbone": lambda path: load_pretrained(make_backbone("resnet18", None, None), BackboneSettings("resnet18", str(path))),
           "run.json": lambda path: read_note(shutil.copy(path, path.parent / "run.json") and path.parent),
           "graphs": lambda path: read_bundle(shutil.copy(path, path.parent / "card.json") and path.parent),
           "index": lambda path: load_index(shutil.copy(path, path.parent / "index.json") and path.parent, "train")}


@pytest.mark.parametrize("suffix", (".pth", ".pt", ".safetensors", ".json", ".yaml", ".txt"))
def test_a_pickle_is_never_unpickled(tmp_path, suffix):
    mark = tmp_path / "it ran"
    for kind, data in pickles(str(mark)).items():
        (tmp_path / "files").mkdir(exist_ok=True)
        path = tmp_path / "files" / f"x{suffix}"
        path.write_bytes(data)
        for what, read in READERS.items():
            try: read(path)
            except UserError: pass
            else: raise AssertionError(f"{kind} was read as {what}")
            assert not mark.exists(), f"{kind} given as {what}"
    with pytest.raises(FileNotFoundError): mark.rmdir()
    pickle.loads(data if suffix is None else pickle.dumps(Bomb(str(mark))))
    assert mark.is_dir(), "the bomb is one"


def test_commands_do_not_unpickle(tmp_path):
    mark = tmp_path / "it ran"
    kinds = pickles(str(mark))
    picture(tmp_path / "data" / "walk" / "img" / "1.png")
    for name in ("x.pth", "x.safetensors"):
        path = tmp_path / name
        path.write_bytes(kinds["torch"])
        refused("track", tmp_path / "data" / "walk" / "img", "--box", "1,2,9,9", "--model", path, "--out", tmp_path / "boxes.txt")
        refused("cost", path)
        refused("run", "--data", ROOT / "samples", "--tracker", path, "--out", tmp_path / "results")
        refused("export", "--model", path, "--out", tmp_path / "graphs")
        refused("simulate", tmp_path / "scenes", "--scene", path)
    assert not mark.exists() and not (tmp_path / "boxes.txt").exists()


# Archives

def hostile_archives(folder):
    "A zip and a tar file that would write outside, by `..`, by an absolute name and through a link."
    outside = folder / "outside"
    with zipfile.ZipFile(folder / "set.zip", "w") as z:
        for name in ("../outside/evil.txt", str(outside / "evil.txt"), "walk/groundtruth.txt"): z.writestr(name, "1,2,3,4\n")
    (folder / "way").symlink_to(outside)
    with tarfile.open(folder / "set.tar.gz", "w:gz") as t:
        t.add(folder / "way", "way")
        t.add(folder / "set.zip", "way/evil.txt")
        t.add(folder / "set.zip", "../outside/evil.txt")
    return folder / "set.zip", folder / "set.tar.gz"


def test_archives_are_refused_and_not_unpacked(tmp_path):
    for archive in hostile_archives(tmp_path):
        before = listing(tmp_path)
        refused("run", "--data", archive, "--tracker", "constant", "--out", tmp_path / "results", say="is an archive: unpack it")
        refused("track", archive, "--box", "1,2,3,4", "--out", tmp_path / "b.txt", say="is an archive: unpack it")
        refused("data", "list", archive, say="is an archive: unpack it")
        refused("evaluate", "--data", archive, "--results", tmp_path, "--out", tmp_path / "report")
        assert listing(tmp_path) == before


# Names

NASTY = ("../../evil", "/evil", "a/b", "a\\b", "..", ".", "", "a\nb", "a\0b", "\udcff", "x" * (LONGEST_NAME + 1), "\u2028")
ODD = ("-rf", ".hidden", "walk;ls", "$(touch x)", "Wärme β", "追", "<script>alert(1)</script>"[:7], "a b", "x" * LONGEST_NAME, "%s", "{0}", "*")


def listing(folder):
    "All that is in a folder, with the content of files."
    return {path: os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None for path in sorted(Path(folder).rglob("*"))}


def told_of(words):
    "What a command answers, here in this process; a UserError is exit code 2."
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return CliRunner().invoke(app, list(map(str, words)))


def refused(*words, say=""):
    run = told_of(words)
    assert isinstance(run.exception, UserError) or run.exit_code == 2, (words, run.exit_code, run.output, run.exception)
    assert say in str(run.exception), run.exception


@pytest.mark.parametrize("name", NASTY)
def test_nasty_names_are_refused_by_all_that_files_by_names(name, tmp_path):
    assert not is_plain(name) and is_plain(made_plain(name))
    for make in (lambda: check_name(name, "x"), lambda: Place("otb", name, "/d", "/d/x"), lambda: Sequence(name, (), np.zeros((0, 4))),
                 lambda: Sequence("a", (), np.zeros((0, 4))).replace(name=name), lambda: Contender.of("constant", name)):
        with pytest.raises(UserError, match="cannot be the name of") as error: make()
        assert len(str(error.value).splitlines()) == 1 and str(error.value).isascii()


@pytest.mark.parametrize("name", ODD)
def test_odd_names_are_names(name):
    assert is_plain(name) and made_plain(name).strip(".") == name.strip(".") and check_name(name, "x") == name


def vid_set(home, tracks):
    "An LSOTB-TIR training set of one video of two frames with these tracks."
    for t in range(2):
        picture(home / "TrainingData" / "v" / f"{t}.png")
        objects = "".join(f"<object><trackid>{track}</trackid><bndbox><xmin>{9 + i}</xmin><ymin>9</ymin><xmax>{30 + i}</xmax><ymax>40</ymax></bndbox></object>"
                          for i, track in enumerate(tracks))
        path = home / "Annotations" / "v" / f"{t}.xml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"<annotation>{objects}</annotation>")
    return home


TRACKS = ("../../../../evil", "/evil", "..", "a\\b", "&#10;evil", "&#x2028;", "x" * 300, "<![CDATA[<b>]]>", "-rf", "a/b/c", "a_b_c")


def test_names_of_tracks_do_not_lead_out(tmp_path):
    data, home = vid_set(tmp_path / "in" / "data", TRACKS), tmp_path / "in"
    before = listing(tmp_path)
    names = [s.name for s in open_dataset(data)]
    assert len(set(names)) == len(names) == len(TRACKS) and all(map(is_plain, names))
    run = told_of(("run", "--data", data, "--tracker", "constant", "--out", home / "results"))
    assert run.exit_code == 0, run.output
    with warnings.catch_warnings(): assert write_workspace(home / "workspace", open_dataset(data), ["constant"])
    made = set(listing(tmp_path)) - set(before)
    assert all(home / "results" in (path, *path.parents) or home / "workspace" in (path, *path.parents) for path in made)
    assert {p.stem for p in (home / "results" / "constant").glob("*.txt")} >= set(names)
    assert (home / "workspace" / "sequences" / "list.txt").read_text().splitlines() == names
    assert {path: content for path, content in listing(tmp_path).items() if path in before} == before


def otb(folder, name="s", number=3):
    boxes = np.tile([8.0, 8, 20, 30], (number, 1))
    return write_sequence(folder / name, [np.full((48, 64), 90 + t, np.uint8) for t in range(number)], boxes)


def test_lists_do_not_lead_out(tmp_path):
    "A list.txt with `..`, absolute names, repeats and NULs: each folder once, under its own name, none outside."
    data = tmp_path / "data"
    otb(tmp_path, "outside"), otb(data, "a"), otb(data / "deep", "b")
    (data / "list.txt").write_text("a\n./a\na/../a\n..\n../outside\n.\n/etc\ndeep/b\ndeep/../../outside\na\0b\n\u2028\n" + ".\n" * 500 + "./.\n" * 500)
    (data / "deep" / "list.txt").write_text("..\n../deep\n" * 50)
    assert sorted(p.name for p in find_places(data)) == ["a", "b"]


def test_folders_with_names_that_cannot_be_written_are_left_out(tmp_path):
    data = tmp_path / "data"
    otb(data, "fine"), otb(data, "-rf")
    for name in ("a\nb", "\udcff", "x" * (LONGEST_NAME + 1), "a\\b"): otb(data, name) if name != "\udcff" else shutil.copytree(data / "fine", data / name)
    with pytest.warns(UserWarning, match="cannot be the name of a sequence and is left out"): places = find_places(data)
    assert sorted(p.name for p in places) == ["-rf", "fine"]
    with pytest.raises(UserError, match="cannot be the name of a sequence"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        find_places(data / "a\nb")
    run = told_of(("run", "--data", data, "--tracker", "constant", "--out", tmp_path / "results"))
    assert run.exit_code == 0 and {p.name for p in (tmp_path / "results" / "constant").iterdir()} >= {"-rf.txt", "fine.txt"}
    refused("evaluate", "--data", data, "--results", tmp_path / "results", "--out", tmp_path / "report", say="cannot be the name of a sequence")


def test_an_index_does_not_lead_out(tmp_path):
    otb(tmp_path, "a")
    _, index = an_index(tmp_path)
    (tmp_path / "prepared").mkdir()
    for key, values in {"name": NASTY, "frames": ("../x", "/etc", "a/../../x", 5), "truth": ("/etc/passwd", ["a"]), "root": ("", None), "origin": (7, "1", True)}.items():
        for value in values:
            entry = {**index["train"][0], "place": {**index["train"][0]["place"], key: value}}
            (tmp_path / "prepared" / "index.json").write_text(json.dumps({"train": [entry]}))
            with pytest.raises(UserError, match="index.json cannot be understood: run the prepare stage again"): load_index(tmp_path / "prepared", "train")


@pytest.mark.parametrize("name", [name for name in NASTY if "\0" not in name])
def test_names_of_trackers_do_not_lead_out(tmp_path, name):
    otb(tmp_path / "data")
    before = listing(tmp_path)
    refused("run", "--data", tmp_path / "data", "--tracker", "constant", "--out", tmp_path / "results", f"--name={name}", say="cannot be the name of a folder of results")
    assert listing(tmp_path) == before


def test_results_of_a_tracker_with_an_unfit_name_are_refused(tmp_path):
    otb(tmp_path / "data")
    write_boxes(tmp_path / "results" / "a\nb" / "s.txt", [[1, 2, 3, 4]] * 3)
    refused("evaluate", "--data", tmp_path / "data", "--results", tmp_path / "results", "--out", tmp_path / "report", say="cannot be the name of a tracker")
    assert not (tmp_path / "report").exists()


def test_words_that_are_too_long(tmp_path):
    "Exit code 2 and one sentence from the program itself."
    long = "x" * 300
    otb(tmp_path / "data")
    for words in (("run", "--data", long, "--tracker", "constant", "--out", "r"), ("run", "--data", "data", "--tracker", long, "--out", "r"),
                  ("evaluate", "--data", "data", "--results", long, "--out", "r"), ("run", "--data", "data", "--tracker", "constant", "--out", long)):
        code = f"import sys; sys.argv = {['tirnas', *words]!r}; from tirnas.cli import main; main()"
        run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, text=True, capture_output=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
        assert run.returncode == 2 and "Traceback" not in run.stderr, (words, run.stderr)
        assert sum(line.startswith("tirnas: ") for line in run.stderr.splitlines()) == 1


# Links

def test_links_in_an_output_folder_are_replaced_or_refused_and_never_followed(tmp_path):
    data, outside, out = tmp_path / "data", tmp_path / "outside", tmp_path / "out"
    otb(data), outside.mkdir(), out.mkdir()
    (outside / "precious").write_text("mine")
    (outside / "00000009.jpg").write_text("mine")
    before = listing(outside)
    (out / "constant").symlink_to(outside)
    refused("run", "--data", data, "--tracker", "constant", "--out", out, say="is a link that leads out")
    (out / "constant").unlink(), (out / "constant").mkdir()
    for name in ("s.txt", "run.json"): (out / "constant" / name).symlink_to(outside / "precious")
    (out / "constant" / "run_01").symlink_to(outside)
    refused("run", "--data", data, "--tracker", "constant", "--out", out, "--repeat", "2", say="is a link that leads out")
    (out / "constant" / "run_01").unlink(), (out / "constant" / "run.json").unlink(), (out / "constant" / "s.txt").unlink()
    for name in ("s_time.txt", "s_confidence.txt"): (out / "constant" / name).symlink_to(outside / "precious")
    (out / "constant" / "s_time.txt").unlink(), (out / "constant" / "s_confidence.txt").unlink()
    (out / "boxes.txt").symlink_to(outside / "precious")
    write_boxes(out / "boxes.txt", [[1, 2, 3, 4]])
    work = tmp_path / "work" / "sequences" / "s"
    (work / "color").mkdir(parents=True)
    (work / "color" / "00000001.jpg").symlink_to(outside / "precious")
    write_workspace(tmp_path / "work", open_dataset(data), ["constant"])
    shutil.rmtree(work / "color")
    (work / "color").symlink_to(outside)
    with pytest.raises(UserError, match="is a link, and what it leads to would be overwritten"): write_workspace(tmp_path / "work", open_dataset(data), ["constant"])
    scenes = tmp_path / "scenes"
    scenes.mkdir()
    (scenes / "s").symlink_to(outside)
    with pytest.raises(UserError, match="were not made here"): film_to(scenes, "s", random_scene(1, 2))
    (scenes / "s").unlink()
    (scenes / ".s.partial").symlink_to(outside)
    assert film_to(scenes, "s", random_scene(1, 2)) and (scenes / "s" / "groundtruth.txt").is_file()
    assert listing(outside) == before and not (out / "boxes.txt").is_symlink()


def test_links_in_circles_end(tmp_path):
    "Folders that link to one another: each is looked at once, whatever way leads to it."
    for set_ in ("vid", "stills"):
        homes = [tmp_path / set_ / ("Annotations" if set_ == "vid" else "labels") / f"labels{i}" for i in range(8)]
        for home in homes: home.mkdir(parents=True)
        for home in homes:
            for other in homes: (home / f"labels_{other.name}").symlink_to(other)
    vid_set(tmp_path / "vid", ["0"])
    assert len(find_places(tmp_path / "vid", "lsotb-tir-train")) == 1
    picture(tmp_path / "stills" / "a.png")
    assert [p.layout for p in find_places(tmp_path / "stills")] == ["images"]


# Files that are larger than they look

BOMBS = """
import json, resource, struct, sys, zlib
from pathlib import Path
import numpy as np, torch, yaml
from tirnas.core import UserError, load_params, load_state
from tirnas.data.annotations import read_track_names
from tirnas.data.detections import find_detections, read_detections
from tirnas.data.frames import read_image
from tirnas.data.prepare import PrepareParams
from tirnas.dimp.card import load_model
from tirnas.nets.genotype import Genotype
home, model = Path(sys.argv[1]), Path(sys.argv[2])

def header_changed(**change):
    data = model.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8:8 + size])
    card = json.loads(header["__metadata__"]["tirnas"])
    for group, values in change.items(): card[group] = {**card[group], **values} if isinstance(values, dict) else values
    header["__metadata__"]["tirnas"] = json.dumps(card)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + size:]

def png(side):
    chunk = lambda kind, content: struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    return b"\\x89PNG\\r\\n\\x1a\\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 16, 6, 0, 0, 0)) + chunk(b"IDAT", zlib.compress(bytes(10 ** 6))) + chunk(b"IEND", b"")

doubled = "\\n".join(["a0: &a0 {x: 1}", *(f"a{k}: &a{k} {{<<: [{', '.join([f'*a{k - 1}'] * 12)}]}}" for k in range(1, 9)), "mini: *a8"])
nested = "\\n".join(["a0: &a0 [x]", *(f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 12)}]" for k in range(1, 9)), "recipe: *a8", "mini: {prepare: *a8}", "names: *a8"])
params = lambda path: load_params(PrepareParams, "prepare", None, path)
files = {
    "yaml merges": (doubled.encode(), params), "yaml lists": (nested.encode(), params), "yaml circle": (b"&a {mini: *a, recipe: mini}", params),
    "yaml number": (b"mini: {prepare: {seed: 0x" + b"f" * 10 ** 6 + b"}}", params), "yaml size": (b"- a\\n" * 10 ** 6, params),
    "json levels": (b"[" * 10 ** 6, Genotype.load), "json closed": (b"[" * 900 + b"]" * 900, Genotype.load),
    "header size": ((2 ** 62).to_bytes(8, "little") + b"{}", load_state), "tensor size": (b"", load_state),
    "cells": (header_changed(macro={"cells": 10 ** 9}), load_model), "channels": (header_changed(macro={"channels": 10 ** 9}), load_model),
    "head": (header_changed(heads={"cls_dim": 10 ** 12}), load_model), "crop": (header_changed(crop_px=10 ** 9), load_model),
    "samples": (header_changed(track={"memory": {"size": 10 ** 12}}), load_model), "steps": (header_changed(track={"first_steps": 10 ** 15}), load_model),
    "png": (png(30_000), read_image),
}
claim = json.dumps({"a": {"dtype": "F32", "shape": [2 ** 40], "data_offsets": [0, 2 ** 42]}, "__metadata__": {"state": "{}"}}).encode()
files["tensor size"] = (len(claim).to_bytes(8, "little") + claim, load_state)
torch.zeros(1)
now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + 2 ** 29,) * 2)
for name, (data, read) in files.items():
    path = home / "bomb"
    path.write_bytes(data)
    try: read(path)
    except UserError as e: assert len(str(e)) < 1000, (name, len(str(e)))
    else: raise SystemExit(f"{name} was read")
(home / "bomb").write_bytes(b"<annotation><object><trackid>" + b" " * 20_000 + b"<x/></object></annotation>")
try: read_track_names(home / "bomb")
except UserError: pass
(home / "set" / "labels").mkdir(parents=True)
(home / "set" / "notes.xml").write_bytes(b"<annotation> " * 5000 + b"<trackid>" * 2)
assert find_detections(home / "set") is None
(home / "set" / "data.yaml").write_text(nested)
(home / "set" / "labels" / "a.txt").write_text("0 .5 .5 .1 .1\\n")
(home / "set" / "a.png").write_bytes(model.with_name("a.png").read_bytes())
assert read_detections(home / "set", "yolo")[0].labels == ("0",)
print("all held")
"""


def test_small_files_that_claim_to_be_large(tmp_path, model):  # noqa: F811
    "Half a gigabyte is all that a process may take more for them; one that never ended would be ended here."
    (tmp_path / "m.safetensors").write_bytes(model)
    picture(tmp_path / "a.png")
    run = subprocess.run([sys.executable, "-c", BOMBS, str(tmp_path), str(tmp_path / "m.safetensors")], cwd=ROOT, text=True, capture_output=True, timeout=300)
    assert run.stdout.strip() == "all held", run.stderr[-2000:]


# Markup

class Shape(HTMLParser):
    "What a browser would make of a page: its elements with the names of their attributes, and the text."

    def __init__(self, page):
        super().__init__()
        self.elements, self.values, self.text = Counter(), [], ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements[tag, tuple(name for name, _ in attrs)] += 1
        self.values += [(name, value) for name, value in attrs]

    def handle_data(self, data): self.text += data
    def handle_decl(self, decl): self.elements["declaration", decl] += 1
    def handle_comment(self, data): self.elements["comment", data] += 1


MARKUP = ("<script>alert(1)<", "\"><img src=x onerror=alert(1)>", "' onmouseover='x", "<!--", "&lt;b&gt;&amp;", "]]><svg onload=x>", "$x_1$ `a` *b*|")


def marked_set(home, names):
    "A VOT data set and results whose sequences, attributes and tracker bear these names."
    for number, name in enumerate(names):
        boxes = np.tile([8.0 + number, 8, 20, 30], (12, 1))
        folder = write_sequence(home / "data" / name, [np.full((48, 64), 90 + t, np.uint8) for t in range(12)], boxes, origin=0)
        for tag in names: (folder / f"{tag}.tag").write_text("1\n" * 12)
        (folder / "occlusion.tag").write_text("1\n" * 12)
        for shift, tracker in enumerate(names[:2]):
            write_boxes(home / "results" / tracker / f"{name}.txt", boxes + [40 * shift, 0, 0, 0])
    write_boxes(home / "results" / names[0] / f"{names[0]} of none.txt", boxes)
    write_atomic(home / "results" / names[0] / "run.json", json.dumps({"source": names[0], "refused": {names[0]: names[1]}, "parameters": 5}))
    return home


def test_names_in_a_report_are_text(tmp_path):
    plain = tuple(f"name{i}" for i in range(len(MARKUP)))
    pages = {}
    for kind, names in (("plain", plain), ("nasty", MARKUP)):
        home = marked_set(tmp_path / kind, names)
        run = told_of(("evaluate", "--data", home / "data", "--results", home / "results", "--out", home / "report"))
        assert run.exit_code == 0, (run.output, run.exception)
        pages[kind] = Shape((home / "report" / "report.html").read_text(encoding="utf8"))
        assert {p.name for p in (home / "report").iterdir()} >= {"report.html", "scores.json", "scores.md", "success.csv"}
    assert pages["nasty"].elements == pages["plain"].elements, "no element, attribute or comment comes from a name"
    assert all(name in pages["nasty"].text for name in MARKUP)
    assert not [v for name, v in pages["nasty"].values if name.startswith("on") or name in ("href", "style")]
    assert all(v.startswith("data:image/png;base64,") for name, v in pages["nasty"].values if name == "src")
    table = (tmp_path / "nasty" / "report" / "scores.md").read_text(encoding="utf8")
    assert "<" not in table.replace("<ins>", "").replace("</ins>", "") and all(len(line) == len(table.splitlines()[0]) for line in table.splitlines())


def test_names_in_widgets_are_text(tmp_path):
    frame = tmp_path / "1.png"
    picture(frame)
    for name in MARKUP:
        sequence = Sequence(name, [frame], np.array([[1.0, 2, 3, 4]]), frozenset({name}))
        history = invent_history(3)
        history[-1]["warnings"] = [name]
        for page, tags in ((facts_html(sequence), {"b", "br", "i"}), (told(name, bad=True), {"span"}), (status_html(history, 1.0), None)):
            shape = Shape(page)
            assert name in shape.text
            if tags: assert {tag for tag, _ in shape.elements} == tags
            else: assert shape.elements == Shape(status_html([*history[:-1], {**history[-1], "warnings": ["x"]}], 1.0)).elements
        assert not Shape(summarise(history)).elements, "a summary is Markdown, in which markup would count"
