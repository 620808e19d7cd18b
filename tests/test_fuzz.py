"""Every parser of files that come from elsewhere, fed with spoilt files: it reads them or says in a UserError what is wrong.

Valid files are cut, flipped, repeated, filled with odd numbers, nested and given other values, and plain noise is read too.
`TIRNAS_FUZZ=100000 python -m pytest -s tests/test_fuzz.py` reads so many inputs a parser, new ones each time, and prints how
many were read and how many refused; without it a short run reads the same ones each time."""
import dataclasses
import json
import os
import random
import re
import resource
import time
import warnings
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from tirnas import vot
from tirnas.boxes import parse_box
from tirnas.bundle import GRAPHS, BundleCard, digest, read_bundle, write_bundle
from tirnas.core import UserError, load_params, load_state, save_state
from tirnas.data import places, prepare
from tirnas.data.annotations import (read_attributes, read_boxes, read_flags, read_objects, read_tags, read_track, read_track_names,
                                     read_truth)
from tirnas.data.check import check_place
from tirnas.data.detections import find_detections, read_detections
from tirnas.data.frames import image_size, read_image
from tirnas.data.places import find_places
from tirnas.data.prepare import PrepareParams
from tirnas.data.scenes import random_scene, read_scene, write_scene
from tirnas.data.sequences import Sequence
from tirnas.dimp.card import ModelCard, load_card, load_model, save_model
from tirnas.dimp.net import HeadSettings
from tirnas.dimp.online import TrackSettings
from tirnas.nets.cells import Macro
from tirnas.nets.genotype import Genotype, genotype_from_dict, random_genotype
from tirnas.nets.pretrained import read_weights
from tirnas.notes import note_remarks, read_note
from tirnas.results import read_numbers, read_rows, read_seconds
from tirnas.scoring import load_truth
from tirnas.watch import invent_candidates, invent_history, read_history

