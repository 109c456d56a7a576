"""Sources of other shapes: tables of photos, ready splits and ZIPs; what is taken of each, and what is said."""

import zipfile
import zlib
from collections import Counter
from pathlib import Path

import pytest
from test_collect import files, host, rows  # noqa: F401 (a fixture)
from test_fetch import picture

from utils.dataset import read_dataset
from utils.download import places_report, read_folder, read_places, source_pictures, take_photos
from utils.errors import FieldguideError
from utils.export.attribution import attribution
from utils.project import Project
from utils.storage import content_id, write_whole
from utils.tables import GIVEN_COLUMNS, read_rows
from utils.verify import verify_images

LABELS = "\n[labels]\nant = []\nbee = []\n"


def project_of(tmp_path, source, more="", labels=LABELS):
    """Return a project with a source, its files beside it."""
    text = (
        f'name = "insects"\nsource = "{source}"\ndata_dir = "data"\nmodels_dir = "models"\nweights = "none"\n{more}\n'
    )
    (tmp_path / "project.toml").write_text(text + labels, encoding="utf-8")
    return Project.load(tmp_path / "project.toml")


def put(folder, *names):
    """Put a photo of its own under each name; return name → id."""
    ids = {}
    for name in names:
        data = picture(zlib.crc32(name.encode()))
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
        ids[name] = content_id(data)
    return ids


def taken(project):
    """Take all sources; return the own names of the photos that were kept, by label."""
    for place in project.places:
        take_photos(project, place)
    kept = sorted((row["label"], row["title"]) for row in rows(project) if row["status"] == "kept")
    return {label: [title for own, title in kept if own == label] for label in project.labels}


def given(project):
    """Return given.csv: the name of each photo with what was said of it."""
    found = read_rows(project.table("given"), GIVEN_COLUMNS)
    return {row["url"].rpartition("/")[2]: tuple(row[name] for name in GIVEN_COLUMNS[2:]) for row in found}


def test_a_table_names_files_as_people_write_them(tmp_path):
    """With folders or without, with an ending or without, in another case, with backslashes or a whole path."""
    put(
        tmp_path / "set",
        "images/a1.jpg",
        "images/a2.JPG",
        "images/Ä3.jpg",
        "deep/er/b1.jpg",
        "deep/er/b2.jpg",
        "b3.png",
    )
    whole = tmp_path / "set" / "b3.png"
    table = [
        "file,label",
        "a1,ant",
        "IMAGES/A2.jpg,ant",
        "ä3.jpg,ant",
        "er\\b1.jpg,bee",
        "deep/er/b2,bee",
        f"{whole},bee",
    ]
    (tmp_path / "set" / "labels.csv").write_text("\n".join(table), encoding="utf-8")
    for labels in (LABELS, ""):
        project = project_of(tmp_path, "set/labels.csv", labels=labels)
        assert taken(project) == {"ant": ["a1.jpg", "a2.JPG", "Ä3.jpg"], "bee": ["b1.jpg", "b2.jpg", "b3.png"]}
    report = places_report(project)
    assert report.remarks == [] and report.table.loc["ant"].to_dict() == {"photos there": 3, "taken": 3}


def test_what_a_table_gets_wrong_is_counted_with_an_example(tmp_path):
    """Missing, outside, ambiguous, with two labels, listed twice, listed nowhere: each is said."""
    put(tmp_path, "out.jpg")
    put(tmp_path / "set", "a1.jpg", "a2.jpg", "b1.jpg", "b2.jpg", "x/same.jpg", "y/same.jpg", "spare.jpg", "notes.txt")
    table = [
        *("file,label", "a1.jpg,ant", "b1.jpg,bee", "a2.jpg,ant", "a2.jpg,ant", "b2.jpg,bee", "b2.jpg,ant"),
        *("gone.jpg,bee", "../out.jpg,bee", "/etc/passwd,bee", "C:\\b1.jpg,bee", "same.jpg,bee", "a1.jpg.exe,bee"),
    ]
    (tmp_path / "set" / "labels.csv").write_text("\n".join(table))
    project = project_of(tmp_path, "set/labels.csv")
    assert taken(project) == {"ant": ["a1.jpg", "a2.jpg"], "bee": ["b1.jpg"]}
    assert places_report(project).remarks == [
        "Left out: 3 rows of labels.csv with a path that leads out of the table's folder, such as '../out.jpg'.",
        "Left out: 2 rows of labels.csv with no photo of that name, such as 'gone.jpg'.",
        "Left out: 1 row of labels.csv with several such files, such as 'same.jpg'.",
        "Left out: 1 photo with two labels in labels.csv, such as b2.jpg: 'ant' and 'bee'. Keep the row that is right.",
        "1 photo in labels.csv twice, such as a2.jpg.",
        "3 photos beside labels.csv in no row, such as spare.jpg.",
        f"Passed over in {tmp_path / 'set'}: 1 text or table (notes.txt).",
    ]


