"""Tables of photos: which columns are found, how they may be saved, and what is left out."""

import pytest

from utils.errors import FieldguideError
from utils.photo_table import read_photo_table


def read(folder, text, name="labels.csv", encoding="utf-8", **how):
    """Write a table and read it."""
    path = folder / name
    path.write_text(text, encoding=encoding)
    return read_photo_table(path, **how)


def fields(table, *names):
    """Return some fields of each row."""
    return [tuple(row[name] for name in names) for row in table.rows]


@pytest.mark.parametrize(
    ("header", "row", "says"),
    [
        ("file,label", "a.jpg,ant", ("a.jpg", "", "ant")),
        ("Image ID,Class Name", "a,ant", ("a", "", "ant")),
        ("image_id,label", "a,ant", ("a", "", "ant")),
        ("name,label", "train/3/7.png,3", ("train/3/7.png", "", "3")),
        ("id,breed", "000bec,boston_bull", ("000bec", "", "boston_bull")),
        ("url,label", "https://a.org/1.jpg,ant", ("", "https://a.org/1.jpg", "ant")),
        ("id,url,label", "7,https://a.org/1.jpg,ant", ("", "https://a.org/1.jpg", "ant")),
        ("file,url,label", "a.jpg,https://a.org/1,ant", ("a.jpg", "", "ant")),
        ("image_id,path,label", "7,a.jpg,ant", ("a.jpg", "", "ant")),
        ("sep=;\nfile;label", "a.jpg;ant", ("a.jpg", "", "ant")),
        ('"sep=\t"\nfile\tlabel', "a.jpg\tant", ("a.jpg", "", "ant")),
    ],
)
def test_columns_are_found_by_their_names(tmp_path, header, row, says):
    """Those that people and data sets use; a number beside an address names no file."""
    assert fields(read(tmp_path, f"{header}\n{row}\n"), "file", "url", "label") == [says]


@pytest.mark.parametrize("mark", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_any_spreadsheet_may_have_saved_it(tmp_path, mark, encoding):
    """Commas, semicolons or tabs; UTF-8 or UTF-16; a label like NA or 01 stays as it is."""
    text = "\r\n".join(mark.join(row) for row in (("file", "label"), ("ä.jpg", "NA"), ("b.jpg", "01"))) + "\r\n"
    assert fields(read(tmp_path, text, encoding=encoding), "file", "label") == [("ä.jpg", "NA"), ("b.jpg", "01")]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("label,colour\nant,red\n", "has the columns label, colour, and none of them names files"),
        ("file,colour\na.jpg,red\n", "has the columns file, colour, and none of them holds labels"),
        ("", "is empty. Its first line must name the columns"),
        ("file,label\na,ant\nb,bee,wasp\n", "line 3: 3 fields where the first line has 2"),
        ("file,label\na,ant,x\n", "line 2: 3 fields where"),
    ],
)
def test_what_is_no_such_table_is_refused(tmp_path, text, says):
    """The message names the file, and the columns or the line."""
    with pytest.raises(FieldguideError, match=rf"labels\.csv.* {says}"):
        read(tmp_path, text)


def test_another_encoding_is_refused(tmp_path):
    """What a spreadsheet saves as plain CSV in some countries would give wrong letters."""
    with pytest.raises(FieldguideError, match="is not saved as UTF-8"):
        read(tmp_path, "file,label\na.jpg,Käfer\n", encoding="cp1252")


def test_sides_groups_and_rights_are_taken(tmp_path):
    """A split is known by its words, also fastai's is_valid; a word that is no side is counted."""
    table = read(
        tmp_path,
        "file,label,split,group,licence,author\na,ant,TRAIN,nest 1,CC0,Ann\nb,ant,val,nest 1,,\nc,ant,fold 3,,,\n",
    )
    told = [("train", "nest 1", "CC0", "Ann"), ("valid", "nest 1", "", ""), ("", "", "", "")]
    assert fields(table, "side", "group", "license", "creator") == told
    assert table.remarks == (
        "In 1 row the column 'split' says 'fold 3', which is none of train, valid and test. 03 finds a side for them.",
    )
    assert fields(read(tmp_path, "name,label,is_valid\na,1,True\nb,1,False\n"), "side") == [("valid",), ("train",)]