MANY = int(os.environ.get("TIRNAS_FUZZ", 0))
FUZZ = settings(max_examples=max(MANY // 100, 1) if MANY else 60, derandomize=not MANY, database=None, deadline=None, print_blob=True,
                suppress_health_check=list(HealthCheck))

# What is put into a file: numbers at and beyond the edge, signs that end or begin something, nests and bombs
TOKENS = [b"nan", b"inf", b"-inf", b"1e999", b"-1", b"-0", b"0", b"1e-320", b"9" * 40, b"9" * 400, b"9" * 5000, b"0x" + b"f" * 5000, b"1_0",
          b"1,5", b"\0", b"\xef\xbb\xbf", b"\xff\xfe", b"\r\n", b"\r", b"\n", b"\n\n", b" ", b"\t", b";", b",", b"\"", b"'", b":", b"-", b"#",
          "\u2028".encode(), "\u0663".encode(), "\u2212".encode(), "😀".encode(), b"\xff", b"\xed\xa0\x80", b"\\ud800", b"\\u0000", b"../../x",
          b"/etc/x", b"..", b".", b"a\\b", b"<script>", b"&", b"&amp;", b"&#10;", b"&x;", b"true", b"null", b"NaN", b"-Infinity", b"{}", b"[]", b"[" * 150, b"[" * 2000,
          b"{\"a\":" * 500, b"[" * 490 + b"]" * 490, b"[" * 700 + b"]" * 700, b"- " * 400, b"<a>" * 2000, b"*a", b"&a [*a, *a]", b"<<: *a",
          b"!!python/object/apply:os.abort []", b"!!bool x", b"!!int ''", b"!!timestamp x", b"2001-99-99", b"!!binary x", b"!!float x", b"!!set {a}",
          b"1:99:99:99", b"? [a]", b"m0,0,1,1", b"<trackid>", b"<trackid>" + b" " * 300, b"<object/>", b"<bndbox/>", b"<?xml version='1.0' encoding='x'?>",
          b"<?xml version='1.0' encoding='utf-16'?>", b"<!DOCTYPE a [<!ENTITY x 'y'>]>", b"% ", b"[s]", b"=x"]
VALUES = [None, True, False, 0, -1, 1, 2 ** 31, 2 ** 63, 2 ** 64, 10 ** 30, 10 ** 400, 0.5, -0.0, 1e308, float("nan"), float("inf"), "", "x", "\0", "..",
          "../../x", "/", "/etc", "a\nb", "\ud800", "😀", "9" * 300, "x" * 5000, [], [[]], {}, {"": None}, {"a": []}, [None], [1, 2, 3, 4], [1] * 8, ["x"] * 4,
          [float("nan")] * 4, "nan", "1e999", [10 ** 400] * 4, True]
NUMBER = re.compile(rb"-?\d+(\.\d+)?([eE]-?\d+)?")


def deep(levels):
    value = []
    for _ in range(levels): value = [value]
    return value


def pick(items, n): return items[n % len(items)]


def flip(data, a, b):
    if not data: return data
    at = a % len(data)
    return data[:at] + bytes([data[at] ^ 1 << b % 8]) + data[at + 1:]


def put(data, a, b): return data[:(at := a % (len(data) + 1))] + pick(TOKENS, b) + data[at:]
def cut(data, a, b): return data[:a % (len(data) + 1)]
def drop(data, a, b): return data[:(at := a % (len(data) + 1))] + data[at + b % 40:]
def double(data, a, b): return data[:(at := a % (len(data) + 1))] + data[max(at - b % 60, 0):]


def renumber(data, a, b):
    found = list(NUMBER.finditer(data))
    if not found: return data
    spot = pick(found, a)
    return data[:spot.start()] + pick(TOKENS, b) + data[spot.end():]


def lines(data, a, b):
    rows = data.split(b"\n")
    i, j = a % len(rows), b % len(rows)
    if a % 4 == 0: rows[i], rows[j] = rows[j], rows[i]
    elif a % 4 == 1: del rows[i]
    elif a % 4 == 2: rows.insert(j, rows[i])
    else: rows[i:i + 1] = [rows[i]] * (b % 300)
    return b"\n".join(rows)


def windows(data, a, b): return data.replace(b"\n", pick([b"\r\n", b"\r", b"\n\r", b" \n"], b))
def marked(data, a, b): return pick([b"\xef\xbb\xbf", b"\xff\xfe", b"\0", b"\n\n", b" "], b) + data
def recoded(data, a, b): return data.decode("latin1").encode(pick(["utf-16", "utf-16-le", "utf-32", "utf-8", "utf-8-sig"], b))


TEXT = (flip, put, cut, drop, double, renumber, lines, windows, marked, recoded, put, renumber)


def all_parts(value):
    "Every container in a value, outer ones first; one that YAML's aliases put in several places, even in itself, once."
    found, todo, seen = [], [value], set()
    while todo:
        part = todo.pop(0)
        if isinstance(part, (dict, list)) and part and id(part) not in seen:
            seen.add(id(part))
            found.append(part)
            todo += part.values() if isinstance(part, dict) else part
    return found


def other_value(value, a, b):
    "A part of a value of JSON replaced, removed, added or repeated."
    parts = all_parts(value)
    if not parts: return pick(VALUES, b)
    part = pick(parts, a)
    key = pick(list(part), a // 7) if isinstance(part, dict) else a // 7 % len(part)
    new = deep(pick([50, 120, 300, 480, 600, 900], a)) if b % 50 == 0 else pick(VALUES, b)
    if b % 11 == 0: del part[key]
    elif b % 11 == 1 and isinstance(part, dict): part[pick(["x", "", "\0", "a\nb", "..", "\ud800"], a)] = new
    elif b % 11 == 2 and isinstance(part, list): part.append(new)
    else: part[key] = new
    return value


def encoded(value):
    try: return json.dumps(value, default=str).encode()
    except (RecursionError, ValueError, TypeError): return b"[" * 900 + b"]" * 900


def in_json(data, a, b):
    try: value = json.loads(data)
    except (ValueError, RecursionError): return put(data, a, b)
    return encoded(other_value(value, a, b))


def in_yaml(data, a, b):
    try: value = yaml.load(data, yaml.CSafeLoader)
    except Exception: return put(data, a, b)      # spoilt already
    return encoded(other_value(value, a, b))


def in_header(data, a, b):
    "The header of a safetensors file, or the JSON text within it, spoilt; its length is right again afterwards."
    size = int.from_bytes(data[:8], "little")
    try: header = json.loads(data[8:8 + size])
    except (ValueError, RecursionError): return flip(data, a, b)
    inner = [key for key in header.get("__metadata__", {})] if isinstance(header, dict) and isinstance(header.get("__metadata__"), dict) else []
    if inner and a % 3:
        text = str(header["__metadata__"][inner[0]]).encode(errors="replace")
        header["__metadata__"][inner[0]] = (in_json if a % 3 == 1 else pick(TEXT, b))(text, a // 3, b).decode(errors="replace")
    else: header = other_value(header, a, b)
    text = encoded(header)
    if b % 13 == 0: text = pick(TEXT, a)(text, a, b)
    return len(text).to_bytes(8, "little") + text + data[8 + size:]


def spoil(plan):
    "A valid file after the steps of a plan."
    data, steps = plan
    for way, a, b in steps: data = way(data, a, b)[:200_000]
    return data


def spoilt(seeds, ways):
    "Strategy: a valid file after one to four ways of spoiling it, or noise."
    step = st.tuples(st.sampled_from(ways), st.integers(0, 2 ** 16 - 1), st.integers(0, 2 ** 16 - 1))
    made = st.tuples(st.sampled_from(seeds), st.lists(step, min_size=1, max_size=3)).map(spoil)
    return made | made | made | st.binary(max_size=200)


def many_spoilt(seeds, ways, seed):
    "The same from a seed, a hundred at once and many times faster; they do not shrink."
    draw = random.Random(seed)
    for _ in range(100):
        if draw.random() < 0.1: yield draw.randbytes(draw.randrange(200))
        else: yield spoil((draw.choice(seeds), [(draw.choice(ways), draw.randrange(2 ** 16), draw.randrange(2 ** 16)) for _ in range(draw.choice((1, 1, 2, 3)))]))


def fuzz(name, seeds, read, ways=TEXT, valid=True):
    "Read spoilt inputs with `read(bytes)`; only a UserError of one line may come out. The valid files are read first."
    if valid:
        for seed in seeds: read(seed)
    seen, started = Counter(), time.monotonic()

    def one(data):
        seen["inputs"] += 1
        try: read(data)
        except UserError as e:
            seen["refused"] += 1
            assert str(e) and len(str(e).splitlines()) == 1, repr(str(e))
        except BaseException:
            note(f"the input was {data!r:.2000}")
            raise

    @FUZZ
    @given(st.integers(0, 2 ** 64 - 1) if MANY else spoilt(list(seeds), ways))
    def run(drawn):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for data in many_spoilt(seeds, ways, drawn) if MANY else [drawn]: one(data)

    run()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"\n{name}: {seen['inputs']:,} inputs, {seen['refused']:,} refused, {time.monotonic() - started:.0f} s, process at most {peak:.0f} MB")
    assert seen["inputs"] >= (MANY or FUZZ.max_examples)


def through(path, *readers):
    "A reader of bytes from readers of a file."
    def read(data):
        path.write_bytes(data)
        told = None
        for one in readers:
            try: one(path)
            except UserError as e: told = e
        if told: raise told
    return read


# Boxes, attributes, results

BOXES = [b"1,2,3,4\n5.5,6,7,8\n9,10,11,12\n", b"x y w h\n1\t2\t3\t4\nnan nan nan nan\n", b"20,10,40,30,20,50,0,30\n1\n0,0,4,0,4,3\nm0,0,2,2,4\n"]


def test_annotations(tmp_path):
    vot_truth = lambda path: read_truth(path, vot=True)
    fuzz("boxes", BOXES, through(tmp_path / "a.txt", read_boxes, read_truth, vot_truth), valid=False)


def test_attributes_and_flags(tmp_path):
    (tmp_path / "tags").mkdir()
    read = through(tmp_path / "tags" / "a.tag", read_attributes, read_flags, lambda path: read_tags(path.parent))
    fuzz("attributes", [b"0,1,0,0,0,0,0,0,0,1\n", b"0\n1\n0\n", b"0,1" * 6], read, valid=False)


VID = (b"<annotation><folder>a</folder><object><trackid>0</trackid><name>p</name><bndbox><xmax>30</xmax><xmin>10</xmin><ymax>60</ymax>"
       b"<ymin>20</ymin></bndbox></object><object><trackid> t1 </trackid><bndbox><xmax>3</xmax><xmin>1</xmin><ymax>6</ymax><ymin>2</ymin>"
       b"</bndbox></object></annotation>")


def test_tracks(tmp_path):
    fuzz("objects of a frame", [VID], through(tmp_path / "a.xml", read_objects, read_track_names, lambda path: read_track([path], "0")))


def test_results(tmp_path):
    seconds, sure = read_seconds, lambda path: read_numbers(path, "confidence")
    fuzz("results", [*BOXES, b"0.1\n0.2\n1e-3\n"], through(tmp_path / "a.txt", read_rows, seconds, sure), valid=False)


def test_marks_of_a_benchmark(tmp_path):
    (tmp_path / "anno" / "att").mkdir(parents=True)
    (tmp_path / "anno" / "a.txt").write_bytes(BOXES[0])
    read = through(tmp_path / "anno" / "att" / "a.txt", lambda path: load_truth(tmp_path, "ptb-tir"), lambda path: load_truth(tmp_path, "simtir"))
    fuzz("attributes of a benchmark", [b"0,1,0,0,0,0,0,0,0,1\n", b"0 1 0 0 0 0 0 0 0 1"], read, valid=False)


def test_boxes_on_the_command_line():
    fuzz("box", [b"420,136,53,130", b"1.5,2,3e1,4"], lambda data: parse_box(data.decode(errors="surrogateescape")))


# Data sets

def picture(path, shape=(48, 64)):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.add.outer(*map(np.arange, shape)).astype(np.uint8))


def small_sets(root):
    "Small data sets, and the text files in them: file -> folder, layout."
    files = {}
    for home, layout, names in (("got", "got10k", ("list.txt", "a/groundtruth.txt", "a/absence.label")),
                                ("vot", "vot", ("list.txt", "a/groundtruth.txt", "a/sequence", "a/occlusion.tag"))):
        for t in "12": picture(root / home / "a" / "img" / f"000{t}.png")
        for name in names: files[root / home / name] = (root / home, layout)
    vid = root / "vid"
    for t in "01": picture(vid / "TrainingData" / "b" / "a" / f"{t}.png")
    for t in "01": files[vid / "Annotations" / "b" / "a" / f"{t}.xml"] = (vid, "lsotb-tir-train")
    text = {"list.txt": b"a\n", "groundtruth.txt": b"1,2,3,4\n5,6,7,8\n", "absence.label": b"0\n1\n", "occlusion.tag": b"0\n1\n",
            "sequence": b"name=a\nchannels.ir=img/%04d.png\n", "0.xml": VID, "1.xml": VID}
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text[file.name])
    return files


