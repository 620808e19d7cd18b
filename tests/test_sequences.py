"""tirnas.data.layouts, places and sequences: real files in every layout, and in every disorder a data folder may have."""
import os
import pickle
import time
import warnings

import cv2
import numpy as np
import pytest

from tirnas.core import UserError
from tirnas.data import places as places_module
from tirnas.data.layouts import Tree, sequence_folders
from tirnas.data.places import LAYOUTS, cache_folder, data_folder, find_places, index_file
from tirnas.data.sequences import (Sequence, digest, from_file, open_dataset, open_sequence, to_file, write_attributes, write_boxes,
                                   write_sequence)
from tirnas.workers import run_parallel

BOXES = np.array([[10.0 + t, 12, 8, 16] for t in range(4)])     # 0-based
ONE_BASED = "".join(f"{11 + t},13,8,16\n" for t in range(4))
NAN = [np.nan] * 4


@pytest.fixture(autouse=True)
def no_silent_warnings(tmp_path, monkeypatch):
    "A warning that a test does not expect is a failure; indices stay out of the home folder."
    monkeypatch.setenv("TIRNAS_CACHE", str(tmp_path / "cache"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def frame(t, hw=(48, 64)):
    return np.random.default_rng(t).integers(0, 255, hw).astype(np.uint8)


def put(root, *names, text=ONE_BASED):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        if (root / name).suffix in (".png", ".jpg", ".tiff", ".bmp"):
            cv2.imencode((root / name).suffix, frame(int((root / name).stem) - 1))[1].tofile(root / name)
        else: (root / name).write_text(text)
    return root


def images(folder, digits=4, suffix=".png", count=4):
    return [f"{folder}/{t + 1:0{digits}d}{suffix}" for t in range(count)]


def unchanged(root):
    return {p: (p.lstat().st_mtime_ns, p.lstat().st_size) for p in root.rglob("*")}


def only(path, expected, **more):
    "The one sequence that is found, read from end to end; nothing in its folder is touched."
    before = unchanged(path) if path.is_dir() else None
    (sequence,) = open_dataset(path, **more)
    assert sequence.place.layout == expected and len(sequence) == len(sequence.boxes_xywh) == len(list(sequence.frames()))
    assert isinstance(sequence.attributes, frozenset)
    if before is not None: assert unchanged(path) == before
    return sequence


# --- layouts

@pytest.mark.parametrize("truth", ("groundtruth.txt", "groundtruth_rect.txt"))
@pytest.mark.parametrize("home", ("img", "."))
def test_otb(tmp_path, truth, home):
    put(tmp_path / "d", *images(f"walk/{home}"), f"walk/{truth}")
    sequence = only(tmp_path / "d", "otb")
    assert sequence.name == "walk" and sequence.origin == 1 and sequence.attributes == frozenset()
    np.testing.assert_array_equal(sequence.boxes_xywh, BOXES)
    np.testing.assert_array_equal(sequence.frame(2), frame(2))


def test_otb_with_two_targets(tmp_path):
    put(tmp_path / "d", *images("jogging/img"), "jogging/groundtruth_rect.1.txt")
    put(tmp_path / "d", "jogging/groundtruth_rect.2.txt", text="1,1,2,2\n" * 4)
    first, second = open_dataset(tmp_path / "d")
    assert [first.name, second.name] == ["jogging.1", "jogging.2"] and first.frame_paths == second.frame_paths
    np.testing.assert_array_equal(second.boxes_xywh, [[0, 0, 2, 2]] * 4)


def test_simtir_and_a_forced_layout(tmp_path):
    put(tmp_path / "d", *images("walk/img"), "walk/groundtruth.txt")
    write_attributes(tmp_path / "d" / "att" / "walk.txt", ["occlusion"])
    assert only(tmp_path / "d", "otb").attributes == {"occlusion"}
    np.testing.assert_array_equal(only(tmp_path / "d", "otb", layout="simtir").boxes_xywh, BOXES)
    assert only(tmp_path / "d", "vot", layout="vot").origin == 0
    np.testing.assert_array_equal(only(tmp_path / "d", "otb", origin=0).boxes_xywh, BOXES + [1, 1, 0, 0])


@pytest.mark.parametrize("layout, videos, truths", (("ptb-tir", "tirsequences", "tiranno"), ("lsotb-tir", "sequences", "anno")))
def test_annotations_apart(tmp_path, layout, videos, truths):
    put(tmp_path / "d", *images(f"{videos}/walk/img", 8, ".jpg"), f"{truths}/walk.txt", f"{truths}/not here.txt")
    write_attributes(tmp_path / "d" / truths / "att" / "walk.txt", ["fast motion"], layout)
    sequence = only(tmp_path / "d", layout)
    assert sequence.name == "walk" and sequence.attributes == {"fast motion"} and sequence.frame_paths[0].name == "00000001.jpg"
    np.testing.assert_array_equal(sequence.boxes_xywh, BOXES)


def test_lsotb_long_term_has_absent_targets_and_no_attributes(tmp_path):
    put(tmp_path / "d", *images("sequences/walk/img"))
    put(tmp_path / "d", "anno/walk.txt", text="11,13,8,16\n0,0,0,0\n0,0,0,0\n14,13,8,16\n")
    sequence = only(tmp_path / "d", "lsotb-tir")
    np.testing.assert_array_equal(sequence.boxes_xywh, [BOXES[0], [0] * 4, [0] * 4, BOXES[3]])
    np.testing.assert_array_equal(to_file(sequence.boxes_xywh, 1)[1], [0] * 4)


def test_lsotb_with_boxes_in_both_places_is_one_data_set(tmp_path):
    put(tmp_path / "d", *images("sequences/walk/img"), "sequences/walk/groundtruth_rect.txt", "anno/walk.txt")
    assert only(tmp_path / "d", "lsotb-tir").place.truth.endswith("anno/walk.txt")
    assert only(tmp_path / "d" / "sequences", "otb").name == "walk"


def test_frames_without_annotation_are_told(tmp_path):
    put(tmp_path / "d", *images("sequences/walk/img"), *images("sequences/run/img"), "anno/walk.txt")
    with pytest.warns(UserWarning, match="holds 1 folders without a file in anno, first 'run'"): (sequence,) = open_dataset(tmp_path / "d")
    assert sequence.name == "walk"


def vid(*objects):
    items = "".join(f"<object><trackid>{k}</trackid><name>person</name><bndbox><xmin>{x}</xmin><ymin>{y}</ymin><xmax>{x + w}</xmax>"
                    f"<ymax>{y + h}</ymax></bndbox></object>" for k, (x, y, w, h) in objects)
    return f"<annotation><filename>wrong</filename>{items}</annotation>"


def test_lsotb_training_set(tmp_path):
    home = tmp_path / "d" / "LSOTB-TIR_TrainingData"
    put(home, *images("TrainingData/TIR_training_001/car_001", 8, ".jpg"), *images("TrainingData/TIR_training_002/car_001", 8, ".jpg"))
    for t in range(4):
        put(home, f"Annotations/TIR_training_001/car_001/{t + 1:08d}.xml", text=vid((0, (10 + t, 12, 8, 16)), *[(1, (30, 5, 6, 7))][:t == 3]))
        put(home, f"Annotations/TIR_training_002/car_001/{t + 1:08d}.xml", text=vid((0, (10 + t, 12, 8, 16))))
    one, late, other = open_dataset(tmp_path / "d")
    assert [one.name, late.name] == ["car_001_0", "car_001_1"] and one.place.layout == "lsotb-tir-train" and other.name == "car_001"
    for s in (one, other): np.testing.assert_array_equal(s.boxes_xywh, BOXES)
    np.testing.assert_array_equal(late.boxes_xywh, [[0] * 4] * 3 + [[30, 5, 6, 7]])
    (home / "Annotations/TIR_training_002/car_001/00000002.xml").unlink()
    other = open_dataset(home)[2]
    np.testing.assert_array_equal(other.boxes_xywh, [BOXES[0], NAN, BOXES[2], BOXES[3]])


@pytest.mark.parametrize("tracks, names", (
    ([[], [], [0], [0], [], []], ["car"]), ([[0]] * 2 + [[0, 1]] + [[0]] * 3, ["car_0", "car_1"]), ([[0], [1], [2], [3], [4], [5]], [f"car_{n}" for n in range(6)])))
def test_a_track_may_come_late_and_go_early(tmp_path, tracks, names):
    put(tmp_path / "d", *images("TrainingData/car", 8, ".jpg", 6))
    for t, here in enumerate(tracks): put(tmp_path / "d", f"Annotations/car/{t + 1:08d}.xml", text=vid(*[(k, (10, 12, 8, 16)) for k in here]))
    sequences = open_dataset(tmp_path / "d")
    assert [s.name for s in sequences] == names
    for s in sequences: np.testing.assert_array_equal(s.boxes_xywh[:, 2] > 0, [int(s.place.track) in here for here in tracks])


def test_xml_files_without_any_object_are_told(tmp_path):
    put(tmp_path / "d", *images("TrainingData/car", 8), *images("TrainingData/bus", 8))
    for t in range(4):
        put(tmp_path / "d", f"Annotations/car/{t + 1:08d}.xml", text=vid((0, (10, 12, 8, 16))))
        put(tmp_path / "d", f"Annotations/bus/{t + 1:08d}.xml", text=vid() if t else "<annotation><object>")
    with pytest.warns(UserWarning, match="Annotations/bus has no object in any XML file and is left out .*00000001.xml is not"):
        assert [s.name for s in open_dataset(tmp_path / "d")] == ["car"]


def test_got10k(tmp_path):
    put(tmp_path / "d", *images("train/a/.", 8, ".jpg"), *images("train/b", 8, ".jpg"), "train/a/groundtruth.txt", "train/b/groundtruth.txt")
    put(tmp_path / "d", "train/a/absence.label", text="0\n1\n0\n0\n")
    put(tmp_path / "d", "train/a/meta_info.ini", "train/b/meta_info.ini", text="[METAINFO]\nobject_class: car\n")
    put(tmp_path / "d", "train/list.txt", text="b\na\n")
    b, a = open_dataset(tmp_path / "d")
    assert (a.name, b.name, a.place.layout, a.attributes) == ("a", "b", "got10k", {"absence"})
    np.testing.assert_array_equal(b.boxes_xywh, BOXES)
    np.testing.assert_array_equal(a.boxes_xywh, [BOXES[0], [0] * 4, BOXES[2], BOXES[3]])


def test_a_hidden_test_set_gives_only_the_first_box(tmp_path):
    put(tmp_path / "d", *images("a", 8, ".jpg"))
    put(tmp_path / "d", "a/groundtruth.txt", text="11,13,8,16\n")
    np.testing.assert_array_equal(only(tmp_path / "d", "otb").boxes_xywh, [BOXES[0], NAN, NAN, NAN])


@pytest.mark.parametrize("home", ("ir", "color", "."))
def test_vot(tmp_path, home):
    put(tmp_path / "d", *images(f"walk/{home}", 8, ".jpg"))
    put(tmp_path / "d", "walk/groundtruth.txt", text="20,10,40,30,20,50,0,30\nnan,nan,nan,nan,nan,nan,nan,nan\n1\n10,20,30,40\n")
    put(tmp_path / "d", "walk/occlusion.tag", text="0\n1\n0\n0\n")
    put(tmp_path / "d", "walk/camera_motion.tag", text="0\n0\n0\n0\n")
    put(tmp_path / "d", "list.txt", text="walk\n")
    sequence = only(tmp_path / "d", "vot")
    assert sequence.attributes == {"occlusion"} and sequence.origin == 0
    np.testing.assert_array_equal(sequence.boxes_xywh, [[0, 10, 40, 40], NAN, NAN, [10, 20, 30, 40]])


def test_vot_sequence_file_names_the_channel(tmp_path):
    put(tmp_path / "d", *images("walk/thermal", 8, ".png"), *images("walk/color", 8, ".jpg"))
    put(tmp_path / "d", "walk/groundtruth.txt", text="10,12,8,16\n" * 4)
    put(tmp_path / "d", "walk/sequence", text="fps=30\nchannels.color=color/%08d.jpg\nchannels.ir=thermal/%08d.png\n")
    assert only(tmp_path / "d", "vot").frame_paths[0].parent.name == "thermal"


def test_rgbt(tmp_path):
    put(tmp_path / "d", *images("walk/infrared"), *images("walk/visible"), "walk/infrared.txt", "walk/visible.txt")
    sequence = only(tmp_path / "d", "rgbt")
    assert sequence.frame_paths[0].parent.name == "infrared"
    np.testing.assert_array_equal(sequence.boxes_xywh, BOXES)


def write_video(path, count=4):
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, (64, 48))
    for t in range(count): writer.write(np.full((48, 64, 3), 20 * t, np.uint8))
    writer.release()


def test_video(tmp_path):
    write_video(tmp_path / "d" / "night walk.avi")
    write_boxes(tmp_path / "d" / "night walk.txt", BOXES)
    for path in (tmp_path / "d", tmp_path / "d" / "night walk.avi"):
        sequence = only(path, "video")
        assert sequence.name == "night walk" and sequence.frame(3).mean() == pytest.approx(60, abs=2)
        np.testing.assert_array_equal(sequence.boxes_xywh, BOXES)
    assert digest([sequence]) == digest([only(tmp_path / "d", "video")])
    (tmp_path / "d" / "night walk.txt").unlink()
    assert np.isnan(only(tmp_path / "d" / "night walk.avi", "video").boxes_xywh).all()
    assert np.isnan(only(tmp_path / "d", "video", layout="video").boxes_xywh).all()


def test_images_without_boxes(tmp_path):
    put(tmp_path / "d", *images("a", suffix=".tiff"), *images("b/img"))
    assert [(s.name, len(s), s.place.layout) for s in open_dataset(tmp_path / "d")] == [("a", 4, "images"), ("b", 4, "images")]
    pattern = only(tmp_path / "d" / "a" / "*.tiff", "images")
    assert pattern.name == "a" and np.isnan(pattern.boxes_xywh).all() and pattern.boxes_xywh.shape == (4, 4)
    assert len(only(tmp_path / "d" / "a" / "0002.tiff", "images")) == 1


def test_stills_become_sequences_of_one_frame(tmp_path):
    put(tmp_path / "d", "JPEGImages/0001.png", "JPEGImages/0002.png")
    box = "<bndbox><xmin>11</xmin><ymin>13</ymin><xmax>18</xmax><ymax>28</ymax></bndbox>"
    for t, count in ((1, 2), (2, 1)):
        put(tmp_path / "d", f"Annotations/000{t}.xml", text=f"<annotation><filename>000{t}.png</filename>" + f"<object><name>person</name>{box}</object>" * count + "</annotation>")
    sequences = open_dataset(tmp_path / "d")
    assert [s.name for s in sequences] == ["0001_0", "0001_1", "0002_0"] and sequences[0].place.label == "person"
    assert len(sequences[2]) == 1 and sequences[2].boxes_xywh.shape == (1, 4)
    np.testing.assert_array_equal(sequences[2].frame(0), frame(1))
    assert [s.name for s in open_dataset(tmp_path / "d", layout="voc")] == [s.name for s in sequences]


def test_names_that_occur_twice(tmp_path):
    put(tmp_path / "d", *images("one/walk/img"), *images("two/walk/img"), "one/walk/groundtruth.txt", "two/walk/groundtruth.txt",
        *images("two/run/img"), "two/run/groundtruth.txt")
    assert [s.name for s in open_dataset(tmp_path / "d")] == ["one_walk", "run", "two_walk"]
    put(tmp_path / "e", *[f"{home}/walk/groundtruth.txt" for home in ("w", "wa", "walk/walk", "img")])
    assert [s.name for s in open_dataset(tmp_path / "e")] == ["img_walk", "w_walk", "wa_walk", "walk_walk_walk"]
    put(tmp_path / "f", *[f"{home}/s/groundtruth.txt" for home in ("a/b", "a_b", "c")])
    assert sorted(s.name for s in open_dataset(tmp_path / "f")) == ["a_b_s", "a_b_s-2", "c_s"]


@pytest.mark.parametrize("homes, names", (
    (("a/s", "b/s", "a_s"), {"a/s": "a_s-2", "b/s": "b_s", "a_s": "a_s"}),
    (("a/s", "b/s", "a_s", "a_s-2"), {"a/s": "a_s-3", "b/s": "b_s", "a_s": "a_s", "a_s-2": "a_s-2"})))
def test_names_that_only_seem_to_differ(tmp_path, homes, names):
    put(tmp_path / "d", *[f"{home}/{name}" for home in homes for name in ("groundtruth.txt", "img/0001.png")])
    found = {os.path.relpath(s.place.frames, tmp_path.resolve() / "d").removesuffix("/img"): s.name for s in open_dataset(tmp_path / "d")}
    assert found == names


@pytest.mark.parametrize("layout", ("vid", "stills", "images", "video"))
def test_names_are_unique_in_every_layout(tmp_path, layout):
    home = tmp_path / "d"
    if layout == "vid":
        for part in ("1/car", "2/car", "1_car", "2/car_0"):
            put(home, *images(f"TrainingData/{part}", count=1))
            put(home, f"Annotations/{part}/0001.xml", text=vid((0, (1, 2, 3, 4)), *[(1, (1, 2, 3, 4))] * (part == "2/car")))
    if layout == "stills":
        for part in ("a/0001", "b/0001", "a_0001"): put(home, *images(f"{part}/images", count=1)); put(home, f"{part}/labels/0001.txt", text="0 .5 .5 .2 .2\n")
    if layout == "images":
        for part in ("walk", "run"): put(home, *images(f"{part}/img"))
    if layout == "video":
        for name in ("walk.avi", "walk.mkv"): write_video(home / name)
        put(home, "walk.txt")
    names = [s.name for s in open_dataset(home)]
    assert len(names) == len(set(names)) == {"vid": 5, "stills": 3, "images": 2, "video": 2}[layout]
    assert names == [s.name for s in open_dataset(home)]


def test_strange_names(tmp_path):
    put(tmp_path / "Wärmebild [1]", *images("geht weg, schnell/img"), "geht weg, schnell/groundtruth.txt", *images("雪 人/img"), "雪 人/groundtruth.txt")
    sequences = open_dataset(tmp_path / "Wärmebild [1]")
    assert [s.name for s in sequences] == ["geht weg, schnell", "雪 人"]
    for s in sequences: np.testing.assert_array_equal(s.boxes_xywh, BOXES)


# --- none, several, wrong

def test_several_layouts(tmp_path):
    put(tmp_path / "d", *images("a/img"), "a/groundtruth.txt", *images("b"), "b/groundtruth.txt", "b/absence.label")
    with pytest.raises(UserError, match="1 of layout got10k .first b., 1 of layout otb .first a.: give one of these layouts by name .--layout got10k, in Python layout='got10k'."):
        open_dataset(tmp_path / "d")
    assert [s.name for s in open_dataset(tmp_path / "d", layout="otb")] == ["a", "b"]


def test_detection_sets_beside_sequences_are_told(tmp_path):
    put(tmp_path / "d", *images("ptb/walk/img"), "ptb/walk/groundtruth.txt", *images("hit/test"), *images("plain"), "att/walk.txt")
    put(tmp_path / "d", "hit/annotations/test.json", text='{"images": [{"id": 1, "file_name": "0001.png"}], "annotations": []}')
    with pytest.warns(UserWarning, match=r"d also holds detection sets, which are passed over: hit \(coco\); give such a folder") as told:
        assert [s.name for s in open_dataset(tmp_path / "d")] == ["walk"]
    assert len(told) == 1 and len(open_dataset(tmp_path / "d" / "ptb")) == 1 == len(open_dataset(tmp_path / "d", layout="otb"))


def test_nothing_found(tmp_path):
    put(tmp_path / "d", "readme.txt")
    with pytest.raises(UserError, match="d holds no sequences .looked for ptb-tir: .*otb: groundtruth.txt.*images.*by name$") as caught: open_dataset(tmp_path / "d")
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="holds no sequences .looked for ptb-tir: tirsequences/ and tiranno/.: give"): open_dataset(tmp_path / "d", layout="ptb-tir")
    with pytest.raises(UserError, match="layout 'lasot' is unknown: give one of ptb-tir"): open_dataset(tmp_path / "d", layout="lasot")
    with pytest.raises(UserError, match="none does not exist"): open_dataset(tmp_path / "none")
    with pytest.raises(UserError, match="d is not a sequence: it needs img/"): open_sequence(tmp_path / "d")


