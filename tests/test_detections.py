"""Detection sets: the folders that FLIR, LLVIP, KAIST and HIT-UAV come in, and what can be wrong with them."""
import json
import os
import warnings

import cv2
import numpy as np
import pytest

from conftest import ROOT
from tirnas.core import UserError
from tirnas.data.detections import find_detections, image_size, read_detections, scan_detections
from tirnas.data.stills import list_files

HIT_UAV = ROOT.parent / "shared" / "data" / "hit-uav"
BOX = [10.0, 20.0, 12.0, 30.0]


def image(path, hw=(64, 80)):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imencode(path.suffix, np.full(hw, 90, np.uint8))[1].tofile(path)


def coco(path, files, boxes=None, **extra):
    "A COCO file that names `files`, each with one person; `extra` goes into every annotation."
    path.parent.mkdir(parents=True, exist_ok=True)
    notes = [{"id": i, "image_id": i, "category_id": 1, "bbox": box, **extra} for i, box in enumerate(boxes or [BOX] * len(files))]
    data = {"images": [{"id": i, "file_name": f} for i, f in enumerate(files)], "annotations": notes,
            "categories": [{"id": 1, "name": "person"}]}
    path.write_text(json.dumps(data))
    return data


def voc(path, name, corners=(10, 20, 22, 50), label="person", extra="", tags=("xmin", "ymin", "xmax", "ymax")):
    path.parent.mkdir(parents=True, exist_ok=True)
    box = "".join(f"<{t}>{v}</{t}>" for t, v in zip(tags, corners))
    path.write_text(f"<annotation><filename>{name}</filename><object><name>{label}</name>{extra}<bndbox>{box}</bndbox></object></annotation>")


def relative(stills, home):
    return [s.image.relative_to(home).as_posix() for s in stills]


def flaws(home, kind, layout=None):
    return [(f.file, f.line) for f in scan_detections(home, layout)[1] if f.kind == kind]


# ---- the folders of known sets, and of none

@pytest.mark.parametrize("json_name, image_name, stated", [
    ("train/thermal_annotations.json", "train/thermal_8_bit/FLIR_00001.jpeg", "thermal_8_bit/FLIR_00001.jpeg"),
    ("images_thermal_train/coco.json", "images_thermal_train/data/video-a-frame-000001.jpg", "data/video-a-frame-000001.jpg"),
    ("annotations/instances_train.json", "train/a b ü.jpg", "a b ü.jpg"),
    ("annotations/train.json", "train/0001.png", "0001.png")])
def test_coco_folders(tmp_path, json_name, image_name, stated):
    image(tmp_path / image_name)
    image(tmp_path / "images_rgb_train/data/0001.png")
    coco(tmp_path / json_name, [stated])
    assert find_detections(tmp_path) == "coco"
    (still,) = read_detections(tmp_path)
    assert relative([still], tmp_path) == [image_name] and still.boxes_xywh.tolist() == [BOX] and still.labels == ("person",)
    assert still.boxes_xywh.dtype == np.float64


def test_same_names_in_two_splits(tmp_path):
    for split in ("train", "val"):
        image(tmp_path / split / "0001.jpg")
        coco(tmp_path / "annotations" / f"{split}.json", ["0001.jpg"])
    assert relative(read_detections(tmp_path), tmp_path) == ["train/0001.jpg", "val/0001.jpg"]


def test_hit_uav_spellings(tmp_path):
    image(tmp_path / "test/0_60_30_0_01614.jpg")
    data = coco(tmp_path / "annotations/test.json", ["0_60_30_0_01614.jpg"])
    data["annotation"] = data.pop("annotations")
    data["images"][0]["filename"] = data["images"][0].pop("file_name")
    (tmp_path / "annotations/test.json").write_text(json.dumps(data))
    assert read_detections(tmp_path)[0].boxes_xywh.tolist() == [BOX]