def test_layouts(tmp_path, monkeypatch):
    monkeypatch.setenv("TIRNAS_CACHE", str(tmp_path / "cache"))
    files = small_sets(tmp_path)
    names = list(files)

    def read(data):
        number, content = divmod(len(data), len(names))[1], data
        file = names[number]
        home, layout = files[file]
        kept = file.read_bytes()
        file.write_bytes(content)
        try:
            for place in find_places(home, layout):
                check_place(place, full=False)
                assert Path(place.frames).resolve().is_relative_to(home.resolve())
        finally: file.write_bytes(kept)
    seeds = [*{file.read_bytes() for file in names}, b"a\n../got/a\n./a\na/../a\n", b"channels.ir=../vid/%d.png\nchannels.color=img/x\n"]
    fuzz("layouts", sorted(seeds), read, valid=False)


COCO = json.dumps({"images": [{"id": 1, "file_name": "a.png"}, {"id": "2", "filename": "sub/b.png"}], "categories": [{"id": 1, "name": "person"}],
                   "annotations": [{"image_id": 1, "bbox": [1, 2, 3, 4], "category_id": 1}, {"image_id": "2", "bbox": [1, 2, 3, 4], "iscrowd": 0}]}).encode()
VOC = (b"<annotation><filename>a.png</filename><object><name>person</name><difficult>0</difficult><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>30</xmax>"
       b"<ymax>40</ymax></bndbox></object><object><name>x</name><bndbox><x>1</x><y>2</y><w>3</w><h>4</h></bndbox></object></annotation>")
