"""The data check: each planted fault is found once, where it is, and a sound set is left alone."""
import json
import os
import struct
import zlib

import cv2
import numpy as np
import pytest

from conftest import ROOT, shell
from tirnas.core import UserError, write_json
from tirnas.data.annotations import write_attributes
from tirnas.data.check import KINDS, check_dataset, missing_numbers, report_json, report_table
from tirnas.data.sequences import to_file, write_boxes, write_sequence

SHARED = ROOT.parent / "shared" / "data"
BOXES = np.array([[10 + 6 * t, 15, 12, 30] for t in range(8)], dtype=float)


def walk(t, hw=(60, 80)):
    frame = np.random.default_rng(t).normal(90, 4, hw)
    frame[15:45, 10 + 6 * t:22 + 6 * t] += 80
    return frame.clip(0, 255).astype(np.uint8)


def write(path, frame):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imencode(path.suffix, frame)[1].tofile(path)


@pytest.fixture
def data(tmp_path):
    "Two sound sequences, one with a name that is not ASCII, with Windows line ends, a BOM, tabs and attributes."
    home = tmp_path / "data"
    write_sequence(home / "one", map(walk, range(8)), BOXES)
    for t in range(8): write(home / "Zwei Wärme" / "img" / f"{t + 1:08d}.png", walk(t))
    lines = "".join("\t".join(map(str, row)) + "\r\n" for row in to_file(BOXES).tolist())
    (home / "Zwei Wärme" / "groundtruth.txt").write_bytes(b"\xef\xbb\xbf" + lines.encode())
    write_attributes(home / "att" / "one.txt", {"occlusion"})
    return home


def found(home, **how):
    return [(f.kind, f.file, f.line) for r in check_dataset(home, progress=False, **how) for f in r.findings]


def line(home, number, text):
    "Replace a line of the annotation of `one`."
    path = home / "one" / "groundtruth.txt"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:number - 1], text, *lines[number:]]) + "\n")


def image(home, number):
    return home / "one" / "img" / f"{number:04d}.jpg"


def test_a_sound_set_gives_nothing(data):
    reports = check_dataset(data, progress=False)
    assert [(r.name, r.frames, r.boxes, r.size, r.findings) for r in reports] == [
        ("Zwei Wärme", 8, 8, "80x60 uint8", ()), ("one", 8, 8, "80x60 uint8", ())]
    assert found(data, full=False) == [] and "ok" in report_table(reports)


def huge_png():
    "A small file whose header announces 100,000 x 100,000 pixels."
    def chunk(kind, content): return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