def test_llvip_takes_the_thermal_twin(tmp_path):
    for place in ("infrared/train", "visible/train"): image(tmp_path / place / "010001.jpg")
    voc(tmp_path / "Annotations/010001.xml", "010001.jpg")
    assert find_detections(tmp_path) == "voc"
    (still,) = read_detections(tmp_path)
    assert relative([still], tmp_path) == ["infrared/train/010001.jpg"] and still.boxes_xywh.tolist() == [BOX]
    assert read_detections(tmp_path, "voc-inclusive")[0].boxes_xywh.tolist() == [[9, 19, 13, 31]]


@pytest.mark.parametrize("stated", ("{split}/{name}", "{name}", "images/{split}/{name}"))
@pytest.mark.parametrize("gone", ("train", "val"))
def test_a_deleted_image_is_not_replaced_by_another_split(tmp_path, stated, gone):
    for split in ("train", "val"):
        for n in (1, 3): image(tmp_path / "images" / split / f"000{n}.png")
        coco(tmp_path / f"{split}.json", [stated.format(split=split, name=f"000{n}.png") for n in (1, 3)])
    (tmp_path / "images" / gone / "0003.png").unlink()
    stills, found = scan_detections(tmp_path)
    assert relative(stills, tmp_path) == [f"images/{s}/000{n}.png" for s in ("train", "val") for n in (1, 3) if (s, n) != (gone, 3)]
    assert [(f.kind, f.file) for f in found] == [("missing", f"{gone}.json")]


@pytest.mark.parametrize("stated", ("train/0003.png", "0003.png"))
def test_an_image_without_an_annotation_is_not_given_away(tmp_path, stated):
    for name in ("train/0001.png", "val/0003.png"): image(tmp_path / name)
    coco(tmp_path / "train.json", ["train/0001.png", stated])
    stills, found = scan_detections(tmp_path)
    assert relative(stills, tmp_path) == ["train/0001.png"] and [f.kind for f in found] == ["missing"]


@pytest.mark.parametrize("stated", ("I0000{n}", "set00/{drive}/I0000{n}"))
@pytest.mark.parametrize("annotated", (True, False))
def test_kaist_with_a_lost_image(tmp_path, stated, annotated):
    for drive in ("V000", "V001"):
        for n in (1, 2):
            image(tmp_path / f"images/set00/{drive}/lwir/I0000{n}.jpg")
            if annotated or drive == "V001":
                voc(tmp_path / f"annotations-xml-new/set00/{drive}/I0000{n}.xml", stated.format(n=n, drive=drive))
    (tmp_path / "images/set00/V001/lwir/I00002.jpg").unlink()
    stills, found = scan_detections(tmp_path)
    names = [f"images/set00/{d}/lwir/I0000{n}.jpg" for d, n in (("V000", 1), ("V000", 2), ("V001", 1)) if annotated or d == "V001"]
    assert relative(stills, tmp_path) == names
    assert [(f.kind, f.file) for f in found] == [("missing", "annotations-xml-new/set00/V001/I00002.xml")]


@pytest.mark.parametrize("labels, images", (("labels/{}", "images/{}"), ("{}/labels", "{}/images"), ("{}", "{}")))
def test_yolo_with_a_lost_image(tmp_path, labels, images):
    for split in ("train", "val"):
        for n in (1, 3):
            image(tmp_path / images.format(split) / f"a.v{n}.jpg")
            path = tmp_path / labels.format(split) / f"a.v{n}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("0 .5 .5 .1 .1\n")
    (tmp_path / images.format("train") / "a.v3.jpg").unlink()
    stills, found = scan_detections(tmp_path, "yolo")
    assert relative(stills, tmp_path) == [f"{images}/a.v{n}.jpg".format(s) for s, n in (("train", 1), ("val", 1), ("val", 3))]
    assert [f.kind for f in found] == ["missing"] * ("labels" in labels)


@pytest.mark.parametrize("name", ("vis-ir/thermal/x.png", "rgb-thermal/images/x.png", "color/car_color-map_1.png", "rgb/x.png"))
def test_thermal_images_below_a_folder_with_another_word(tmp_path, name):
    image(tmp_path / name)
    coco(tmp_path / "a.json", [os.path.basename(name)])
    (still,) = read_detections(tmp_path)
    assert relative([still], tmp_path) == [name] and scan_detections(tmp_path)[1] == []