@pytest.mark.parametrize("name", ("set.zip", "set.tar.gz", "set.7z"))
def test_an_archive(tmp_path, name):
    put(tmp_path, name)
    with pytest.raises(UserError, match="is an archive: unpack it and give the folder"): open_dataset(tmp_path / name)


def test_a_file_that_is_no_data(tmp_path):
    put(tmp_path, "notes.pdf")
    with pytest.raises(UserError, match="notes.pdf is neither"): open_dataset(tmp_path / "notes.pdf")


# --- disorder within a sequence

def test_other_counts(tmp_path):
    for have, count in ((3, 4), (5, 4)):
        root = put(tmp_path / str(have), *images("walk/img", count=have), "walk/groundtruth.txt")
        (sequence,) = open_dataset(root)
        with pytest.warns(UserWarning, match=f"walk/img has {have} frames but {count} boxes in .*walk/groundtruth.txt: only the first {min(have, count)} are used"):
            assert len(sequence) == min(have, count)
        np.testing.assert_array_equal(sequence.boxes_xywh, BOXES[:len(sequence)])


def test_a_bad_line_costs_one_frame(tmp_path):
    put(tmp_path / "d", *images("walk/img"))
    (tmp_path / "d/walk/groundtruth.txt").write_bytes(b"\xef\xbb\xbf11\t13\t8\t16\r\n\r\n13,nan,8,16\r\n14;13;8;16\r\n")
    (sequence,) = open_dataset(tmp_path / "d")
    with pytest.warns(UserWarning, match=r"groundtruth.txt:2: '' is not a box"): boxes = sequence.boxes_xywh
    np.testing.assert_array_equal(boxes, [BOXES[0], NAN, [12, np.nan, 8, 16], BOXES[3]])


