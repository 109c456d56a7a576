"""
The settings of one project, validated, and every path of it.

Foundation of every stage. `Project.load()` reads the file named by the environment variable PROJECT, else
``project.toml`` in the repository's root. A wrong setting is refused with the file, the key, the value and
what to do; `utils.refusals` finds the words.
"""

import os
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, field_validator, model_validator

from utils.addresses import host_and_ports
from utils.errors import FieldguideError
from utils.names import safe_name, unsafe_name
from utils.pictures import height_and_width
from utils.refusals import hidden_escape, mistake, refusal
from utils.sections import Augment, DetectorName, Filters, OpenImages, Rate, Size
from utils.settling import OPEN_IMAGES, SAMPLE, SEARCH, require_detectable, settled
from utils.studied import HOW, STUDIED, checked_study, require_values

REPOSITORY = Path(__file__).resolve().parents[1]
# The network that comes as a package: its name, the pixels that it sees, how many numbers it makes of them, its file.
PACKAGED, FEATURE_SIZE, FEATURES = "efficientnet_lite0", 128, 1280
HEAD_SIZE = 224  # pixels for a head, which errs less than at 128 (benchmarks/README.md, "The quick model")
PACKAGED_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
HEAD_SETTINGS = {"arch": PACKAGED, "weights": "imagenet", "size": HEAD_SIZE}  # what train = "head" stands on
# What finding things in photos begins with, where the project file says nothing else.
DETECT_SETTINGS = {"arch": PACKAGED, "size": 224, "epochs": 6, "batch_size": 8, "lr": 0.004}
HEAD_MASKS = "crop", "paint"  # what a head can do with a mask: its network takes three channels
TIMM = "timm/"  # before the name of a network of timm
WEIGHTS, WEIGHT_FILES = ("imagenet", "none"), (".safetensors", ".pth", ".pt")
LONGEST_SEARCH = 499  # characters; DuckDuckGo refuses longer ones
BASE_RATES = {"pretrained": 2e-3, "none": 1e-2}  # fastai's default; from scratch there is nothing to spoil
CHOICES = {"keep", "delete"}  # words of review.csv, where a label may stand too
COLUMNS = {"id", "side", "label", "predicted", "fingerprint", "all"}  # of tables with a column or row per label


class ProjectError(FieldguideError):
    """The project file asks for something that cannot be."""


