"""tirnas.data.annotations: what a line may look like, strict and tolerant, against numbers written by hand."""
import re
import warnings

import numpy as np
import pytest

from tirnas.core import UserError
from tirnas.data.annotations import (ATTRIBUTES, boxes_of_polygons, parse_box, read_attributes, read_boxes, read_flags, read_objects,
                                     read_tags, read_track, read_track_names, read_truth, write_attributes, write_boxes)

NAN = [np.nan] * 4
TWO = [[1, 2, 3, 4], [5.5, 6, 7, 8]]


def write(tmp_path, content):
    path = tmp_path / "truth.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("read", (read_boxes, read_truth))
@pytest.mark.parametrize("content", (
    "1,2,3,4\n5.5,6,7,8\n", "1,2,3,4\n5.5,6,7,8", "1\t2\t3\t4\n5.5\t6\t7\t8\n", "1 2 3 4\n5.5 6 7 8\n", "1;2;3;4\n5.5;6;7;8\n",
    "1, 2, 3, 4\r\n5.5, 6, 7, 8\r\n", b"\xef\xbb\xbf1,2,3,4\n5.5,6,7,8\n", "1,2,3,4\n5.5,6,7,8\n\n\n", "1,2\t3 4\n5.5;6,7 8\n",
    "1e0,2,3,4\n5.5,6,7.0000,8\n", "  1,2,3,4  \n5.5,6,7,8,\n"))
def test_separators_line_ends_and_marks(tmp_path, read, content):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(read(write(tmp_path, content)), TWO)