def test_our_own_files_beside_a_table_are_not_its_photos(tmp_path):
    """The data folder may lie below the folder of the table."""
    put(tmp_path, "a1.jpg", "b1.jpg")
    (tmp_path / "labels.csv").write_text("file,label\na1.jpg,ant\nb1.jpg,bee\n")
    project = project_of(tmp_path, "labels.csv")
    assert taken(project) == taken(project) == {"ant": ["a1.jpg"], "bee": ["b1.jpg"]}
    assert "no row" not in " ".join(places_report(project).remarks)


def test_labels_of_a_table_are_chosen_and_spelt_one_way(tmp_path):
    """Those that the project file leaves out are counted; one in another case is asked about."""
    put(tmp_path / "set", "a1.jpg", "b1.jpg", "w1.jpg")
    table = tmp_path / "set" / "labels.csv"
    table.write_text("file,label\na1.jpg,ant\nb1.jpg,bee\nw1.jpg,wasp\n")
    project = project_of(tmp_path, "set/labels.csv")
    assert taken(project) == {"ant": ["a1.jpg"], "bee": ["b1.jpg"]}
    told = "Labels in labels.csv that the project file leaves out, with their rows: wasp (1)."
    assert told in places_report(project).remarks
    table.write_text("file,label\na1.jpg,Ant\nb1.jpg,bee\n")
    with pytest.raises(FieldguideError, match=r"labels\.csv has the label 'Ant', .* Is it 'ant'\?"):
        taken(project)
    table.write_text("file,label\na1.jpg,ant\nw1.jpg,wasp\n")
    with pytest.raises(
        FieldguideError, match=r"no row for the label 'bee' in .*labels\.csv\. Its labels: 'ant', 'wasp'"
    ):
        taken(project)
    table.write_text("file,label\na1.jpg,ant\nb9.jpg,bee\n")
    with pytest.raises(FieldguideError, match=r"No photo of 'bee' was found\. Left out: 1 row .*'b9.jpg'"):
        taken(project)


def test_a_folder_whose_labels_stand_in_a_table_says_so(tmp_path):
    """With and without [labels]."""
    put(tmp_path / "set", "images/a1.jpg")
    (tmp_path / "set" / "train.csv").write_text("image_id,label\na1,ant\n")
    told = r'The table train\.csv names photos and labels: write source = ".*set/train\.csv"'
    with pytest.raises(FieldguideError, match=told):
        project_of(tmp_path, "set", labels="")
    with pytest.raises(FieldguideError, match=told):
        taken(project_of(tmp_path, "set"))


def test_what_a_source_says_beside_the_label_is_kept(tmp_path):
    """Side, group, author: in given.csv, which follows the table; licence: the photo's own, else the project's."""
    ids = put(tmp_path / "set", "a1.jpg", "b1.jpg", "b2.jpg")
    table = tmp_path / "set" / "labels.csv"
    table.write_text(
        "file,label,side,group,license,creator\na1.jpg,ant,train,nest 1,CC0,Ann\nb1.jpg,bee,test,,,\nb2,bee,,,,\n"
    )
    project = project_of(tmp_path, "set/labels.csv", 'license = "mine"')
    taken(project)
    assert given(project) == {
        "a1.jpg": ("train", f"{table.as_uri()}#nest 1", "Ann", ""),
        "b1.jpg": ("test", "", "", ""),
    }
    assert [row["license"] for row in rows(project)] == ["CC0", "mine", "mine"]
    before = files(project.data)
    taken(project)
    assert files(project.data) == before
    verify_images(project)
    dataset = read_dataset(project)
    assert dataset.given_sides == {ids["a1.jpg"]: "train", ids["b1.jpg"]: "test"}
    assert dataset.given_groups == {ids["a1.jpg"]: f"{table.as_uri()}#nest 1"}
    assert read_dataset(project.model_copy(update={"use_given_split": False})).given_sides == {}
    table.write_text("file,label,side\na1.jpg,ant,valid\nb1.jpg,bee,\nb2,bee,\n")
    taken(project)
    assert given(project) == {"a1.jpg": ("valid", "", "", "")}