TRUTH = os.path.join("one", "groundtruth.txt")
FAULTS = {
    "cut": (lambda home: image(home, 3).write_bytes(image(home, 3).read_bytes()[:-300]), "unreadable", "one/img/0003.jpg", 0),
    "zero bytes": (lambda home: image(home, 3).write_bytes(b""), "unreadable", "one/img/0003.jpg", 0),
    "text": (lambda home: image(home, 8).write_text("no image"), "unreadable", "one/img/0008.jpg", 0),
    "an archive": (lambda home: image(home, 8).write_bytes(b"PK\x03\x04 zip"), "unreadable", "one/img/0008.jpg", 0),
    "a gigapixel": (lambda home: image(home, 8).write_bytes(huge_png()), "unreadable", "one/img/0008.jpg", 0),
    "black": (lambda home: write(image(home, 2), np.zeros((60, 80), np.uint8)), "flat", "one/img/0002.jpg", 0),
    "one value": (lambda home: write(image(home, 2), np.full((60, 80), 77, np.uint8)), "flat", "one/img/0002.jpg", 0),
    "size": (lambda home: write(image(home, 1), walk(0, (64, 80))), "size", "one/img/0001.jpg", 0),
    "repeat": (lambda home: image(home, 5).write_bytes(image(home, 4).read_bytes()), "repeat", "one/img/0005.jpg", 0),
    "not a number": (lambda home: line(home, 4, "nan,nan,nan,nan"), "truth", TRUTH, 4),
    "a word": (lambda home: line(home, 4, "1,2,three,4"), "truth", TRUTH, 4),
    "a blank line": (lambda home: line(home, 4, ""), "truth", TRUTH, 4),
    "five numbers": (lambda home: line(home, 4, "1,2,3,4,5"), "truth", TRUTH, 4),
    "no width": (lambda home: line(home, 6, "11,16,0,30"), "box", TRUTH, 6),
    "negative height": (lambda home: line(home, 6, "11,16,12,-30"), "box", TRUTH, 6),
    "infinite": (lambda home: line(home, 6, "11,16,inf,30"), "box", TRUTH, 6),
    "to the right": (lambda home: line(home, 6, "81,16,12,30"), "beyond", TRUTH, 6),
    "above": (lambda home: line(home, 6, "11,-30,12,31"), "beyond", TRUTH, 6),
    "a line too many": (lambda home: line(home, 8, "50,16,12,30\n51,16,12,30"), "count", TRUTH, 0),
    "a frame less": (lambda home: image(home, 8).unlink(), "count", TRUTH, 0),
    "no text": (lambda home: (home / TRUTH).write_bytes(b"\xff\xfe\x00"), "truth", TRUTH, 0),
    "no boxes": (lambda home: (home / TRUTH).write_text(""), "truth", TRUTH, 0),
    "no frames": (lambda home: [image(home, n).unlink() for n in range(1, 9)], "closed", "one/img", 0),
    "attributes": (lambda home: (home / "att" / "one.txt").write_text("1,2"), "attributes", "att/one.txt", 0),
}
HEADERS_TELL = {"zero bytes", "text", "an archive", "size", "a gigapixel"}     # of the faults in images


@pytest.mark.parametrize("fault", FAULTS)
def test_one_fault_is_found_once(data, fault):
    plant, kind, file, number = FAULTS[fault]
    plant(data)
    assert found(data) == [(kind, file, number)] and kind in KINDS
    if fault == "a gigapixel": kind = "size"    # which is what the header says
    in_image = file.endswith(".jpg")
    assert found(data, full=False) == ([(kind, file, number)] if not in_image or fault in HEADERS_TELL else [])


def test_depth_changes(data):
    for t in range(8): write(data / "deep" / "img" / f"{t:04d}.png", walk(t).astype(np.uint16 if t else np.uint8) * (200 if t else 1))
    write_boxes(data / "deep" / "groundtruth.txt", to_file(BOXES))
    assert found(data) == [("size", "deep/img/0000.png", 0)]
    assert check_dataset(data, progress=False)[1].size == "80x60 uint16"


def test_a_lost_frame_is_a_gap_and_a_count(data):
    image(data, 4).unlink()
    assert found(data) == [("gap", "one/img", 0), ("count", TRUTH, 0)]


def test_an_absent_target_and_a_box_over_the_border_are_sound(data):
    line(data, 4, "0,0,0,0")
    line(data, 5, "-5,-5,20,30")
    line(data, 6, "75,50,20,30")
    assert found(data) == []


def test_a_polygon_is_told_outside_vot(data, tmp_path):
    line(data, 4, "20,10,40,30,20,50,10,30")
    assert found(data) == [("truth", TRUTH, 4)]
    assert "8 numbers where 4 are expected" in check_dataset(data, progress=False)[1].findings[0].text
    (data / "one" / "occlusion.tag").write_text("0\n" * 8)
    assert found(data / "one") == []


def test_a_heading_is_told_and_lines_keep_their_numbers(data):
    line(data, 8, "400,16,12,30")
    path = data / TRUTH
    path.write_text("# by hand\nx,y,w,h\n" + path.read_text())
    assert found(data) == [("truth", TRUTH, 1), ("truth", TRUTH, 2), ("beyond", TRUTH, 10)]


def test_decimal_commas_are_one_finding(data):
    (data / TRUTH).write_text("1,5;2,5;3,0;4,0\n" * 8)
    assert found(data) == [("truth", TRUTH, 1)]
    (finding,) = check_dataset(data, progress=False)[1].findings
    assert finding.text.startswith("'1,5;2,5;3,0;4,0' may have decimal commas")