class Project(BaseModel):
    """
    What a person wants told apart, and how: project.toml, validated. Its properties name every path.

    >>> project = Project.model_validate({"name": "pets", "labels": {"cat": ["cat photo"], "dog": ["dog photo"]}})
    >>> project.valid, project.arch, project.sources
    (0.2, 'resnet18', ('duckduckgo',))
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: str
    task: Literal["classify", "detect"] = "classify"
    source: str | list[str] = SEARCH
    open_images: OpenImages = {}
    follow_links: bool = False
    use_given_split: bool = True
    clip_seconds: Annotated[float, Field(gt=0, le=3600)] = 2.0
    license: str = ""
    images_per_label: Annotated[int, Field(ge=1, le=100_000)] = 150
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 42
    valid: Annotated[float, Field(gt=0, lt=1)] = 0.2
    test: Annotated[float, Field(ge=0, lt=1)] = 0.1
    group_by: str = ""
    individuals: bool = False
    arch: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$|^timm/[a-z][a-z0-9_]*(\.[a-z0-9_]+)?$")] = "resnet18"
    weights: str = "imagenet"
    size: Size = 224
    detector: DetectorName = "fcos"
    train: Literal["all", "head"] = "all"
    ensemble: Annotated[int, Field(ge=1, le=9)] = 1
    epochs: Annotated[int, Field(ge=1, le=1000)] = 4
    freeze_epochs: Annotated[int, Field(ge=0, le=1000)] = 1
    optimizer: Literal["adam", "sgd"] = "adam"
    lr: Rate = 0.0
    batch_size: Annotated[int, Field(ge=2, le=4096)] = 32
    schedule: Literal["one-cycle", "cyclic", "smooth"] = "one-cycle"
    augment: Annotated[
        Annotated[Literal["standard", "strong"], Tag("a word")] | Annotated[Augment, Tag("a table")],
        Discriminator(lambda value: "a table" if isinstance(value, dict) else "a word"),
    ] = "standard"
    class_weights: bool = False
    patience: Annotated[int, Field(ge=0, le=1000)] = 0
    strength: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    mask_source: str = ""
    mask_thing: Literal["light", "dark"] = "light"
    mask_encoder: Literal["efficientnet_lite0", "vgg19"] = PACKAGED
    mask: Literal["none", "crop", "channel", "paint"] = "none"
    page: Literal["local", "cdn"] = "local"
    study: dict[str, Any] = {}
    cache: Literal["none", "memory", "gpu"] = "none"
    int8: bool = False
    data_dir: str = str(REPOSITORY / "data")
    models_dir: str = str(REPOSITORY / "models")
    allowed_hosts: list[str] = []
    honour_noai: bool = True
    filters: Filters = {}
    labels: dict[str, list[str]] = {}
    _network: int = 1  # which of the networks of an ensemble, from 1

    @model_validator(mode="before")
    @classmethod
    def _a_head_stands_on_the_packaged_network(cls, settings):
        return settings | HEAD_SETTINGS if isinstance(settings, dict) and settings.get("train") == "head" else settings

    @model_validator(mode="before")
    @classmethod
    def _detection_has_settings_of_its_own(cls, settings):
        return (
            DETECT_SETTINGS | settings if isinstance(settings, dict) and settings.get("task") == "detect" else settings
        )

    @field_validator("name")
    @classmethod
    def _name_is_a_folder(cls, name: str) -> str:
        if unsafe_name(name) and not unsafe_name(bare := name.strip()):
            raise ValueError(f'{name!r} begins or ends with a blank; did you mean "{bare}"?')
        return safe_name(name)

    @field_validator("source")
    @classmethod
    def _source_is_named(cls, source: str | list[str]) -> str | list[str]:
        if not source or "" in ([source] if isinstance(source, str) else source):
            raise ValueError('name a source: "duckduckgo", "sample", a folder, or a list of these')
        return source

    @field_validator("weights")
    @classmethod
    def _weights_are_a_word_or_a_file(cls, weights: str) -> str:
        if weights not in WEIGHTS and not weights.endswith(WEIGHT_FILES):
            if (bare := weights.strip().lower()) in WEIGHTS:
                raise ValueError(f'{weights!r} is not known; did you mean "{bare}"?')
            raise ValueError(
                f"{weights!r} is not known. Write 'imagenet' or 'none', or name a .safetensors or .pth file of weights"
            )
        return weights

    @field_validator("group_by")
    @classmethod
    def _group_by_is_an_expression(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
        except re.error as error:
            why = f"{pattern!r} is not a regular expression ({error}). Correct it, or remove the key"
            raise ValueError(why) from None
        return pattern

    @field_validator("study")
    @classmethod
    def _study_names_settings(cls, study: dict[str, Any]) -> dict[str, Any]:
        return checked_study(study)

    @field_validator("allowed_hosts")
    @classmethod
    def _hosts_are_names(cls, hosts: list[str]) -> list[str]:
        for host in hosts:
            host_and_ports(host)
        return [host.lower().strip("[]") if host.endswith("]") else host.lower() for host in hosts]

    @field_validator("labels")
    @classmethod
    def _labels_are_folders(cls, labels: dict[str, list[str]]) -> dict[str, list[str]]:
        safe: dict[str, list[str]] = {}
        folded: dict[str, str] = {}  # as Windows and macOS compare names → label
        asked: dict[str, str] = {}  # search → label
        for label, searches in labels.items():
            safe[name := safe_name(label)] = searches
            if name == "allowed_hosts" or (name == "source" and {SEARCH, SAMPLE} & set(searches)):
                raise ValueError(f"{name} is a setting: move it above [labels]")
            if name.casefold() in CHOICES:
                raise ValueError(f"{label!r} is a word of the cleaner and cannot be a label. Choose another name")
            if name.casefold() in COLUMNS:
                raise ValueError(f"{label!r} is a column of our tables and cannot be a label. Choose another name")
            if (twin := folded.setdefault(name.casefold(), label)) != label:
                raise ValueError(f"{twin!r} and {label!r} are one folder on Windows and macOS. Rename one of them")
            for search in searches:
                if not search.strip():
                    raise ValueError(f"{label!r} has an empty search. Write what to look for, or remove it")
                if len(search) > LONGEST_SEARCH:
                    raise ValueError(
                        f"a search of {label!r} has {len(search)} characters; DuckDuckGo takes at most "
                        f"{LONGEST_SEARCH}. Shorten {search[:40]!r}…"
                    )
                if (twin := asked.setdefault(" ".join(search.split()).casefold(), label)) != label:
                    raise ValueError(
                        f"{twin!r} and {label!r} have the same search {search[:60]!r}: every picture would come under "
                        "both, and be kept under neither. Change one of them"
                    )
        return dict(sorted(safe.items()))

    @model_validator(mode="after")
    def _parts_fit_together(self) -> "Project":
        if self.valid + self.test >= 1:
            raise ValueError(
                f"valid = {self.valid} and test = {self.test} leave no pictures to train on. "
                "Both are fractions and must stay below 1 together, as 0.2 and 0.1 do"
            )
        if self.task == "detect":
            require_detectable(self)
            return self
        if self.open_images or OPEN_IMAGES in self.sources:
            raise ValueError('Open Images are photos with boxes: write task = "detect" above the sections')
        if len(self.labels) == 1:
            raise ValueError(
                f"[labels] holds only {next(iter(self.labels))!r}: telling apart takes two labels or more. Add another"
            )
        if not self.labels and self.places:
            raise ValueError(
                f"{self.places[0]} holds no labels. Put photos into {self.places[0] / '<label>'}/, a folder for each "
                "of two labels or more, name a table of files and labels as source, or write the labels under [labels]"
            )
        if not self.labels:
            raise ValueError(
                "[labels] is missing or empty. Write one line per label under [labels], such as: "
                'tilapia = ["tilapia alive in water"]'
            )
        if SAMPLE in self.sources and len(self.sources) > 1:
            raise ValueError(
                f'source names "{SAMPLE}" and others: drawn and real pictures do not mix. Keep one or the other'
            )
        if self.license and not self.places:
            raise ValueError(
                f"license = {self.license!r} speaks of photos of your own, and source names none; did you mean license "
                "in the section [filters]?"
            )
        if self.mask == "channel" and self.train == "head":
            raise ValueError(
                'mask = "channel" goes with train = "all" only: a head stands on a network that takes three channels. '
                'Set train = "all", or mask = "crop" or "paint"'
            )
        if self.ensemble > 1 and self.train == "head":
            raise ValueError(
                f'ensemble = {self.ensemble} goes with train = "all" only: a head fitted again is the same head. Set '
                'train = "all", or remove ensemble'
            )
        if SEARCH in self.sources:
            for label, searches in self.labels.items():
                if not searches:
                    raise ValueError(f'label {label!r} has no search. Write {label} = ["what to look for"]')
        return self

    @classmethod
    def load(cls, path: str | Path | None = None) -> "Project":
        """
        Read and check a project file, or raise a `ProjectError` that names file, key, value and what to do.

        By default it is the file that the environment variable PROJECT names (a relative one counts from the
        repository's root, wherever the notebook runs), else the repository's ``project.toml``.
        """
        path = project_file(path)
        try:
            text = path.read_text(encoding="utf-8-sig")
            settings = tomllib.loads(text)
        except UnicodeDecodeError as error:
            line = error.object[: error.start].count(b"\n") + 1
            raise ProjectError(
                f"{path} is not saved as UTF-8 (line {line}). Save it again in your editor with the encoding UTF-8."
            ) from None
        except tomllib.TOMLDecodeError:
            raise ProjectError(mistake(path, text, SECTIONS)) from None
        except (FileNotFoundError, IsADirectoryError):
            raise MissingProject(
                f"There is no project file {path}. Copy one from {REPOSITORY / 'projects'} to "
                f"{REPOSITORY / 'project.toml'}, or set the environment variable PROJECT to yours."
            ) from None
        except OSError as error:
            raise ProjectError(
                f"{path} cannot be read: {error.strerror or error}. Give this account the right to read it."
            ) from None
        if escape := hidden_escape(path, text, settings, WITH_BACKSLASHES):
            raise ProjectError(escape)
        try:
            roots = {key: cls.model_fields[key].default for key in ("data_dir", "models_dir")}
            whole = settled(settings, path.resolve().parent, roots, WEIGHT_FILES)
            project = cls.model_validate(whole)
            require_values(project.study, lambda key, value: cls.model_validate(whole | {"study": {}, key: value}))
            return project
        except ValidationError as error:
            raise ProjectError(refusal(path, text, error, SECTIONS)) from None
        except FieldguideError as error:
            raise ProjectError(f"{path}: {error}") from None
        except RuntimeError as error:  # of a home that is not there, or links that lead in a circle
            raise ProjectError(
                f"{path}: a folder named there cannot be found: {error} Your own home is written ~/, as in ~/photos."
            ) from None
        except OSError as error:
            raise ProjectError(
                f"{path}: the source {error.filename} cannot be read: {error.strerror or error}. Give this account the "
                "right to read it, or name another folder."
            ) from None

    @property
    def sources(self) -> tuple[str, ...]:
        """The sources, in the order given: "duckduckgo", "sample" or places on this computer."""
        return (self.source,) if isinstance(self.source, str) else tuple(self.source)

    @property
    def places(self) -> tuple[Path, ...]:
        """The sources that are on this computer: folders, tables of photos, and ZIPs."""
        return tuple(Path(source) for source in self.sources if source not in (SEARCH, SAMPLE, OPEN_IMAGES))

    @property
    def searches(self) -> dict[str, list[str]]:
        """Label → what to search for; empty where no search is among the sources."""
        return self.labels if SEARCH in self.sources else {}

    @property
    def height_width(self) -> tuple[int, int]:
        """The height and width, in pixels, of what the network sees."""
        return height_and_width(self.size)

    @property
    def base_lr(self) -> float:
        """The learning rate that training begins with: `lr`, or gentle on pretrained layers and bolder from scratch."""
        return self.lr or BASE_RATES["none" if self.weights == "none" else "pretrained"]

    @property
    def weights_name(self) -> str:
        """What the weights are called on a card: "imagenet", "none", or the file's name without its folder."""
        return Path(self.weights).name

    @property
    def data(self) -> Path:
        """The folder of everything gathered: data/<name>."""
        return Path(self.data_dir) / self.name

    @property
    def models(self) -> Path:
        """The folder of everything trained: models/<name>."""
        return Path(self.models_dir) / self.name

    @property
    def networks(self) -> list["Project"]:
        """The project of each network that `ensemble` averages: each has the next seed, and a folder of its own."""
        several = [
            self.model_copy(update={"ensemble": 1, "seed": (self.seed + n) % 2**32}) for n in range(self.ensemble)
        ]
        for n, project in enumerate(several, start=self._network):
            project._network = n
        return several

    @property
    def network(self) -> Path:
        """The folder of a trained network: models/<name>, and models/<name>/ensemble/<n> from the second one on."""
        return self.models if self._network == 1 else self.models / "ensemble" / str(self._network)

    @property
    def raw(self) -> Path:
        """raw/<label>/<id>.<ext>: bytes as they came; never changed, never deleted."""
        return self.data / "raw"

    @property
    def images(self) -> Path:
        """images/<label>/<id>.jpg: the training set; the parent folder is the label."""
        return self.data / "images"

    @property
    def unsorted(self) -> Path:
        """unsorted/<id>.<ext>: photos that came without a label, until 02 gives them one."""
        return self.data / "unsorted"

    @property
    def trash(self) -> Path:
        """trash/<label>/<id>.jpg: taken out by a person; can be put back."""
        return self.data / "trash"

    def table(self, name: str) -> Path:
        """Return the path of a table of this project, such as ``table("split")``."""
        return self.data / f"{name}.csv"


def project_file(path: str | Path | None = None) -> Path:
    """Return the project file that is meant: `path`, what the environment variable PROJECT names, or project.toml."""
    return Path(path) if path is not None else REPOSITORY / os.environ.get("PROJECT", "project.toml")


class MissingProject(ProjectError, FileNotFoundError):
    """There is no project file where one was looked for."""


# What each section may hold, and the keys whose values are paths or patterns.
SECTIONS = {
    "": Project.model_fields,
    "filters": Filters.__annotations__,
    "augment": Augment.__annotations__,
    "open_images": OpenImages.__annotations__,
    "study": dict.fromkeys([*STUDIED, *HOW]),
}
WITH_BACKSLASHES = ("source", "data_dir", "models_dir", "weights", "group_by", "mask_source")