def test_a_ready_split_is_known_by_its_folders(tmp_path):
    """train and val with label folders: the labels are theirs; a label called train is a label."""
    put(tmp_path / "set", "train/ant/1.jpg", "train/bee/site 2/2.jpg", "Val/ant/3.jpg", "Val/bee/4.jpg", "more/5.jpg")
    put(tmp_path / "set", "test/6.jpg")
    project = project_of(tmp_path, "set", labels="")
    assert list(project.labels) == ["ant", "bee"]
    assert taken(project) == {"ant": ["1.jpg", "3.jpg"], "bee": ["2.jpg", "4.jpg"]}
    assert {name: side for name, (side, *_) in given(project).items()} == {
        **{"1.jpg": "train", "2.jpg": "train", "3.jpg": "valid", "4.jpg": "valid"}
    }
    assert f"{tmp_path / 'set'} is split already (Val, train). 03 keeps that; use" in " ".join(
        places_report(project).remarks
    )
    another = project_of(tmp_path, "set", "use_given_split = false", labels="")
    assert "03 draws another split" in " ".join(places_report(another).remarks)
    put(tmp_path / "vehicles", "train/1.jpg", "test/2.jpg", "bus/3.jpg")
    assert list(project_of(tmp_path, "vehicles", labels="").labels) == ["bus", "test", "train"]


def test_a_photo_on_two_sides_of_a_split_may_not_train(tmp_path):
    """The same bytes in train and in test: one picture, on the side that judges."""
    ids = put(tmp_path / "set", "test/ant/1.jpg", "train/bee/2.jpg", "train/ant/3.jpg")
    (tmp_path / "set" / "train" / "ant" / "again.jpg").write_bytes(
        (tmp_path / "set" / "test" / "ant" / "1.jpg").read_bytes()
    )
    project = project_of(tmp_path, "set", labels="")
    taken(project)
    verify_images(project)
    assert read_dataset(project).given_sides[ids["test/ant/1.jpg"]] == "test"


def test_a_zip_is_a_source_like_the_folder_in_it(tmp_path):
    """Also with a table in it; the addresses name the ZIP; a second run adds nothing; what was left out is said."""
    ids = put(tmp_path / "set", "insects/ant/1.jpg", "insects/bee/2.jpg")
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for name in ids:
            archive.write(tmp_path / "set" / name, name)
        archive.writestr("../up.jpg", b"x")
    project = project_of(tmp_path, "photos.zip", labels="")
    assert taken(project) == {"ant": ["1.jpg"], "bee": ["2.jpg"]}
    assert [row["url"] for row in rows(project)] == [
        f"{(tmp_path / 'photos.zip').as_uri()}#{name}" for name in ("ant/1.jpg", "bee/2.jpg")
    ]
    before = files(project.data)
    taken(project)
    assert files(project.data) == before
    assert "1 × a name that leads out of the folder (../up.jpg)" in places_report(project).remarks[0]
    with zipfile.ZipFile(tmp_path / "table.zip", "w") as archive:
        for name in ids:
            archive.write(tmp_path / "set" / name, f"set/images/{Path(name).name}")
        archive.writestr("set/labels.csv", "file,label\n1,ant\n2,bee\n")
    (tmp_path / "project.toml").unlink()
    again = project_of(tmp_path, "table.zip", labels="").model_copy(update={"name": "again"})
    assert taken(again) == {"ant": ["1.jpg"], "bee": ["2.jpg"]}


