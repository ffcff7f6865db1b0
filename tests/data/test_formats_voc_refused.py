"""PASCAL VOC files that are refused: entities, broken XML, ways out of the folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from folders_on_disk import codes, picture, voc, voc_xml, write

from onestage.data.formats import voc as module

LAUGHS = (
    '<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY a "ha">'
    + "".join(f'<!ENTITY a{i} "&a{i - 1 if i else ""};&a{i - 1 if i else ""};">' for i in range(30))
    + "]><annotation><filename>&a29;</filename></annotation>"
)
EXTERNAL = (
    '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY secret SYSTEM "file:///etc/passwd">]>'
    "<annotation><object><name>&secret;</name></object></annotation>"
)


@pytest.mark.parametrize(("text", "word"), [(LAUGHS, "DOCTYPE"), (EXTERNAL, "DOCTYPE")])
def test_entities_are_refused_and_never_expanded(tmp_path: Path, text: str, word: str) -> None:
    voc(tmp_path, {"a": [], "b": [("cat", 2, 2, 9, 9)]})
    write(tmp_path / "Annotations" / "a.xml", text)
    dataset = module.read(tmp_path, None)
    assert [image.id for image in dataset.images] == ["b"]
    (finding,) = dataset.findings
    assert (finding.code, finding.where.file) == ("refused-xml", "Annotations/a.xml")
    assert word in finding.what
    assert "root:" not in str(finding)
    assert dataset.images_read == 2


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<annotation><object>",
        b"no xml",
        b"<a/>",
        "<annotation>\udcff".encode("utf-8", "surrogateescape"),
        b'<?xml version="1.0" encoding="klingon"?><annotation/>',
        b"<x>" * 5000,
    ],
)
def test_xml_that_cannot_be_used_loses_its_image_with_a_reason(tmp_path: Path, data: bytes) -> None:
    voc(tmp_path, {"a": [], "b": [("cat", 2, 2, 9, 9)]})
    (tmp_path / "Annotations" / "a.xml").write_bytes(data)
    dataset = module.read(tmp_path, None)
    assert [image.id for image in dataset.images] == ["b"]
    assert codes(dataset) == ["unreadable-annotation"]


def test_xml_in_a_chinese_encoding(tmp_path: Path) -> None:
    voc(tmp_path, {"a": []})
    text = '<?xml version="1.0" encoding="GB2312"?>\n' + voc_xml([("安全帽", 2, 2, 9, 9)])
    (tmp_path / "Annotations" / "a.xml").write_bytes(text.encode("gb2312"))
    assert module.read(tmp_path, None).classes == ("安全帽",)


@pytest.mark.parametrize("name", ["../../etc/x.jpg", "/etc/x.jpg", "C:\\x.jpg", "..\\..\\x.jpg", "a/../../x.jpg"])
def test_a_filename_that_leads_out_is_refused(tmp_path: Path, name: str) -> None:
    root = tmp_path / "set"
    voc(root, {"a": [("cat", 2, 2, 9, 9)]})
    picture(tmp_path / "etc" / "x.jpg")
    write(root / "Annotations" / "b.xml", voc_xml([("cat", 2, 2, 9, 9)], name))
    dataset = module.read(root, None)
    assert [image.id for image in dataset.images] == ["a"]
    assert codes(dataset) == ["path-escape"]


def test_a_link_that_leads_out_is_refused_and_a_linked_folder_is_not(tmp_path: Path) -> None:
    root, other = voc(tmp_path / "set", {"a": [("cat", 2, 2, 9, 9)]}), tmp_path / "other"
    picture(other / "b.jpg")
    write(root / "Annotations" / "b.xml", voc_xml([("cat", 2, 2, 9, 9)]))
    (root / "JPEGImages" / "b.jpg").symlink_to(other / "b.jpg")
    assert codes(module.read(root, None)) == ["path-escape"]
    (root / "JPEGImages" / "b.jpg").unlink()
    (root / "JPEGImages").rename(tmp_path / "elsewhere")
    (root / "JPEGImages").symlink_to(tmp_path / "elsewhere")
    picture(root / "JPEGImages" / "b.jpg")
    assert len(module.read(root, None)) == 2