def test_polygons_and_absent_targets_of_vot(tmp_path):
    content = "20,10,40,30,20,50,0,30\nnan,nan,nan,nan\n0,0,0,0\n10,20,30,40\n1\n0,0,4,0,4,3\n"
    expected = [[0, 10, 40, 40], NAN, [0, 0, 0, 0], [10, 20, 30, 40], NAN, [0, 0, 4, 3]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(read_truth(write(tmp_path, content), vot=True), expected)
        for line, box in (("20,10,40,30,20,50,0,30", [0, 10, 40, 40]), ("0,0,4,0,4,3", [0, 0, 4, 3]), ("0 0 4 0 4 3 2 9 1 1", [0, 0, 4, 9])):
            np.testing.assert_array_equal(read_truth(write(tmp_path, f"{line}\n" * 3), vot=True), [box] * 3)


@pytest.mark.parametrize("read", (read_boxes, read_truth))
@pytest.mark.parametrize("around", ("", "1,2,3,4\n"))
def test_eight_numbers_elsewhere_are_a_polygon_with_one_warning(tmp_path, read, around):
    path = write(tmp_path, around + "20,10,40,30,20,50,0,30\n" * 3)
    with pytest.warns(UserWarning) as told: boxes = read(path)
    said = rf"truth.txt:{2 if around else 1}: 8 numbers where 4 are expected .and 2 more lines.: read as a polygon"
    assert len(told) == 1 and re.search(said, str(told[0].message))
    np.testing.assert_array_equal(boxes[-3:], [[0, 10, 40, 40]] * 3)


@pytest.mark.parametrize("line", ("1,2,3,4,1,0", "1,2,3,4,5,6,7,8,9,10", "1,2", "1,2,3,4,5,6,7"))
def test_other_numbers_are_no_box(tmp_path, line):
    path = write(tmp_path, f"1,2,3,4\n{line}\n5,6,7,8\n")
    with pytest.warns(UserWarning, match=f"truth.txt:2: '{line}' is not a box: no truth"): boxes = read_truth(path)
    np.testing.assert_array_equal(boxes, [[1, 2, 3, 4], NAN, [5, 6, 7, 8]])
    with pytest.raises(UserError, match="truth.txt:2: .* is not a box"): read_boxes(path)
    for read in (read_boxes, read_truth):
        with pytest.raises(UserError, match=f"'{line}'.* box"): read(write(tmp_path, f"{line}\n" * 3))


@pytest.mark.parametrize("vot", (False, True))
@pytest.mark.parametrize("line", ("1,5;2,5;3,0;4,0", "-1,5\t2,5\t3,0\t4,0", "1,5 2,5 3 4,0", "1,5;2,5;3,0;4,0;5,5;6,5;7,0;8,0"))
def test_decimal_commas_are_refused(tmp_path, line, vot):
    path = write(tmp_path, f"{line}\n" * 3)
    for read in (read_boxes, lambda path: read_truth(path, vot)):
        with pytest.raises(UserError, match="truth.txt:1: .* may have decimal commas: write numbers with points") as caught: read(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("top", ("x,y,w,h", "# c", "x1 y1 w h", "", "\n\nframe box", "# written by hand\n#\nx,y,w,h"))
@pytest.mark.parametrize("below", ("1,2,3,4\n5.5,6,7,8\n", "1,2,3,4\n\n5.5,6,7,8\n", "nan,nan,nan,nan\n1,2,3,4\n"))
def test_a_heading_takes_no_frame(tmp_path, top, below):
    path = write(tmp_path, f"{top}\n{below}")
    with pytest.raises(UserError, match="truth.txt:1: .* is not a box"): read_boxes(path)
    with pytest.warns(UserWarning, match=r"truth.txt:1: .* is a heading.*: it is dropped, the boxes begin in line \d"): boxes = read_truth(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.testing.assert_array_equal(boxes, read_truth(write(tmp_path, below)))


def test_lines_are_counted_from_the_top_of_the_file(tmp_path):
    with pytest.warns(UserWarning, match="truth.txt:3: 'lost' is not a box"): read_truth(write(tmp_path, "x,y,w,h\n1,2,3,4\nlost\n"))


def test_a_mask_gives_its_box():
    assert parse_box("m12,34,5,6,0,30") == [12, 34, 5, 6]


def test_polygons_by_brute_force():
    corners = np.random.default_rng(0).uniform(-50, 300, (40, 5, 2))
    for (x, y, w, h), points in zip(boxes_of_polygons(corners.reshape(40, 10)), corners):
        assert x == min(p[0] for p in points) and y == min(p[1] for p in points)
        assert np.isclose(x + w, max(p[0] for p in points)) and np.isclose(y + h, max(p[1] for p in points))


BAD = {"text": "1,2,3,4\ntarget lost\n5,6,7,8\n", "blank": "1,2,3,4\n\n5,6,7,8\n", "three": "1,2,3,4\n1,2,3\n5,6,7,8\n",
       "five": "1,2,3,4\n1,2,3,4,5\n5,6,7,8\n", "six": "1,2,3,4\n1,2,3,4,1,0\n5,6,7,8\n", "seven": "1,2,3,4\n1,2,3,4,5,6,7\n5,6,7,8\n", "comment": "1,2,3,4\n# 1,2,3,4\n5,6,7,8\n"}


@pytest.mark.parametrize("content", BAD.values(), ids=BAD)
def test_one_bad_line(tmp_path, content):
    path = write(tmp_path, content)
    with pytest.raises(UserError, match=r"truth.txt:2: .* is not a box: give four numbers"): read_boxes(path)
    with pytest.warns(UserWarning, match=r"truth.txt:2: .* is not a box: no truth is used for that frame"): boxes = read_truth(path)
    np.testing.assert_array_equal(boxes, [[1, 2, 3, 4], NAN, [5, 6, 7, 8]])


def test_many_bad_lines_are_one_warning(tmp_path):
    with pytest.warns(UserWarning) as told: boxes = read_truth(write(tmp_path, "1,2,3,4\n" + "lost\n" * 30))
    assert len(told) == 1 and "truth.txt:2: 'lost' is not a box (and 29 more lines)" in str(told[0].message) and len(boxes) == 31


@pytest.mark.parametrize("content, said", (("", "is empty"), ("\n\n", "is empty"), ("x,y,w,h\n", "begins with 'x,y,w,h'"),
                                           ("frame one\nframe two\n", "begins with 'frame one'"), ("1,2,3\n4,5,6\n", "begins with '1,2,3'")))
def test_no_usable_line(tmp_path, content, said):
    with pytest.raises(UserError, match=f"truth.txt {said} and holds no box") as caught: read_truth(write(tmp_path, content))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("read", (read_boxes, read_truth))
def test_what_is_no_text_file(tmp_path, read):
    with pytest.raises(UserError, match="none.txt cannot be read"): read(tmp_path / "none.txt")
    with pytest.raises(UserError, match="is not a text file"): read(write(tmp_path, b"\xff\xfe1\x00,\x002\x00"))


def test_an_empty_result_has_no_boxes(tmp_path):
    assert read_boxes(write(tmp_path, "")).shape == (0, 4)


def test_writing_and_reading(tmp_path):
    boxes = np.random.default_rng(0).uniform(-20, 400, (500, 4)).round(4)
    boxes[7] = np.nan
    np.testing.assert_array_equal(read_boxes(write_boxes(tmp_path / "b.txt", boxes)), boxes)


# --- XML

def xml(path, *objects, text=None):
    items = "".join(f"<object><trackid>{track}</trackid><name>person</name><bndbox><xmax>{r}</xmax><xmin>{l}</xmin><ymax>{b}</ymax>"
                    f"<ymin>{t}</ymin></bndbox><occluded>0</occluded></object>" for track, (l, t, r, b) in objects)
    path.write_text(text if text is not None else f"<annotation><folder>x</folder><size><width>9</width></size>{items}</annotation>")
    return path


def test_tracks_of_xml_files(tmp_path):
    paths = [xml(tmp_path / "1.xml", (0, (10, 20, 40, 80)), (1, (1, 2, 3, 5))), xml(tmp_path / "2.xml", (1, (2, 2, 4, 5))),
             tmp_path / "3.xml", xml(tmp_path / "4.xml", text="<annotation><obj"), xml(tmp_path / "5.xml", (0, (12, 20, 42, 81)))]
    assert read_objects(paths[0]) == {"0": (10, 20, 30, 60), "1": (1, 2, 2, 3)}
    with pytest.warns(UserWarning, match="4.xml is not an annotation of a frame"): boxes = read_track(paths, "0")
    np.testing.assert_array_equal(boxes, [[10, 20, 30, 60], [0] * 4, NAN, NAN, [12, 20, 30, 61]])


@pytest.mark.parametrize("text", ("", "<annotation><object><bndbox><xmin>a</xmin></bndbox></object></annotation>",
                                  "<annotation><object><trackid>0</trackid></object></annotation>"))
def test_broken_xml(tmp_path, text):
    with pytest.raises(UserError, match="1.xml is not an annotation of a frame"): read_objects(xml(tmp_path / "1.xml", text=text))


def test_an_unknown_encoding(tmp_path):
    path = xml(tmp_path / "1.xml", text="<?xml version='1.0' encoding='foo-8'?><annotation><object/></annotation>")
    for read in (read_objects, read_track_names):
        with pytest.raises(UserError, match="1.xml is not an annotation of a frame .unknown encoding"): read(path)


@pytest.mark.parametrize("body", ("", "<object><trackid>0</trackid>{}</object>", "<object><trackid> 3\n</trackid>{0}</object>" * 2,
    "<object>{}</object>", "<object id='2'><trackid>4</trackid>{}</object>", "<object><trackid/>{}</object>",
    "<object><trackid>a&amp;b</trackid>{}</object>", "<object><trackid>1</trackid>{0}</object><object>{0}</object>", "<object><trackid>ü</trackid>{}</object>"))
@pytest.mark.parametrize("encoding", ("utf-8", "utf-16", "latin-1"))
def test_track_names_are_those_of_a_parser(tmp_path, body, encoding):
    box = "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>3</xmax><ymax>4</ymax></bndbox>"
    (tmp_path / "1.xml").write_bytes(f"<?xml version='1.0' encoding='{encoding}'?><annotation>{body.format(box)}</annotation>".encode(encoding))
    assert read_track_names(tmp_path / "1.xml") == set(read_objects(tmp_path / "1.xml"))


def test_no_xml_at_all(tmp_path):
    with pytest.raises(UserError, match="holds no annotation of these frames"): read_track([tmp_path / "1.xml"], "0")


# --- attributes

@pytest.mark.parametrize("benchmark", ATTRIBUTES)
def test_attributes_of_each_benchmark(tmp_path, benchmark):
    for chosen in (set(), {ATTRIBUTES[benchmark][0], ATTRIBUTES[benchmark][-1]}, set(ATTRIBUTES[benchmark])):
        assert read_attributes(write_attributes(tmp_path / "a.txt", chosen, benchmark)) == chosen


@pytest.mark.parametrize("line", ("", "1,0,1", "0,0,0,0,0,0,0,0,0,2", "a,b,c,d,e,f,g,h,i,j"))
def test_bad_attributes(tmp_path, line):
    with pytest.raises(UserError, match="is not an attribute file: give one line of 10, 12, 16"): read_attributes(write(tmp_path, line))
    with pytest.raises(UserError, match="none.txt cannot be read"): read_attributes(tmp_path / "none.txt")


def test_tags(tmp_path):
    (tmp_path / "occlusion.tag").write_text("0\n1\n")
    (tmp_path / "size_change.tag").write_text("0\n0\n")
    (tmp_path / "absence.label").write_text("0\r\n0\r\n1\r\n")
    assert read_tags(tmp_path) == {"occlusion", "absence"}
    assert read_flags(tmp_path / "absence.label").tolist() == [False, False, True]
