"""
Settings of a project file that are more than a number or a word: sizes, rates, the sections [filters] and [augment].

Foundation of `utils.project`.
"""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field
from typing_extensions import TypedDict

from utils.pictures import height_and_width
from utils.words import counted

RATES = 1e-6, 1.0  # the lowest and the highest learning rate that a person may ask for
SIZE_LIMITS = 32, 1024  # the fewest and the most pixels of a side of what a network sees
REGION = "^[a-z]{2}-[a-z]{2,3}$"  # country-language


class Filters(TypedDict, total=False):
    """What a search asks of its pictures: the keys of the section [filters], as `search` takes them."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)  # type: ignore[misc]

    license: Literal["any", "Public", "Share", "ShareCommercially", "Modify", "ModifyCommercially"]
    size: Literal["Small", "Medium", "Large", "Wallpaper"]
    type: Literal["photo", "clipart", "gif", "transparent", "line"]
    safesearch: Literal["on", "moderate", "off"]
    region: Annotated[str, Field(pattern=REGION)]


DetectorName = Literal[  # "fcos" stands on the project's own backbone; the others are torchvision's, with its weights
    "fcos",
    "fasterrcnn_mobilenet_v3_large_320_fpn",
    "fasterrcnn_mobilenet_v3_large_fpn",
    "fasterrcnn_resnet50_fpn",
    "fcos_resnet50_fpn",
    "retinanet_resnet50_fpn",
    "ssd300_vgg16",
    "ssdlite320_mobilenet_v3_large",
]
Share = Annotated[float, Field(ge=0, le=1)]


class Augment(TypedDict, total=False):
    """Parameters of fastai's ``aug_transforms`` and others, and three steps of ours: the keys of [augment]."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)  # type: ignore[misc]

    mult: Annotated[float, Field(gt=0, le=5)]
    do_flip: bool
    flip_vert: bool
    max_rotate: Annotated[float, Field(ge=0, le=180)]
    min_zoom: Annotated[float, Field(gt=0, le=10)]
    max_zoom: Annotated[float, Field(gt=0, le=10)]
    max_lighting: Annotated[float, Field(ge=0, lt=1)]
    max_warp: Annotated[float, Field(ge=0, lt=1)]
    p_affine: Share
    p_lighting: Share
    greyscale: Share  # of the training pictures that lose their colour
    denoise: Share  # … that are smoothed by a Gaussian of 3×3 pixels
    dehaze: Share  # … that are freed from haze or murky water
    crop: Annotated[float, Field(ge=0.05, le=1)]  # the least share of a picture that a training crop shows
    stretch: Annotated[float, Field(ge=1, le=4)]  # how much wider or narrower than `size` a crop may be
    max_saturation: Annotated[float, Field(ge=0, lt=1)]
    max_hue: Annotated[float, Field(ge=0, le=0.5)]  # of the circle of colours


class OpenImages(TypedDict, total=False):
    """The tables of Open Images, files or https addresses, and what to take of them: the keys of [open_images]."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)  # type: ignore[misc]

    classes: str  # LabelName,DisplayName
    boxes: str | list[str]  # one row per box
    images: str | list[str]  # one row per photo: its address, licence, author and rotation
    addresses: str | list[str]  # lists for Google's Storage Transfer: only photos that stand in one are fetched
    hierarchy: str  # JSON: which class is part of which
    subclasses: bool  # whether a class stands for those below it in the hierarchy, too
    groups: Literal["ignore", "leave out"]  # boxes around many things at once: kept and not counted, or left out
    depictions: bool  # whether drawings and statues count


def checked_size(size) -> int | list[int]:
    """Return a size, one number of pixels for two that are equal, or refuse what is none."""
    sides = size if isinstance(size, list) else [size]
    told = "Write one number of pixels, such as 224, or height and width, such as [256, 512]"
    if any(type(side) is not int for side in sides):
        told = "Write a whole number, without quotes" if isinstance(size, str) else told
        raise ValueError(f"{repr(size)[:60]} is not in whole pixels. {told}")
    if isinstance(size, list) and len(size) != 2:
        raise ValueError(f"{size} has {counted(len(size), 'number')}. {told}")
    smallest, largest = SIZE_LIMITS
    if not all(smallest <= side <= largest for side in sides):
        raise ValueError(f"{size} is outside of {smallest} to {largest} pixels. {told}")
    return sides[0] if len(set(sides)) == 1 else sides


def checked_rate(rate: float) -> float:
    """Return a learning rate, or refuse one that no training wants; 0 leaves it to 04."""
    lowest, highest = RATES
    if rate != 0 and not lowest <= rate <= highest:
        told = "Write a rate such as 0.002, or 0: 04 chooses"
        raise ValueError(f"{rate:g} is outside of {lowest:g} to {highest:g}. {told}")
    return rate


Size = Annotated[int | list[int], BeforeValidator(checked_size)]
Rate = Annotated[float, AfterValidator(checked_rate)]


def as_setting(size: int | Sequence[int]) -> str:
    """
    Return a size as the project file writes it.

    >>> as_setting((224, 224)), as_setting([256, 512])
    ('224', '[256, 512]')
    """
    height, width = height_and_width(size)
    return str(height) if height == width else f"[{height}, {width}]"


def multiples(size: Sequence[int], step: int) -> tuple[int, ...]:
    """Return the nearest size whose sides are multiples of a step."""
    return tuple(max(1, round(side / step)) * step for side in size)