def test_a_table_of_addresses_is_fetched(tmp_path, host):  # noqa: F811
    """At most images_per_label are asked for, drawn with the seed; page, title, licence and author are kept."""
    lines = ["url,label,title,license,creator,page_url"]
    lines += [
        f"{host.url}/photo/{n},{'ant' if n < 12 else 'bee'},photo {n},CC0,Ann,https://p.org/{n}" for n in range(15)
    ]
    lines += [f"{host.url}/photo/30,ant,,,,", f"{host.url}/photo/30,bee,,,,", ",bee,,,,"]
    (tmp_path / "urls.csv").write_text("\n".join(lines))
    project = project_of(tmp_path, "urls.csv", f'images_per_label = 5\nallowed_hosts = ["{host.name}"]')
    found = taken(project)
    assert [len(titles) for titles in found.values()] == [5, 3]
    assert sorted(found["ant"]) != [f"photo {n}" for n in range(5)]
    row = next(row for row in rows(project) if row["title"] == "photo 13")
    assert (row["engine"], row["license"], row["page_url"]) == ("table", "CC0", "https://p.org/13")
    assert given(project)["13"] == ("", "", "Ann", "")
    assert places_report(project).remarks == [
        f"Left out: 1 address with two labels, such as {host.url}/photo/30.",
        "Left out: 1 row without an address.",
        "ant: 7 more photos lie there. images_per_label = 5 takes no more of them; raise it to take them.",
    ]
    before = files(project.data)
    taken(project)
    assert files(project.data) == before


def test_photos_without_a_label_wait_for_one(tmp_path):
    """Those straight in a folder that has no label folder; as many as the labels may have together."""
    ids = put(tmp_path / "set", *(f"{n}.jpg" for n in range(5)), "notes.txt")
    project = project_of(tmp_path, "set", "images_per_label = 2")
    taken(project)
    waiting = {path.stem for path in project.unsorted.iterdir()}
    assert len(waiting) == 4 and waiting <= set(ids.values()) and not project.raw.exists()
    assert places_report(project).remarks == [
        f"Passed over in {tmp_path / 'set'}: 1 text or table (notes.txt).",
        f"5 photos in {tmp_path / 'set'} lie in no label's folder. 02 shows those that were taken: give each its label "
        "there.",
    ]
    before = files(project.data)
    taken(project)
    assert files(project.data) == before
    put(tmp_path / "set", "Ants/6.jpg")
    with pytest.raises(FieldguideError, match=r"holds no photos of any label.* Its folders: 'Ants'"):
        taken(project)
    put(tmp_path / "set", "ant/7.jpg", "bee/8.jpg")
    assert taken(project) == {"ant": ["7.jpg"], "bee": ["8.jpg"]}
    told = "lie in no label's folder, and were left out, such as 0.jpg. Move them into one."
    assert places_report(project).remarks[-1] == f"5 photos in {tmp_path / 'set'} {told}"


def test_an_export_of_inaturalist_is_fetched_with_its_rights(tmp_path, host):  # noqa: F811
    """Licence and observer are in ATTRIBUTION.csv, with the page of each observation."""
    lines = ["id,user_login,quality_grade,license,url,image_url,scientific_name"]
    for n in range(8):
        name, page = ("Formica rufa", "Apis mellifera")[n % 2], f"https://www.inaturalist.org/observations/{n}"
        lines.append(f"{n},ann{n},research,CC-BY,{page},{host.url}/photo/{n},{name}")
    (tmp_path / "observations-1.csv").write_text("\n".join(lines))
    project = project_of(tmp_path, "observations-1.csv", f'allowed_hosts = ["{host.name}"]', labels="")
    found = taken(project)
    assert {label: len(titles) for label, titles in found.items()} == {"Apis mellifera": 4, "Formica rufa": 4}
    assert places_report(project).remarks == [
        "iNaturalist's table names the licence of the observation. A photo's own may differ: see its page."
    ]
    for path in project.raw.rglob("*.jpg"):
        write_whole(project.images / path.parent.name / path.name, path.read_bytes())
    dataset = read_dataset(project)
    text, licences = attribution(dataset.with_split({id: (id, "train") for id in dataset.ids}))
    assert licences == {"CC-BY (of the observation)": 8}
    assert "ann3" in text and "https://www.inaturalist.org/observations/3" in text


def test_a_limit_leaves_each_side_of_a_split_its_share(tmp_path):
    """Whatever the seed: one photo at least, however small the side is."""
    put(tmp_path / "set", *(f"train/{label}/{n}.jpg" for label in ("ant", "bee") for n in range(30)))
    put(tmp_path / "set", *(f"val/{label}/x{n}.jpg" for label in ("ant", "bee") for n in range(2)))
    put(tmp_path / "set", *(f"test/{label}/y{n}.jpg" for label in ("ant", "bee") for n in range(2)))
    source = read_folder(tmp_path / "set", ["ant", "bee"])
    for seed in range(5):
        drawn = source_pictures(source, limit=10, seed=seed)
        sides = Counter((picture.label, picture.url.split("/")[-3]) for picture in drawn)
        assert sides == {
            (label, side): n for label in ("ant", "bee") for side, n in (("train", 8), ("val", 1), ("test", 1))
        }