@pytest.mark.parametrize("thermal, visible", (("infrared/1.jpg", "visible/1.jpg"), ("set/lwir/1.jpg", "set/visible/1.jpg"),
    ("thermal_8_bit/F_1.jpeg", "RGB/F_1.jpg"), ("images_thermal_train/a.jpg", "images_rgb_train/b.jpg"), ("F_1_ir.jpg", "F_1_rgb.jpg"),
    ("rgb-thermal/thermal/1.jpg", "rgb-thermal/rgb/1.jpg"), ("images/1.jpg", "images_color/1.jpg")))
def test_visible_light_twins_are_passed_over_and_told(tmp_path, thermal, visible):
    for name in (thermal, visible): image(tmp_path / name)
    coco(tmp_path / "a.json", [os.path.basename(thermal)])
    coco(tmp_path / "rgb_a.json", [os.path.basename(visible)])
    with pytest.warns(UserWarning, match=f"{visible}: 1 images such as this one are taken for visible-light twins"): stills = read_detections(tmp_path)
    assert relative(stills, tmp_path) == [thermal] and [f.kind for f in scan_detections(tmp_path)[1]] == ["left out"]


def test_kaist_takes_the_right_drive(tmp_path):
    for drive in ("V000", "V001"):
        for camera in ("lwir", "visible"): image(tmp_path / f"images/set00/{drive}/{camera}/I00001.jpg")
        voc(tmp_path / f"annotations-xml-new/set00/{drive}/I00001.xml", f"set00/{drive}/I00001", BOX, tags="xywh")
    assert find_detections(tmp_path) == "voc"
    stills = read_detections(tmp_path)
    assert relative(stills, tmp_path) == [f"images/set00/{d}/lwir/I00001.jpg" for d in ("V000", "V001")]
    assert all(s.boxes_xywh.tolist() == [BOX] for s in stills)


@pytest.mark.parametrize("image_name, label_name, classes", [
    ("images/train/a.jpg", "labels/train/a.txt", ("data.yaml", "names:\n  0: car\n  1: Person\n")),
    ("train/images/a.jpg", "train/labels/a.txt", ("data.yaml", "names: [car, Person]\n")),
    ("images/a.jpg", "labels/a.txt", ("classes.txt", "car\r\nPerson\r\n")),
    ("obj_train_data/a.jpg", "obj_train_data/a.txt", ("obj.names", "car\nPerson\n"))])
def test_yolo_folders(tmp_path, image_name, label_name, classes):
    image(tmp_path / image_name)
    (tmp_path / label_name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / label_name).write_bytes(b"\xef\xbb\xbf1 0.2 0.546875 0.15 0.46875\r\n0\t0.5 0.5 0.1 0.1\r\n\r\n")
    (tmp_path / classes[0]).write_text(classes[1])
    (still,) = read_detections(tmp_path, "yolo")
    assert still.labels == ("Person", "car") and np.allclose(still.boxes_xywh, [BOX, [36, 28.8, 8, 6.4]])
    assert find_detections(tmp_path) == "yolo" or "obj" in image_name


def test_videos_are_no_detection_sets(tmp_path):
    image(tmp_path / "walk/img/0001.jpg")
    (tmp_path / "walk/groundtruth.txt").write_text("1,2,3,4\n")
    (tmp_path / "walk/scene.json").write_text('{"seed": 1}')
    assert find_detections(tmp_path) is None and find_detections(tmp_path / "walk") is None
    voc(tmp_path / "Annotations/video/00000001.xml", "00000001", extra="<trackid>0</trackid>")
    assert find_detections(tmp_path) is None
    with pytest.raises(UserError, match="is not a detection set"): read_detections(tmp_path)
    with pytest.raises(UserError, match="layout 'caltech' is unknown"): read_detections(tmp_path, "caltech")


# ---- what is left out