STILLS = {"coco": ("notes.json", [COCO], (*TEXT, in_json, in_json)), "voc": ("a.xml", [VOC], TEXT),
          "yolo": ("labels/a.txt", [b"0 0.5 0.5 0.2 0.2\n1 .1 .1 .3 .1 .3 .3 .1 .3\n"], TEXT),
          "yolo-names": ("data.yaml", [b"names: [person, car]\nnc: 2\n", b"names:\n  0: person\n  1: car\n"], (*TEXT, in_yaml)),
          "mot": ("det/det.txt", [b"1,-1,1,2,3,4,0.9,person\n2,-1,1,2,3,4,1\n"], TEXT)}


@pytest.mark.parametrize("layout", STILLS)
def test_detections(tmp_path, layout):
    name, seeds, ways = STILLS[layout]
    for image in ("a.png", "sub/b.png", "det/img/000001.png", "det/img/000002.png"): picture(tmp_path / image)
    for file, data in (("labels/a.txt", b"0 0.5 0.5 0.2 0.2\n"),) if layout == "yolo-names" else ():
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).write_bytes(data)
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    detect = lambda path: find_detections(tmp_path)
    fuzz(f"detections, {layout}", seeds, through(tmp_path / name, detect, lambda path: read_detections(tmp_path, layout.partition("-")[0])), ways)