def test_unreadable_frames_are_named(tmp_path):
    put(tmp_path / "d", *images("walk/img", suffix=".jpg"), "walk/groundtruth.txt")
    (sequence,) = open_dataset(tmp_path / "d")
    whole = (tmp_path / "d/walk/img/0003.jpg").read_bytes()
    for content in (b"", b"text", whole[:len(whole) // 2]):
        (tmp_path / "d/walk/img/0003.jpg").write_bytes(content)
        assert len(sequence) == 4 and sequence.frame(1).shape == (48, 64)
        with pytest.raises(UserError, match="0003.jpg cannot be read as an image"): list(sequence.frames())


def test_frames_of_different_sizes_and_depths_are_read(tmp_path):
    put(tmp_path / "d", *images("walk/img"), "walk/groundtruth.txt")
    cv2.imwrite(str(tmp_path / "d/walk/img/0002.png"), np.full((20, 30), 40_000, np.uint16))
    shapes = [(f.shape, f.dtype.name) for f in only(tmp_path / "d", "otb").frames()]
    assert shapes == [((48, 64), "uint8"), ((20, 30), "uint16"), ((48, 64), "uint8"), ((48, 64), "uint8")]


def test_no_frames_at_all(tmp_path):
    put(tmp_path / "d", "walk/groundtruth.txt")
    (tmp_path / "d/walk/img").mkdir()
    (sequence,) = open_dataset(tmp_path / "d")
    with pytest.raises(UserError, match="walk/img holds no images"): len(sequence)


# --- the fence

def test_links_out_of_the_data_folder_are_left_out(tmp_path):
    outside = put(tmp_path / "secret", *images("img"), "groundtruth.txt")
    put(tmp_path / "d", *images("walk/img"), "walk/groundtruth.txt")
    (tmp_path / "d/stolen").symlink_to(outside)
    (tmp_path / "d/inner").symlink_to(tmp_path / "d/walk")
    with pytest.warns(UserWarning, match="stolen leads out of the data folder .* and is not read") as told: names = [s.name for s in open_dataset(tmp_path / "d")]
    assert names == ["inner", "walk"] and len(told) == 1


def test_a_linked_annotation_or_frame(tmp_path):
    outside = put(tmp_path / "secret", "truth.txt", "0001.png")
    put(tmp_path / "d", *images("walk/img"), *images("run/img"), "run/groundtruth.txt")
    (tmp_path / "d/walk/groundtruth.txt").symlink_to(outside / "truth.txt")
    with pytest.warns(UserWarning, match="walk/groundtruth.txt leads out of the data folder"): (run,) = open_dataset(tmp_path / "d")
    (tmp_path / "d/run/img/0005.png").symlink_to(outside / "0001.png")
    with pytest.raises(UserError, match="0005.png is a link that leads out of the data folder"): len(run)


def lead_out(path, outside, text):
    "Put a file elsewhere and a link to it at `path`."
    put(outside, path.name, text=text)
    path.unlink(missing_ok=True)
    path.symlink_to(outside / path.name)


def told_or_refused(path, part):
    "Open and read everything; all warnings and errors must name the link."
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with pytest.raises(UserError, match=f"{part} is a link that leads out of the data folder .*: copy the file there"):
            for s in open_dataset(path): s.boxes_xywh, s.attributes
    assert all(part in str(w.message) for w in told)


def test_links_that_are_read_late(tmp_path):
    got, vot, train, att = (tmp_path / name for name in ("got", "vot", "train", "att"))
    put(got, *images("a", 8, ".jpg"), "a/groundtruth.txt", "a/meta_info.ini")
    lead_out(got / "a/absence.label", tmp_path / "secret", "0\n1\n0\n0\n")
    put(vot, *images("a/ir", 8, ".jpg"), "a/groundtruth.txt")
    lead_out(vot / "a/size_change.tag", tmp_path / "secret", "1\n" * 4)
    put(train, *images("TrainingData/car", 8, ".jpg"))
    for t in range(4): put(train, f"Annotations/car/{t + 1:08d}.xml", text=vid((0, (10, 12, 8, 16))))
    lead_out(train / "Annotations/car/00000003.xml", tmp_path / "secret", vid((0, (1, 1, 1, 1))))
    for root, part in ((got, "absence.label"), (vot, "size_change.tag"), (train, "00000003.xml")): told_or_refused(root, part)
    put(att, *images("a/img"), "a/groundtruth.txt", "att/a.txt")
    (sequence,) = open_dataset(att)
    for name in ("att/a.txt", "a/groundtruth.txt"): lead_out(att / name, tmp_path / "secret", "1,1,1,1\n" * 4)
    with pytest.raises(UserError, match="att/a.txt is a link that leads out"): sequence.attributes
    with pytest.raises(UserError, match="a/groundtruth.txt is a link that leads out"): sequence.boxes_xywh


def test_a_video_whose_boxes_are_a_link(tmp_path):
    for name in ("walk.avi", "run.avi"): write_video(tmp_path / "d" / name)
    write_boxes(tmp_path / "d" / "run.txt", BOXES)
    lead_out(tmp_path / "d" / "walk.txt", tmp_path / "secret", ONE_BASED)
    with pytest.warns(UserWarning, match="walk.txt leads out of the data folder .* and is not read"): assert [s.name for s in open_dataset(tmp_path / "d")] == ["run"]
    with pytest.warns(UserWarning, match="walk.txt leads out"): run, walk = open_dataset(tmp_path / "d", layout="video")
    assert np.isnan(walk.boxes_xywh).all() and np.array_equal(run.boxes_xywh, BOXES)
    with pytest.raises(UserError, match="walk.txt is a link that leads out"): open_dataset(tmp_path / "d" / "walk.avi")[0].boxes_xywh


def test_a_still_that_became_a_link(tmp_path):
    put(tmp_path / "d", *images("images", count=1)); put(tmp_path / "d", "labels/0001.txt", text="0 .5 .5 .2 .2\n")
    (still,) = open_dataset(tmp_path / "d")
    put(tmp_path / "secret", "0001.png")
    (tmp_path / "d/images/0001.png").unlink()
    (tmp_path / "d/images/0001.png").symlink_to(tmp_path / "secret/0001.png")
    with pytest.raises(UserError, match="0001.png is a link that leads out"): len(still)


def test_a_file_that_the_user_names_may_be_a_link(tmp_path):
    write_video(tmp_path / "disk" / "walk.avi"); put(tmp_path / "disk", "0001.png")
    for name in ("walk.avi", "0001.png"): (tmp_path / name).symlink_to(tmp_path / "disk" / name)
    assert len(open_dataset(tmp_path / "walk.avi")[0]) == 4 and len(open_dataset(tmp_path / "0001.png")[0]) == 1


@pytest.mark.parametrize("entry", ("../secret", "walk/../../secret", "/etc"))
def test_list_entries_that_leave(tmp_path, entry):
    put(tmp_path / "secret", *images("img"), "groundtruth.txt")
    put(tmp_path / "d", *images("walk/img"), "walk/groundtruth.txt")
    put(tmp_path / "d", "list.txt", text=f"walk\n{entry}\n")
    with pytest.warns(UserWarning, match="list.txt names 1 folders that are not|leads out of the data folder"):
        assert [s.name for s in open_dataset(tmp_path / "d")] == ["walk"]


def test_a_channel_that_leaves(tmp_path):
    put(tmp_path / "secret", *images("color"))
    put(tmp_path / "d", *images("walk/color"))
    put(tmp_path / "d", "walk/groundtruth.txt", text="1,2,3,4\n" * 4)
    put(tmp_path / "d", "walk/sequence", text="channels.color=../../secret/color/%08d.jpg\n")
    with pytest.warns(UserWarning, match="leads out of the data folder"): (sequence,) = open_dataset(tmp_path / "d")
    assert str(sequence.frame_paths[0]).startswith(str((tmp_path / "d").resolve()))


def test_the_data_folder_may_be_a_link(tmp_path):
    put(tmp_path / "disk" / "set", *images("walk/img"), "walk/groundtruth.txt")
    (tmp_path / "data").symlink_to(tmp_path / "disk" / "set")
    np.testing.assert_array_equal(only(tmp_path / "data", "otb").boxes_xywh, BOXES)
    (tmp_path / "walk").symlink_to(tmp_path / "disk" / "set" / "walk")
    assert only(tmp_path / "walk", "otb").name == "walk"


# --- the index

@pytest.fixture
def large(tmp_path):
    "Seventy sequences that were last touched long ago."
    root = tmp_path / "large"
    for n in range(70): put(root, f"s{n:02d}/groundtruth.txt", f"s{n:02d}/img/frame.txt")
    put(root, "attic/readme")
    for path in (root, *root.rglob("*")): os.utime(path, (1e9, 1e9))
    return root


def looked(monkeypatch):
    "Count the listings that really look."
    calls, detect = [], places_module._detect
    monkeypatch.setattr(places_module, "_detect", lambda tree: calls.append(1) or detect(tree))
    return calls


def test_a_second_listing_does_not_look(large, monkeypatch):
    calls, first = looked(monkeypatch), find_places(large)
    assert find_places(large) == first and len(calls) == 1 and len(first) == 70
    assert index_file(str(large.resolve()), None).is_file() and not [p for p in large.rglob("*") if "index" in p.name]


@pytest.mark.parametrize("change", (
    lambda root: put(root, "new/groundtruth.txt"), lambda root: (root / "s03/groundtruth.txt").unlink(),
    lambda root: (root / "s03").rename(root / "s99"), lambda root: put(root, "attic/deep/groundtruth.txt"),
    lambda root: put(root, "s03/absence.label"), lambda root: put(root, "list.txt", text="s01\n")))
def test_a_changed_set_is_listed_anew(large, monkeypatch, change):
    first, calls = find_places(large), looked(monkeypatch)
    change(large)
    try: second = find_places(large)
    except UserError as e: second = str(e)
    assert len(calls) == 1 and second != first


def test_an_edited_list_is_seen(large, monkeypatch):
    put(large, "list.txt", text="s01\n")
    for path in (large / "list.txt", large): os.utime(path, (1e9, 1e9))
    put(large, "list.txt", text="s01\ns02\n")
    assert [p.name for p in find_places(large)] == ["s01", "s02"]


def test_an_edited_xml_file_is_seen(tmp_path, monkeypatch):
    root = tmp_path / "train"
    for n in range(40):
        put(root, *images(f"TrainingData/s{n:02d}", count=2))
        for t in range(2): put(root, f"Annotations/s{n:02d}/000{t + 1}.xml", text=vid((0, (10, 12, 8, 16))))
    for path in (root, *root.rglob("*")): os.utime(path, (1e9, 1e9))
    first, calls = find_places(root), looked(monkeypatch)
    assert find_places(root) == first and not calls
    for t in range(2): put(root, f"Annotations/s05/000{t + 1}.xml", text=vid((7, (10, 12, 8, 16))))
    assert (root / "Annotations/s05").stat().st_mtime_ns == 10 ** 18
    assert find_places(root)[5].track == "7" and len(calls) == 1


def test_remarks_are_said_again(large):
    (large / "out").symlink_to(large.parent)
    os.utime(large, (1e9, 1e9))
    for _ in range(2):
        with pytest.warns(UserWarning, match="out leads out of the data folder"): assert len(find_places(large)) == 70


def test_a_set_that_has_just_changed_is_not_kept(large):
    os.utime(large / "s05", (time.time(), time.time()))
    find_places(large)
    assert not cache_folder().exists()


@pytest.mark.parametrize("spoil", (lambda p: p.write_text("{"), lambda p: p.write_text("[]"), lambda p: p.write_text('{"seen": {}, "places": [[1]], "remarks": []}')))
def test_a_broken_index_is_replaced(large, spoil):
    first = find_places(large)
    spoil(index_file(str(large.resolve()), None))
    assert find_places(large) == first == find_places(large)


def test_without_a_cache_folder(large, monkeypatch, tmp_path):
    (tmp_path / "a file").write_text("")
    monkeypatch.setenv("TIRNAS_CACHE", str(tmp_path / "a file"))
    assert len(find_places(large)) == len(find_places(large)) == 70


def test_where_the_index_lies(monkeypatch, tmp_path):
    monkeypatch.delenv("TIRNAS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "tirnas"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / ".cache" / "tirnas"


# --- lazy

def test_nothing_is_read_before_it_is_asked_for(tmp_path, monkeypatch):
    put(tmp_path / "d", *images("walk/img"), "walk/groundtruth.txt", "att/walk.txt")
    (sequence,) = open_dataset(tmp_path / "d")
    for path in (tmp_path / "d").rglob("*.*"): path.unlink()
    assert sequence.name == "walk" and repr(sequence) == "Sequence('walk', otb)"
    with pytest.raises(UserError, match="holds no images"): sequence.boxes_xywh
    with pytest.raises(UserError, match="att/walk.txt cannot be read"): sequence.attributes


def test_truth_and_names_are_read_once(tmp_path):
    put(tmp_path / "d", *images("walk/img"), "walk/groundtruth.txt")
    (sequence,) = open_dataset(tmp_path / "d")
    assert sequence.boxes_xywh is sequence.boxes_xywh and sequence.frame_paths is sequence.frame_paths
    (tmp_path / "d/walk/groundtruth.txt").unlink()
    np.testing.assert_array_equal(sequence.boxes_xywh, BOXES)


def test_a_pickle_is_small_and_complete(tmp_path):
    put(tmp_path / "d", *images("walk/img"), "walk/groundtruth.txt")
    (sequence,) = open_dataset(tmp_path / "d")
    assert len(sequence.boxes_xywh) == 4
    sent = pickle.dumps(sequence)
    assert len(sent) < 1000
    np.testing.assert_array_equal(pickle.loads(sent).boxes_xywh, BOXES)
    made = Sequence("made", sequence.frame_paths, BOXES, frozenset({"occlusion"}), 0)
    again = pickle.loads(pickle.dumps(made))
    assert (again.name, again.origin, again.attributes, again.frame_paths) == ("made", 0, {"occlusion"}, sequence.frame_paths)
    assert digest([again]) == digest([made])


@pytest.mark.parametrize("given", (frozenset({"occlusion"}), frozenset()))
def test_given_attributes_travel(tmp_path, given):
    put(tmp_path / "walk", *images("img"), "groundtruth.txt", "occlusion.tag")
    put(tmp_path / "walk", "fast_motion.tag", text="1\n")
    sequence = open_sequence(tmp_path / "walk", attributes=given)
    for s in (sequence, pickle.loads(pickle.dumps(sequence)), sequence.replace(name="run")): assert s.attributes == given
    assert open_sequence(tmp_path / "walk").attributes == {"fast motion"}


@pytest.mark.parametrize("below, home", (("", "."), ("walk/0001.png", "walk"), ("*/0001.png", "."), ("walk/[0-9]*", "walk"), ("none/report.json", ".")))
def test_the_data_folder_of_a_path(tmp_path, monkeypatch, below, home):
    put(tmp_path / "set", *images("walk"))
    (tmp_path / "alias").symlink_to(tmp_path / "set")
    monkeypatch.chdir(tmp_path)
    for path in (tmp_path / "set" / below, tmp_path / "alias" / below, f"set/{below}"): assert data_folder(path) == (tmp_path / "set" / home).resolve()


def measure(sequence: Sequence) -> None:
    "What a worker does: everything anew, from the place."
    assert len(sequence) == 4 and sequence.boxes_xywh[1].tolist() == [11, 12, 8, 16] and sequence.frame(3).shape == (48, 64)


def test_workers_open_places(tmp_path):
    put(tmp_path / "d", *images("walk/img"), *images("run/img"), "walk/groundtruth.txt", "run/groundtruth.txt")
    assert len(list(run_parallel(measure, open_dataset(tmp_path / "d"), 2))) == 2


def test_replace(tmp_path):
    put(tmp_path / "d", *images("walk/img"), "walk/groundtruth.txt")
    sequence = open_dataset(tmp_path / "d")[0].replace(origin=0, name="run")
    assert (sequence.name, sequence.origin, len(sequence)) == ("run", 0, 4)
    np.testing.assert_array_equal(sequence.boxes_xywh, BOXES)
    with pytest.raises(TypeError): sequence.replace(colour="red")


# --- round trips

@pytest.mark.parametrize("origin", (0, 1))
def test_file_and_back(origin):
    boxes = np.array([[3.5, 4, 5, 6], [0, 0, 0, 0], NAN, [-1, -1, 9, 9]])
    np.testing.assert_array_equal(from_file(to_file(boxes, origin), origin), boxes)
    assert to_file(boxes, origin)[0].tolist() == [3.5 + origin, 4 + origin, 5, 6]
    assert to_file(boxes[0], origin).tolist() == [3.5 + origin, 4 + origin, 5, 6]


def test_sixteen_bits_survive(tmp_path):
    frames = [np.random.default_rng(t).integers(0, 65535, (20, 30)).astype(np.uint16) for t in range(3)]
    write_sequence(tmp_path / "walk", frames, BOXES[:3])
    for ours, theirs in zip(frames, open_sequence(tmp_path / "walk").frames()): np.testing.assert_array_equal(ours, theirs)


def test_all_layouts_say_what_they_look_for():
    assert {"otb", "ptb-tir", "lsotb-tir", "lsotb-tir-train", "got10k", "vot", "simtir", "video", "images", "coco", "voc", "yolo"} <= set(LAYOUTS)
    assert all(layout.looks_for for layout in LAYOUTS.values())


def test_looking_stops_three_levels_down(tmp_path):
    put(tmp_path / "d", "a/b/c/groundtruth.txt", "x/y/z/w/groundtruth.txt")
    assert [os.path.basename(folder) for folder, _ in sequence_folders(Tree(tmp_path / "d"))] == ["c"]