def test_a_linked_file_is_named_by_its_link(data, tmp_path):
    image(data, 3).rename(data / "one" / "store.bin")
    (data / "one" / "store.bin").write_bytes(b"")
    os.symlink(data / "one" / "store.bin", image(data, 3))
    os.symlink(data, tmp_path / "alias")
    assert found(data) == [("unreadable", "one/img/0003.jpg", 0)] == found(tmp_path / "alias")


def test_a_deleted_image_is_missing(tmp_path):
    for name in ("train/1.jpg", "val/1.jpg", "val/3.jpg"): write(tmp_path / name, walk(1))
    for split in ("train", "val"):
        images = [{"id": i, "file_name": f"{split}/{i}.jpg"} for i in (1, 3)]
        notes = [{"image_id": i, "category_id": 1, "bbox": [10, 10, 9, 20]} for i in (1, 3)]
        write_json(tmp_path / f"{split}.json", {"images": images, "annotations": notes, "categories": []})
    assert found(tmp_path) == [("missing", "train.json", 0)]
    assert [(r.name, r.boxes) for r in check_dataset(tmp_path, progress=False)[1:]] == [("train", 1), ("val", 2)]


def test_vot_may_say_nan(tmp_path):
    for t in range(8): write(tmp_path / "vot" / "ir" / f"{t + 1:08d}.png", walk(t))
    write_boxes(tmp_path / "vot" / "groundtruth.txt", BOXES)
    (tmp_path / "vot" / "groundtruth.txt").write_text("nan,nan,nan,nan\n" + (tmp_path / "vot" / "groundtruth.txt").read_text().split("\n", 1)[1])
    assert found(tmp_path) == []


def test_xml_for_every_frame(tmp_path):
    item = "<object><trackid>0</trackid><bndbox><xmin>{}</xmin><ymin>2</ymin><xmax>{}</xmax><ymax>40</ymax></bndbox></object>"
    for t in range(8):
        write(tmp_path / f"TrainingData/part/car/{t + 1:08d}.jpg", walk(t))
        file = tmp_path / f"Annotations/part/car/{t + 1:08d}.xml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"<annotation>{item.format(t, t + 20)}</annotation>")
    assert found(tmp_path) == []
    file.with_name("00000002.xml").write_text("<annotation><object>")
    file.with_name("00000003.xml").unlink()
    file.with_name("00000007.xml").write_text(f"<annotation>{item.format(90, 99)}</annotation>")
    home = "Annotations/part/car"
    assert found(tmp_path) == [("truth", f"{home}/00000002.xml", 0), ("truth", f"{home}/00000003.xml", 0), ("beyond", home, 7)]