def test_ignored_objects(tmp_path):
    image(tmp_path / "a.jpg")
    data = coco(tmp_path / "coco.json", ["a.jpg"], [BOX])
    note = data["annotations"][0]
    data["categories"] += [{"id": 2, "name": "DontCare"}, {"id": 3, "name": "Car"}]
    data["annotations"] += [{**note, "iscrowd": 1}, {**note, "ignore": 1}, {**note, "category_id": 2}, {**note, "category_id": 3, "bbox": [0, 0, 4, 50]}]
    (tmp_path / "coco.json").write_text(json.dumps(data))
    labels = lambda **wish: read_detections(tmp_path, **wish)[0].labels
    assert labels() == ("person", "Car") and labels(keep={"PERSON"}) == ("person",) == labels(min_side=5)
    assert labels(keep=["dog"]) == () and read_detections(tmp_path, keep=["dog"])[0].boxes_xywh.shape == (0, 4)
    voc(tmp_path / "voc/Annotations/a.xml", "a.jpg", extra="<difficult>1</difficult>")
    image(tmp_path / "voc/a.jpg")
    assert read_detections(tmp_path / "voc")[0].labels == ()


# ---- what is wrong

@pytest.mark.parametrize("box", [[float("nan"), 1, 2, 3], [1, 2, 0, 4], [1, 2, 3, -4], [1, 2, 3, float("inf")], [1, 2, 3], "1 2 3 4", None])
def test_bad_boxes_are_dropped(tmp_path, box):
    for name in "ab": image(tmp_path / f"{name}.jpg")
    coco(tmp_path / "coco.json", ["a.jpg", "b.jpg"], [BOX, box])
    assert flaws(tmp_path, "box") == [("coco.json", 2)]
    with pytest.warns(UserWarning, match=r"coco\.json:2: "): stills = read_detections(tmp_path)
    assert [len(s) for s in stills] == [1, 0]


@pytest.mark.parametrize("line", ["² 0.5 0.5 0.1 0.1", "9" * 5000 + " 0.5 0.5 0.1 0.1", "0 0.5 0.5 0.1", "person 0.5 0.5 0.1 0.1", "0 nan 0.5 0.1 0.1", "0 0.5 0.5 0 0.1", "0 a b c d"])
def test_bad_yolo_lines(tmp_path, line):
    image(tmp_path / "images/a.jpg")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/a.txt").write_text(f"0 0.5 0.5 0.1 0.1\n{line}\n0 0.5 0.5 0.2 0.2\n")
    stills, found = scan_detections(tmp_path, "yolo")
    assert [(f.kind, f.file, f.line) for f in found] == [("box", "labels/a.txt", 2)] and len(stills[0]) == 2


def test_bad_mot_lines(tmp_path):
    for n in (1, 2): image(tmp_path / f"img/{n:04d}.jpg")
    (tmp_path / "det.txt").write_text("1,-1,1,2,3,4,1,Person\n1,-1,x,2,3,4,1,Person\n\n3,-1,1,2,3,4,1,Person\n2,-1,1,2,3,4,1,DontCare\n")
    stills, found = scan_detections(tmp_path)
    assert [len(s) for s in stills] == [1, 0]
    assert [(f.kind, f.file, f.line) for f in found] == [("box", "det.txt", 2), ("missing", "det.txt", 0)]


@pytest.mark.parametrize("frame", ("²", "9" * 5000))
def test_frames_that_are_no_number(tmp_path, frame):
    image(tmp_path / "img/0001.jpg")
    (tmp_path / "det.txt").write_text(f"{frame},-1,1,2,3,4,1,Person\n")
    assert flaws(tmp_path, "box") == [("det.txt", 1)]


@pytest.mark.parametrize("names", ("names:\n  ²: car\n", f"names:\n  {'9' * 5000}: car\n", "[" * 100000))
def test_odd_class_names(tmp_path, names):
    image(tmp_path / "images/a.jpg")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/a.txt").write_text("0 .5 .5 .1 .1\n")
    (tmp_path / "data.yaml").write_text(names)
    assert read_detections(tmp_path, "yolo")[0].labels == ("0",)


def test_polygons_become_boxes(tmp_path):
    image(tmp_path / "a.jpg")
    coco(tmp_path / "coco.json", ["a.jpg"], [[5, 0, 9, 4, 5, 8, 1, 4]])
    assert read_detections(tmp_path)[0].boxes_xywh.tolist() == [[1, 0, 8, 8]]