def test_images(tmp_path):
    seeds = []
    for suffix in (".png", ".jpg", ".bmp", ".tif"):
        picture(tmp_path / f"a{suffix}", (8, 9))
        seeds.append((tmp_path / f"a{suffix}").read_bytes())
    fuzz("images", seeds, through(tmp_path / "b.png", image_size, read_image), (flip, put, cut, drop, double, flip, flip))


def an_index(home):
    place = places.Place("otb", "a", str(home), str(home / "a" / "img"), str(home / "a" / "groundtruth.txt"))
    entry = {"place": places.pack_place(place, home), "frames": 2, "attributes": ["occlusion"], "left_out": [1]}
    return place, {"train": [entry], "test": [{**entry, "left_out": []}]}


def test_indices(tmp_path):
    picture(tmp_path / "a" / "img" / "0001.png")
    picture(tmp_path / "a" / "img" / "0002.png")
    (tmp_path / "a" / "groundtruth.txt").write_bytes(b"1,2,3,4\n5,6,7,8\n")
    place, index = an_index(tmp_path)
    (tmp_path / "prepared").mkdir()

    def whole(part):
        def read(path):
            for s in prepare.load_index(path.parent, part):
                assert isinstance(s, Sequence) and os.sep not in s.name
                s.frame_paths, s.boxes_xywh, s.attributes, len(s)
        return read
    for field in ("truth", "frames", "attributes"):      # found by this file
        entry = json.loads(json.dumps(index))
        entry["test"][0]["place"][field] = "\ud800"
        with pytest.raises(UserError): through(tmp_path / "prepared" / "index.json", whole("test"))(json.dumps(entry).encode())
    fuzz("index of prepare", [json.dumps(index).encode()], through(tmp_path / "prepared" / "index.json", whole("train"), whole("test")), (in_json, in_json, *TEXT))

    kept = {"seen": {str(tmp_path / "a"): places.last_change(str(tmp_path / "a"))}, "places": [dataclasses.astuple(place)], "remarks": ["x"]}
    found = []

    def cached(path):
        listed = places.load_index(path)
        if listed is None: raise UserError("listed anew")
        found.append(listed)
        for one in listed[0]: assert os.sep not in one.name and isinstance(one.frames, str)
        assert all(isinstance(remark, str) for remark in listed[1])
    fuzz("cached index", [json.dumps(kept).encode()], through(tmp_path / "cache.json", cached), (in_json, *TEXT))
    assert found


# Networks and what belongs to them

def test_genotypes(tmp_path):
    seeds = [random_genotype(kind, 0).to_json().encode() for kind in ("single", "dual")]
    read = through(tmp_path / "g.json", Genotype.load, lambda path: Genotype.from_json(path.read_text(errors="replace")))
    for value in (0.5, None, [], "x"):      # found in the header of a model by this file
        with pytest.raises(UserError, match="is no genotype"): genotype_from_dict(value)
    fuzz("genotype", seeds, read, (in_json, in_json, *TEXT))


PARAMS = b"""recipe: mini
data:
  root: data
mini: &mini
  prepare: {train_roots: [a, b], sequences: 4, frames: 80, seed: 0}
gpu: {<<: *mini}
"""


def test_params(tmp_path):
    recipe = lambda name: lambda path: load_params(PrepareParams, "prepare", name, path)
    fuzz("params", [PARAMS], through(tmp_path / "params.yaml", recipe(None), recipe("gpu")), (in_yaml, in_yaml, *TEXT))


