"""
Stage 09, what becomes of it: the best settings as a project file of their own, beside yours.
"""

import shlex
from pathlib import Path

import tomlkit

from utils.errors import FieldguideError
from utils.pictures import size_text
from utils.project import HEAD_SETTINGS, Project, project_file
from utils.storage import write_whole
from utils.study.settings import Setting, read_by, studied
from utils.study.study import Study


def save_winner(study: Study, path: Path | str | None = None, *, source: Path | str | None = None) -> str:
    """
    Write the settings in the lead into a new project file; return in words which file, and how to go on.

    It is the project file (`source`, by default the one that Project.load reads) with other settings and without
    [study], its remarks kept. `path` is by default beside it: birds.toml → birds_best.toml. A file is never
    overwritten.
    """
    source = project_file(source)
    path = source.with_name(f"{source.stem}_best.toml") if path is None else Path(path)
    runs = study.runs()
    leads = study.standing(runs).leader
    if leads is None:
        raise FieldguideError(study.undecided(runs))
    if path.exists():
        raise FieldguideError(f"{path} is there already, and is not overwritten. Name another file, or move that one.")
    setting = next(setting for setting in study.settings if setting.id == leads)
    text, told = _with_settings(source, path, study, setting)
    write_whole(path, text)
    Project.load(path)  # what we wrote can be read
    command = f"PROJECT={shlex.quote(str(path))} make run"
    return f"Written: {path}{told}. Run it: {command}. It trains {study.project.models} anew."


def _with_settings(source: Path, path: Path, study: Study, setting: Setting) -> tuple[str, str]:
    """Return the text of the new project file, and what is to be said of it."""
    document = tomlkit.parse(source.read_text(encoding="utf-8-sig"))
    document.pop("study", None)
    chosen = {key: getattr(setting.project, key) for key in studied(study.project) if key in read_by(setting.project)}
    told = ""
    if setting.project.train == "head" and setting.project.size != HEAD_SETTINGS["size"]:
        chosen |= {"train": "all", "arch": setting.project.arch, "weights": setting.project.weights}
        told = (
            f'. The leader is a head at {size_text(setting.project.size)} pixels, and train = "head" takes '
            f'{HEAD_SETTINGS["size"]}. So the file says train = "all" with that size: it is not the setting that led'
        )
    elif setting.project.train == "head":
        chosen = {key: value for key, value in chosen.items() if key not in HEAD_SETTINGS}
    elif study.project.train == "head":  # then these keys of the file did not count, and now they would
        chosen |= {key: getattr(setting.project, key) for key in HEAD_SETTINGS}
    for key, value in chosen.items():
        _set(document, key, value)
    if path.parent.resolve() != source.parent.resolve():  # paths in the file count from its folder
        for key in ("data_dir", "models_dir", "source", "weights"):
            if key in document:
                _set(document, key, getattr(setting.project, key))
    return tomlkit.dumps(document), told


def _set(document: tomlkit.TOMLDocument, key: str, value) -> None:
    """Set a key above all sections; a section of that name makes way for a single value."""
    if key in document and isinstance(value, dict) != isinstance(document[key], dict):
        document.remove(key)
    if key in document or isinstance(value, dict):
        document[key] = value
        return
    body = tomlkit.document()
    body.add(key, tomlkit.item(value))
    merged = tomlkit.parse(tomlkit.dumps(body) + tomlkit.dumps(document))
    document.clear()
    document.update(merged)