def test_missing_and_repeated_images(tmp_path):
    image(tmp_path / "a.jpg")
    coco(tmp_path / "coco.json", ["a.jpg", "b.jpg", "a.jpg"])
    assert flaws(tmp_path, "missing") == [("coco.json", 0)] == flaws(tmp_path, "twice")
    with warnings.catch_warnings(record=True) as said: stills = read_detections(tmp_path)
    assert len(stills) == 1 and len(said) == 2 and "'b.jpg' does not exist" in str(said[0].message)


@pytest.mark.parametrize("content, part", [("{\n\"images\": [,", "coco.json:2: is not JSON"), ("\x00\x01", "is not JSON"), ("", "is not JSON")])
def test_broken_json(tmp_path, content, part):
    image(tmp_path / "a.jpg")
    (tmp_path / "coco.json").write_text(content)
    with pytest.raises(UserError, match=part): read_detections(tmp_path, "coco")
    coco(tmp_path / "more.json", ["a.jpg"])
    with pytest.warns(UserWarning, match=part): assert len(read_detections(tmp_path, "coco")) == 1


def test_odd_json_is_reported_not_fatal(tmp_path):
    image(tmp_path / "a.jpg")
    data = coco(tmp_path / "coco.json", ["a.jpg"])
    data["images"] += ["text", {"id": 5}]
    data["annotations"] += ["text", {"bbox": BOX}, {"image_id": 77, "bbox": BOX, "category_id": 1}]
    data["categories"] += ["text", {"id": 9}]
    (tmp_path / "coco.json").write_text(json.dumps(data))
    (tmp_path / "other.json").write_text("[1, 2]")
    assert flaws(tmp_path, "image") == [("coco.json", 2), ("coco.json", 3), ("coco.json", 4)]
    assert flaws(tmp_path, "box") == [("coco.json", 2), ("coco.json", 3)]


def test_broken_xml(tmp_path):
    for name in "ab": image(tmp_path / f"infrared/{name}.jpg")
    voc(tmp_path / "Annotations/a.xml", "a.jpg")
    (tmp_path / "Annotations/b.xml").write_text("<annotation>\n<object>\n")
    assert flaws(tmp_path, "annotation") == [("Annotations/b.xml", 3)]
    with pytest.warns(UserWarning, match=r"b\.xml:3: is not XML"): assert len(read_detections(tmp_path)) == 1
    voc(tmp_path / "Annotations/b.xml", "b.jpg", (1, 2, "x", 4))
    assert flaws(tmp_path, "box") == [("Annotations/b.xml", 1)]


def test_xml_in_other_encodings(tmp_path):
    for name in "ab": image(tmp_path / f"{name}.jpg")
    voc(tmp_path / "a.xml", "a.jpg")
    text = (tmp_path / "a.xml").read_text()
    (tmp_path / "a.xml").write_bytes(f"<?xml version='1.0' encoding='utf-16'?>{text}".encode("utf-16"))
    assert find_detections(tmp_path) == "voc"
    (still,) = read_detections(tmp_path)
    assert still.boxes_xywh.tolist() == [BOX] and relative([still], tmp_path) == ["a.jpg"]
    for encoding in ("foo-8", "utf-32"):
        (tmp_path / "b.xml").write_text(f"<?xml version='1.0' encoding='{encoding}'?>{text}")
        assert flaws(tmp_path, "annotation") == [("b.xml", 0)]


@pytest.mark.parametrize("content", [b"", b"not an image", b"\xff\xd8\xff"])
def test_unreadable_image_of_a_yolo_set(tmp_path, content):
    for name in "ab": image(tmp_path / f"images/{name}.jpg")
    (tmp_path / "images/b.jpg").write_bytes(content)
    (tmp_path / "labels").mkdir()
    for name in "ab": (tmp_path / f"labels/{name}.txt").write_text("0 .5 .5 .1 .1\n")
    stills, found = scan_detections(tmp_path)
    assert relative(stills, tmp_path) == ["images/a.jpg"] and [(f.kind, f.file) for f in found] == [("unreadable", "images/b.jpg")]