def test_scenes(tmp_path):
    seed = write_scene(tmp_path / "scene.yaml", random_scene(1, 5)).read_bytes()
    fuzz("scene", [seed], through(tmp_path / "scene.yaml", read_scene), (in_yaml, *TEXT))


def test_notes(tmp_path):
    note = {"tracker": "a", "source": "a.py", "sha256": "0" * 64, "device": "cpu", "timing": "x", "versions": {"tirnas": "1"}, "parameters": 5,
            "refused": {"s": "why"}, "sequences": {"s": {"sha256": None, "frames": "00"}}}
    def read(path):
        note = read_note(path.parent)
        "\n".join(note_remarks(path.parent, note)).encode(errors="backslashreplace")
        json.dumps(note["parameters"])
    through(tmp_path / "run.json", read)(json.dumps({**note, "sequences": {"s" * 300: {"sha256": None, "frames": "00"}}}).encode())      # found by this file
    fuzz("run.json", [json.dumps(note).encode()], through(tmp_path / "run.json", read), (in_json, in_json, *TEXT))


def test_histories(tmp_path):
    seeds = [json.dumps(h).encode() for h in (invent_history(1), invent_candidates(2))]
    broken = invent_history(1)
    broken[0]["mixing"]["a\nb"] = [[1.0]]       # found by this file
    with pytest.raises(UserError, match=r"the mixing weights of the 'a\\nb' cell"): through(tmp_path / "search.json", read_history)(json.dumps(broken).encode())
    fuzz("history of a search", seeds, through(tmp_path / "search.json", read_history), (in_json, in_json, *TEXT))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    "The bytes of the smallest model, and its card."
    torch.manual_seed(0)
    genotype = random_genotype("single", 0)
    card = ModelCard(genotype, Macro("single", 3, 1, 4), HeadSettings(8, 4, 1, 2), 32, 2.0, {"recipe": "x"})
    path = save_model(tmp_path_factory.mktemp("model") / "m.safetensors", card.build(), card)
    return path.read_bytes()


def test_models(tmp_path, model):
    fuzz("model", [model], through(tmp_path / "m.safetensors", load_card, load_model), (in_header, in_header, in_header, flip, cut, drop, put))


def test_checkpoints(tmp_path):
    state = {"fingerprint": "x", "step": 3, "net": {"w": torch.ones(2, 3)}, "parts": [1.5, None, True, {"a": torch.zeros(1)}]}
    seed = save_state(tmp_path / "c.safetensors", state).read_bytes()
    def read(path): assert isinstance(load_state(path), dict)
    fuzz("checkpoint", [seed], through(tmp_path / "c.safetensors", read), (in_header, in_header, flip, cut, drop, put))


@pytest.mark.parametrize("suffix", (".pth", ".safetensors"))
def test_weights(tmp_path, suffix):
    tensors = {"conv1.weight": torch.ones(4, 3, 2, 2), "bn1.bias": torch.zeros(4)}
    path, old = tmp_path / f"w{suffix}", tmp_path / "old.pth"
    if suffix == ".pth":
        torch.save(tensors, path)
        torch.save(tensors, old, _use_new_zipfile_serialization=False)
        seeds, ways = [path.read_bytes(), old.read_bytes()], (flip, put, cut, drop, double, flip)
    else:
        from safetensors.torch import save
        seeds, ways = [save(tensors)], (in_header, in_header, flip, cut, drop, put)
    fuzz(f"weights, {suffix}", seeds, through(path, read_weights), ways)


def test_bundles(tmp_path):
    card = BundleCard(32, 2.0, 8, 3, 4, 1.0, "fp32", TrackSettings(), {}, "0" * 64)
    folder = write_bundle(tmp_path / "b", dict.fromkeys(GRAPHS, b"x"), card)
    assert digest(b"x") in (folder / "card.json").read_text()
    fuzz("card of graphs", [(folder / "card.json").read_bytes()], through(folder / "card.json", lambda path: read_bundle(folder)), (in_json, in_json, *TEXT))


def test_trackers_of_a_workspace(tmp_path):
    ini = b"[Mine]\nlabel = Mine\nprotocol = trax\ncommand = python -c 'x'\n[csrt]\nlabel=csrt\n"
    fuzz("trackers.ini", [ini], through(tmp_path / "trackers.ini", lambda path: vot.write_trackers(path, ["constant"])))