def test_an_interrupted_run_does_not_lose_the_split(tmp_path, monkeypatch):
    """What may not train is noted before the first photo is taken."""
    ids = put(tmp_path / "set", "train/ant/1.jpg", "train/bee/2.jpg", "test/ant/3.jpg", "test/bee/4.jpg")
    project = project_of(tmp_path, "set")
    monkeypatch.setattr("utils.download.taking.save_pictures", None)
    with pytest.raises(TypeError):
        taken(project)
    assert len(given(project)) == len(ids)


def test_a_label_that_changed_in_the_source_is_said(tmp_path):
    """The training set stays as it is: hands outrank tables."""
    put(tmp_path / "set", "1.jpg", "2.jpg", "3.jpg")
    table = tmp_path / "set" / "labels.csv"
    table.write_text("file,label\n1.jpg,ant\n2.jpg,bee\n3.jpg,ant\n")
    project = project_of(tmp_path, "set/labels.csv")
    taken(project)
    assert places_report(project).remarks == []
    verify_images(project)
    table.write_text("file,label\n1.jpg,ant\n2.jpg,bee\n3.jpg,bee\n")
    taken(project)
    assert places_report(project).remarks == [
        "Taken before under another label: 1 photo, such as 3.jpg: 'ant' then, 'bee' now. What lies in the training "
        "set stays as it is. Move it in 02's grid."
    ]


def test_a_table_of_which_no_file_is_found_says_why(tmp_path):
    """With an example of what was looked for."""
    put(tmp_path / "set", "1.jpg")
    (tmp_path / "set" / "labels.csv").write_text("file,label\nphotos/1.jpg,ant\nphotos/2.jpg,bee\n")
    with pytest.raises(FieldguideError, match=r"no photos of any label\. Left out: 2 rows .* such as 'photos/1\.jpg'"):
        taken(project_of(tmp_path, "set/labels.csv"))


def test_two_spellings_of_one_name_are_two_files(tmp_path):
    """Each is found by its own."""
    put(tmp_path / "set", "A.jpg", "a.jpg")
    if len(list((tmp_path / "set").iterdir())) < 2:
        pytest.skip("one file on this system")
    (tmp_path / "set" / "labels.csv").write_text("file,label\nA.jpg,ant\na.jpg,bee\n")
    assert taken(project_of(tmp_path, "set/labels.csv")) == {"ant": ["A.jpg"], "bee": ["a.jpg"]}


def test_two_zips_of_one_name_do_not_meet(tmp_path):
    """Each is unpacked to a folder of its own, also when 01 runs again."""
    for n, name in enumerate(("a", "b")):
        put(tmp_path / name, f"set/ant/{n}.jpg", f"set/bee/{n}{n}.jpg")
        with zipfile.ZipFile(tmp_path / name / "photos.zip", "w") as archive:
            for path in sorted((tmp_path / name / "set").rglob("*.jpg")):
                archive.write(path, path.relative_to(tmp_path / name / "set").as_posix())
    project = project_of(tmp_path, "a/photos.zip").model_copy(
        update={"source": [str(tmp_path / name / "photos.zip") for name in ("a", "b")]}
    )
    places = read_places(project)
    for place in places:
        take_photos(project, place)
    assert {row["status"] for row in rows(project)} == {"kept"}
    assert taken(project) == {"ant": ["0.jpg", "1.jpg"], "bee": ["00.jpg", "11.jpg"]}


def test_a_source_that_was_moved_keeps_its_groups_whole(tmp_path):
    """A photo that comes after the move is in the group of those before it."""
    put(tmp_path / "set", "1.jpg", "2.jpg", "3.jpg")
    table = "file,label,group\n1.jpg,ant,Max\n2.jpg,bee,Mia\n"
    (tmp_path / "set" / "labels.csv").write_text(table)
    taken(project_of(tmp_path, "set/labels.csv"))
    (tmp_path / "set").rename(tmp_path / "moved")
    (tmp_path / "moved" / "labels.csv").write_text(table + "3.jpg,ant,Max\n")
    project = project_of(tmp_path, "moved/labels.csv")
    taken(project)
    verify_images(project)
    groups = read_dataset(project).given_groups
    assert len(groups) == 3 and len(set(groups.values())) == 2