def test_group_by_may_name_a_column(tmp_path):
    """Another than `group`."""
    text = "file,label,group,Site No\na,ant,1,north\n"
    assert fields(read(tmp_path, text, group_by="site no"), "group") == [("north",)]
    assert fields(read(tmp_path, text, group_by=r"(\d+)"), "group") == [("1",)]
    assert fields(read(tmp_path, ",file,label,group\n0,a,ant,1\n"), "group") == [("1",)]  # as pandas saves it


def test_labels_that_cannot_be_are_left_out_and_told(tmp_path):
    """A label that no folder can have, and none at all; one that nearly can is mapped."""
    table = read(tmp_path, "file,label\na,Penaeus sp.\nb,\nc,..\nd,CON\n")
    assert table.labels == ["Penaeus sp"]
    assert table.remarks == (
        "Left out: 1 row without a label.",
        "Left out: 1 row with the label '..'; it begins or ends with a dot or a space.",
        "Left out: 1 row with the label 'CON'; Windows keeps that name for itself.",
        "Some systems do not take every folder name. So 'Penaeus sp.' is the label 'Penaeus sp'.",
    )


def test_an_export_of_inaturalist_is_known(tmp_path):
    """Its url is the page, its licence that of the observation, and its creator the observer."""
    text = (
        "id,user_login,user_name,quality_grade,license,url,image_url,scientific_name,common_name\n"
        "1,ann,Ann A,research,CC-BY,https://i.org/1,https://i.org/1/medium.jpg,Apis mellifera,Honey Bee\n"
        "2,ben,,research,,https://i.org/2,https://i.org/2/medium.jpg,Bombus terrestris,\n"
    )
    table = read(tmp_path, text, "observations-1.csv")
    assert fields(table, "url", "page_url", "label", "title", "license", "creator") == [
        (
            *("https://i.org/1/medium.jpg", "https://i.org/1", "Apis mellifera", "Honey Bee"),
            *("CC-BY (of the observation)", "Ann A"),
        ),
        ("https://i.org/2/medium.jpg", "https://i.org/2", "Bombus terrestris", "", "", "ben"),
    ]
    assert "names the licence of the observation" in table.remarks[0]


GBIF_MEDIA = "gbifID\ttype\tformat\tidentifier\treferences\ttitle\tcreator\tlicense\trightsHolder\n"


def test_an_export_of_gbif_is_known(tmp_path):
    """The species stand in another table; the photos of one find are a group; sounds are left out."""
    rows = (
        (
            "7",
            "StillImage",
            "image/jpeg",
            "https://g.org/1.jpg",
            "https://g.org/1",
            'a "quoted" title',
            "Ann",
            "CC0",
            "Zoo",
        ),
        ("7", "StillImage", "image/jpeg", "https://g.org/2.jpg", "", "", "", "", ""),
        ("8", "Sound", "audio/mpeg", "https://g.org/3.mp3", "", "", "", "", ""),
        ("9", "StillImage", "image/jpeg", "https://g.org/4.jpg", "", "", "", "", ""),
    )
    text = GBIF_MEDIA + "".join("\t".join(row) + "\n" for row in rows)
    with pytest.raises(FieldguideError, match=r"the species stand in occurrence\.txt, which is not beside it"):
        read(tmp_path, text, "multimedia.txt")
    finds = "gbifID\tscientificName\tspecies\n7\tApis mellifera L.\tApis mellifera\n9\tBombus sp.\t\n5\tx\ty\n"
    (tmp_path / "occurrence.txt").write_text(finds)
    table = read(tmp_path, text, "multimedia.txt")
    assert fields(table, "url", "label", "group", "title", "creator", "rights_holder") == [
        ("https://g.org/1.jpg", "Apis mellifera", "7", 'a "quoted" title', "Ann", "Zoo"),
        ("https://g.org/2.jpg", "Apis mellifera", "7", "", "", ""),
        ("https://g.org/4.jpg", "Bombus sp", "9", "", "", ""),
    ]
    assert table.remarks == (
        "Left out: 1 row of the type Sound.",
        "Some systems do not take every folder name. So 'Bombus sp.' is the label 'Bombus sp'.",
    )
    with pytest.raises(FieldguideError, match=r"is GBIF's table of finds\. Name its table of media"):
        read_photo_table(tmp_path / "occurrence.txt")