@pytest.mark.parametrize("name", ["../outside.jpg", "link.jpg", "links/outside.jpg", "ABSOLUTE", "C:\\outside.jpg", "..\\outside.jpg"])
def test_images_outside_are_refused(tmp_path, name):
    image(tmp_path / "outside.jpg")
    home = tmp_path / "set"
    image(home / "a.jpg")
    os.symlink(tmp_path / "outside.jpg", home / "link.jpg")
    os.symlink(tmp_path, home / "links")
    coco(home / "coco.json", ["a.jpg", name.replace("ABSOLUTE", str(tmp_path / "outside.jpg"))])
    with pytest.raises(UserError, match="lies outside the data folder"): read_detections(home)
    assert flaws(home, "outside") == [("coco.json", 0)]


def test_links_inside_and_a_linked_root_are_fine(tmp_path):
    image(tmp_path / "set/images/a.jpg")
    os.symlink("a.jpg", tmp_path / "set/images/b.jpg")
    os.symlink("..", tmp_path / "set/images/loop")
    coco(tmp_path / "set/coco.json", ["images/a.jpg", "images/b.jpg"])
    os.symlink(tmp_path / "set", tmp_path / "alias")
    assert relative(read_detections(tmp_path / "alias"), tmp_path / "alias") == ["images/a.jpg", "images/b.jpg"]
    assert list_files(tmp_path / "alias") == (["coco.json", "images/a.jpg", "images/b.jpg"], set())


def test_nothing_is_written(tmp_path):
    image(tmp_path / "a.jpg")
    coco(tmp_path / "coco.json", ["a.jpg"])
    assert len(read_detections(tmp_path)) == 1 and sorted(os.listdir(tmp_path)) == ["a.jpg", "coco.json"]


@pytest.mark.skipif(not HIT_UAV.is_dir(), reason="needs the shared thermal frames")
def test_real_frames():
    stills = read_detections(HIT_UAV)
    boxes = np.concatenate([s.boxes_xywh for s in stills])
    assert len(stills) == 552 and image_size(stills[0].image) == (512, 640)
    assert sum(label == "Person" for s in stills for label in s.labels) == 2189 + 638 + 602 + 262 + 727
    assert boxes[:, :2].min() == 0 and (boxes[:, :2] + boxes[:, 2:]).max(0).tolist() == [640, 512]


# ---- whatever else may stand in a file

ODD = [None, [], {}, "", "x", "../x", -1, 10 ** 400, float("nan"), True, [1, 2], {"id": 1}, [[1]], "\x00"]


def spots(value, path=()):
    "Paths to everything inside nested lists and dicts."
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items: yield from spots(inner, (*path, key))


def test_any_value_anywhere_in_a_coco_file(tmp_path):
    for name in "ab": image(tmp_path / f"{name}.jpg")
    good = coco(tmp_path / "coco.json", ["a.jpg", "b.jpg"], iscrowd=0)
    for spot in spots(good):
        for odd in ODD:
            data = json.loads(json.dumps(good))
            holder = data
            for key in spot[:-1]: holder = holder[key]
            if spot: holder[spot[-1]] = odd
            else: data = odd
            (tmp_path / "coco.json").write_text(json.dumps(data))
            stills, found = scan_detections(tmp_path, "coco")
            assert all(np.isfinite(s.boxes_xywh).all() and len(s.labels) == len(s.boxes_xywh) for s in stills)
    (tmp_path / "coco.json").write_text("[" * 100000)
    assert flaws(tmp_path, "annotation", "coco") == [("coco.json", 0)]


@pytest.mark.parametrize("layout, place", [("voc", "a.xml"), ("yolo", "labels/a.txt"), ("mot", "det.txt"), ("coco", "coco.json")])
def test_a_file_cut_anywhere(tmp_path, layout, place):
    image(tmp_path / "img" / "1.jpg")
    voc(tmp_path / "a.xml", "1.jpg")
    coco(tmp_path / "coco.json", ["img/1.jpg"])
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/a.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    (tmp_path / "det.txt").write_text("1,-1,1,2,3,4,1,Person\n")
    whole = (tmp_path / place).read_bytes()
    for end in range(len(whole)):
        for tail in (b"", b"\xff\xfe"):
            (tmp_path / place).write_bytes(whole[:end] + tail)
            scan_detections(tmp_path, layout)