def test_a_video(tmp_path):
    writer = cv2.VideoWriter(str(tmp_path / "walk.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 25, (80, 60))
    for t in (0, 1, 1, 3): writer.write(cv2.cvtColor(walk(t), cv2.COLOR_GRAY2BGR))
    writer.release()
    (tmp_path / "walk.txt").write_text("10,15,12,30\n" * 3 + "99,15,12,30\n")
    for path in (tmp_path, tmp_path / "walk.avi"):
        assert found(path) == [("repeat", "walk.avi", 3), ("beyond", "walk.txt", 4)]


def test_images_without_boxes(tmp_path):
    for t in range(8): write(tmp_path / "clip" / f"{t}.tiff", walk(t))
    write(tmp_path / "clip" / "5.tiff", np.zeros((60, 80), np.uint8))
    assert found(tmp_path) == [("flat", "clip/5.tiff", 0)] and check_dataset(tmp_path, progress=False)[0].boxes == 0


def test_a_link_that_leads_out_is_said(data, tmp_path):
    write_sequence(tmp_path / "elsewhere", map(walk, range(8)), BOXES)
    os.symlink(tmp_path / "elsewhere", data / "away")
    assert [f[0] for f in found(data)] == ["left out"]


def test_detection_sets(tmp_path):
    for split, count in (("train", 3), ("val", 2)):
        for i in range(count): write(tmp_path / split / f"{i}.jpg", walk(i, (60 + 4 * i, 80)))
        notes = [{"image_id": i, "category_id": 1, "bbox": [10, 10, 9, 20]} for i in range(count)]
        images = [{"id": i, "file_name": f"{i}.jpg"} for i in range(count)]
        content = {"images": images, "annotations": notes, "categories": [{"id": 1, "name": "person"}]}
        write_json(tmp_path / split / "_annotations.coco.json", content)
    reports = check_dataset(tmp_path, progress=False)
    assert [(r.name, r.frames, r.boxes, r.findings) for r in reports] == [("train", 3, 3, ()), ("val", 2, 2, ())]
    content["images"] += [{"id": 8, "file_name": "8.jpg"}, {"id": 9, "file_name": "../../9.jpg"}]
    content["annotations"] += [{"image_id": 0, "category_id": 1, "bbox": [90, 10, 9, 20]}, {"image_id": 0, "bbox": [1, 1, 0, 9]}]
    write_json(tmp_path / "val" / "_annotations.coco.json", content)
    (tmp_path / "train" / "1.jpg").write_bytes(b"")
    file = "val/_annotations.coco.json"
    assert found(tmp_path) == [("outside", file, 0), ("missing", file, 0), ("box", file, 4),
                               ("unreadable", "train/1.jpg", 0), ("beyond", "val/0.jpg", 0)]
    assert found(tmp_path, layout="coco") == found(tmp_path)


def test_processes_find_the_same(data):
    for fault in ("cut", "no width"): FAULTS[fault][0](data)
    assert check_dataset(data, jobs=2, progress=False) == check_dataset(data, progress=False)


def test_nothing_is_written(data):
    listed = lambda: sorted((str(p), p.stat().st_mtime_ns) for p in data.rglob("*"))
    before = listed()
    check_dataset(data, progress=False)
    assert listed() == before


def test_json_and_table(data):
    for number in range(2, 7): line(data, number, "x")
    reports = check_dataset(data, progress=False)
    record = json.loads(json.dumps(report_json(data, reports)))
    assert record["kinds"] == {"truth": 5} and [s["name"] for s in record["sequences"]] == ["Zwei Wärme", "one"]
    assert record["sequences"][1]["findings"][0] == {"kind": "truth", "file": TRUTH, "line": 2, "text": "'x' is not a box"}
    table = report_table(reports)
    assert "5 truth" in table and "and 2 more" in table and f"{TRUTH}:4" in table and f"{TRUTH}:5" not in table


def test_what_cannot_be_checked(data, tmp_path):
    for path, layout, part in ((tmp_path / "no", None, "does not exist"), (tmp_path / "no", "coco", "is not a folder"),
                               (data, "coco", "holds no annotated images"), (data, "lasot", "unknown"), (data / "att", None, "holds no sequences")):
        with pytest.raises(UserError, match=part): check_dataset(path, layout, progress=False)
    with pytest.raises(UserError, match="jobs is 0"): check_dataset(data, jobs=0)
    (tmp_path / "set.zip").write_bytes(b"PK\x03\x04")
    with pytest.raises(UserError, match="is an archive: unpack it"): check_dataset(tmp_path / "set.zip")


@pytest.mark.parametrize("stems, gaps", [
    (["1"], []), ([], []), (["a", "b", "c"], []), (["00001", "00002", "00003", "00010"], [(4, 9)]),
    (["img_000_ir", "img_015_ir", "img_030_ir", "img_060_ir"], [(45, 45)]), (["5", "6", "7", "8"], [])])
def test_missing_numbers(stems, gaps):
    assert missing_numbers(stems) == gaps


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the shared thermal frames")
def test_real_frames():
    reports = check_dataset(SHARED / "hit-uav", progress=False, full=False)
    assert sum(r.frames for r in reports) == 552 and not any(r.findings for r in reports)
    (airplane,) = check_dataset(SHARED / "ptb-tir", progress=False, full=False)
    assert (airplane.frames, airplane.boxes, airplane.findings) == (380, 380, ())
