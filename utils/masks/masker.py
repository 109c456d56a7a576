"""
Masks, the masker: fitted to drawn masks in seconds, judged on masks that it did not learn from, kept as numbers.

Writes and reads models/<name>/masker.safetensors: the scores' weights, a few kB, beside which the packaged network is
needed. Of photos that train, each is judged by a masker that learned from the others (near-duplicates together).
Masks of the validation and test sets never train; they judge the masker that is kept.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
import torch
from PIL import Image
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits
from tqdm.auto import tqdm

from utils.backbone import RESAMPLE, STEP
from utils.dataset import seeded_rank
from utils.errors import FieldguideError
from utils.masks.network import BIAS, MAP_LEVELS, Scorer, enlarged, level_maps, level_stages, scores
from utils.masks.source import DrawnMask
from utils.pictures import height_and_width
from utils.project import HEAD_SIZE, PACKAGED, PACKAGED_SHA256, Project
from utils.seeing import one_thread_each
from utils.storage import content_id, write_whole
from utils.words import counted

MASKER_FILE, MASKER_FORM = "masker.safetensors", 2  # MASKER_FORM: of the file, and of how a masker is fitted
FOLDS, MOST_MASKS = 5, 300  # parts that are judged in turn; masks that train
MEMORY = 2**29  # bytes of maps that are held at once
SEARCH_STEPS, SCORE_DECAY, LEAST_SPREAD = 60, 1e-2, 1e-3
Maps = list[torch.Tensor]  # of one picture at three levels, each (1, C, h, w)


@dataclass(frozen=True)
class HeldOut:
    """How well a mask was found that the masker did not learn from."""

    name: str
    group: str
    fold: int  # which of the folds' maskers found it; -1: the one that is kept
    iou: float  # what both masks share, as a fraction of what either covers
    content: str  # of `DrawnMask`


@dataclass(frozen=True)
class Masker:
    """A fitted masker: its scores' weights, and what is known of its quality."""

    size: tuple[int, int]  # height and width, in pixels, of what it sees
    head: Scorer
    folds: tuple[Scorer, ...]  # maskers that learned from all folds but one
    judged: tuple[HeldOut, ...]
    masks: int  # that it learned from
    drawn: str  # hex digits that stand for masks and settings
    encoder: str = PACKAGED  # on whose maps its scores stand


def masker_for(project: Project, drawn: Sequence[DrawnMask]) -> Masker:
    """
    Return the project's masker: the one that is kept if it learned from these very masks, else fitted and kept.

    Where [study] uses masks at other sizes, a masker is kept for each of these, too.
    """
    own = _kept_or_fitted(project, drawn, MASKER_FILE, FOLDS)
    for sides in _studied_sizes(project):
        _kept_or_fitted(project.model_copy(update={"size": sides}), drawn, _file_of(sides), 0)
    return own


def _kept_or_fitted(project: Project, drawn: Sequence[DrawnMask], name: str, folds: int) -> Masker:
    """Return the masker that a file holds if it learned from these very masks at the project's size, else fit it."""
    kept = read_masker(project.models / name)
    if kept and kept.drawn == _depends_on(project, drawn):
        return kept
    fitted = fit_masker(project, drawn, folds=folds)
    save_masker(project, fitted, name)
    return fitted


def _studied_sizes(project: Project) -> list[tuple[int, int]]:
    """Return the other sizes, height and width, at which [study] trains with a mask."""
    study = project.study
    if all(way == "none" for way in study.get("mask", [project.mask])):
        return []
    sizes = list(study.get("size", ()))
    if not sizes and "head" in study.get("train", ()):
        sizes = [HEAD_SIZE]
    found = {height_and_width(size) for size in sizes} - {project.height_width}
    return sorted(sides for sides in found if not any(side % STEP for side in sides))  # others are refused when trained


def _file_of(sides: Sequence[int]) -> str:
    """Return the name of the file of a masker that only studies use."""
    return f"masker-{sides[0]}x{sides[1]}.safetensors"


def masker_file(project: Project) -> Path:
    """Return the file of the masker for a project's size: its own, or the one that its study has for that size."""
    path, other = project.models / MASKER_FILE, project.models / _file_of(project.height_width)
    kept = read_masker(path)
    return other if kept and kept.size != project.height_width and other.exists() else path


def masker_id(project: Project) -> str:
    """Return hex digits that change with the masker of a project's size; "none" if there is none."""
    masker = read_masker(masker_file(project))
    return masker.drawn if masker else "none"


def _depends_on(project: Project, drawn: Sequence[DrawnMask]) -> str:
    """Return hex digits for what a masker depends on."""
    encoder = PACKAGED_SHA256 if project.mask_encoder == PACKAGED else project.mask_encoder
    facts = [MASKER_FORM, encoder, list(project.height_width), project.seed]
    facts += [[mask.name, mask.content, mask.thing, mask.group, mask.trains] for mask in drawn]
    return content_id(json.dumps(facts).encode())


def fit_masker(project: Project, drawn: Sequence[DrawnMask], *, folds: int = FOLDS) -> Masker:
    """
    Fit a masker to drawn masks, and judge it.

    Each mask that trains is found by the masker of a fold that it is not in; with `folds` = 0 by none, which is
    quicker. At most 300 masks train, drawn with the seed; fewer where pictures are so large that their maps would
    fill the memory. Raises FieldguideError where masks of fewer than 2 different photos can train.
    """
    size, stages, seed = project.height_width, level_stages(project.mask_encoder), project.seed
    training = sorted((mask for mask in drawn if mask.trains), key=lambda mask: seeded_rank(seed, mask.content))
    each = 4 * sum(one.numel() for one in level_maps(stages, torch.zeros(1, 3, *size)))
    training = sorted(training[: max(2, min(MOST_MASKS, MEMORY // each))], key=lambda mask: (mask.name, mask.content))
    groups = sorted({mask.group for mask in training}, key=lambda group: seeded_rank(seed, group))
    if len(groups) < 2:
        raise FieldguideError(
            f"{counted(len(groups), 'photo')} with a mask can train a masker, and it takes 2 at least; 10 are a "
            "beginning. Draw more masks. Those of the validation and test sets only judge."
        )
    parts = min(folds, len(groups))
    fold_of = {group: rank % parts if parts else -1 for rank, group in enumerate(groups)}
    with one_thread_each():
        looked = [_looked_at(mask, stages, size) for mask in tqdm(training, desc="looking at masks", unit="mask")]
        pairs, heads, judged = list(zip(training, looked, strict=True)), [], []
        for fold in tqdm(range(-1, parts), desc="fitting", unit="masker"):  # the first leaves no fold out
            heads.append(_fitted([one for mask, one in pairs if fold < 0 or fold_of[mask.group] != fold]))
            judged += [
                _held_out(mask, maps, drawn, heads[-1], fold)
                for mask, (maps, drawn) in pairs
                if fold_of[mask.group] == fold >= 0
            ]
        judging = [mask for mask in drawn if not mask.trains]
        for mask in tqdm(judging, desc="judging", unit="mask", disable=not judging):
            judged.append(_held_out(mask, *_looked_at(mask, stages, size), heads[0], -1))
    drawn_id = _depends_on(project, drawn)
    return Masker(size, heads[0], tuple(heads[1:]), tuple(judged), len(training), drawn_id, project.mask_encoder)


def picture_maps(stages: Sequence[nn.Module], image: Image.Image, size: Sequence[int]) -> Maps:
    """Return the maps of a picture, reduced to `size`: height and width."""
    pixels = np.array(image.resize(tuple(size[::-1]), RESAMPLE))
    return level_maps(stages, torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255)


def found_mask(maps: Maps, head: Scorer, size: tuple[int, int]) -> np.ndarray:
    """Return the mask, bool (H, W), that a head finds in a picture of this width and height."""
    with torch.no_grad():
        return (enlarged(scores(maps, head), size[::-1])[0, 0] > 0).numpy()


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """
    Return the intersection of two masks over their union (IoU), from 0 to 1; two empty masks are the same.

    >>> overlap(np.array([True, True, False]), np.array([False, True, True]))
    0.3333333333333333
    """
    union = np.count_nonzero(one | other)
    return float(np.count_nonzero(one & other) / union) if union else 1.0


def _looked_at(mask: DrawnMask, stages: Sequence[nn.Module], size: tuple[int, int]) -> tuple[Maps, np.ndarray]:
    """Return the maps of a photo, and its mask, bool (H, W)."""
    image, drawn = mask.read()
    return picture_maps(stages, image, size), drawn


def _cover(drawn: np.ndarray, size: Sequence[int]) -> torch.Tensor:
    """Return how much of each place of a map of this height and width the thing covers, (1, 1, h, w)."""
    cover = Image.fromarray(drawn.astype(np.uint8) * 255).resize(tuple(size[::-1]), Image.Resampling.BOX)
    return torch.from_numpy(np.asarray(cover).astype(np.float32) / 255)[None, None]


def _held_out(mask: DrawnMask, maps: Maps, drawn: np.ndarray, head: Scorer, fold: int) -> HeldOut:
    """Return how well a head finds a mask."""
    iou = overlap(found_mask(maps, head, drawn.shape[::-1]), drawn)
    return HeldOut(mask.name, mask.group, fold, round(iou, 6), mask.content)


def _fitted(learnt: Sequence[tuple[Maps, np.ndarray]]) -> Scorer:
    """
    Return the head that finds N things best: logistic regression on each place, by L-BFGS.

    It learns on standardised maps, for which one decay suits all; their mean and spread are then folded into it. A map
    is a matrix here, (C, places of all N): its product with the weights takes an eighth of a convolution's time.
    """
    sizes = [each.shape[2:] for each in learnt[0][0]]
    cover = torch.cat([_cover(drawn, sizes[0]) for _, drawn in learnt])
    maps, means, spreads = [], [], []
    for level in range(len(MAP_LEVELS)):
        each = torch.cat([one[level][0].flatten(1) for one, _ in learnt], 1)
        means.append(each.mean(1))
        spreads.append(each.std(1) + LEAST_SPREAD)
        maps.append((each - means[-1][:, None]) / spreads[-1][:, None])
    weights = [torch.zeros(len(each), requires_grad=True) for each in maps]
    bias = torch.zeros(1, requires_grad=True)
    search = torch.optim.LBFGS([*weights, bias], max_iter=SEARCH_STEPS, history_size=20, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        search.zero_grad()
        found = [(w @ each).view(len(cover), 1, *size) for w, each, size in zip(weights, maps, sizes, strict=True)]
        logits = sum(enlarged(each, sizes[0]) for each in found) + bias
        value = binary_cross_entropy_with_logits(logits, cover) + SCORE_DECAY * sum((w**2).sum() for w in weights)
        value.backward()
        return value

    search.step(loss)
    with torch.no_grad():
        folded = [w / spread for w, spread in zip(weights, spreads, strict=True)]
        shift = sum((w * mean).sum() for w, mean in zip(folded, means, strict=True))
        return {str(level): w.view(1, -1, 1, 1) for level, w in zip(MAP_LEVELS, folded, strict=True)} | {
            BIAS: bias - shift
        }


def save_masker(project: Project, masker: Masker, name: str = MASKER_FILE) -> None:
    """Write models/<name>/masker.safetensors, whole or not at all; the same masker gives the same bytes."""
    heads = {"kept": masker.head} | {f"fold{n}": head for n, head in enumerate(masker.folds)}
    tensors = {
        f"{name}.{part}": value.detach().contiguous() for name, head in heads.items() for part, value in head.items()
    }
    facts = {"form": MASKER_FORM, "size": masker.size, "masks": masker.masks, "drawn": masker.drawn}
    facts["encoder"] = masker.encoder
    facts["judged"] = [list(vars(one).values()) for one in masker.judged]
    # One key only: with more, their order in the file is left to chance.
    write_whole(project.models / name, safetensors.torch.save(tensors, {"masker": json.dumps(facts)}))


def read_masker(path: Path) -> Masker | None:
    """Return the masker in a file; None if there is none, or one of another version. Nothing in the file can run."""
    if not path.exists():
        return None
    try:
        with safetensors.safe_open(path, "pt") as file:
            facts = json.loads(file.metadata()["masker"])
            if facts["form"] != MASKER_FORM:
                return None
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        heads = [
            {part: tensors[f"{name}.{part}"] for part in (*map(str, MAP_LEVELS), BIAS)}
            for name in ("kept", *(f"fold{n}" for n in range(len(tensors) // (len(MAP_LEVELS) + 1) - 1)))
        ]
        judged = tuple(HeldOut(*row) for row in facts["judged"])
        return Masker(
            tuple(facts["size"]), heads[0], tuple(heads[1:]), judged, facts["masks"], facts["drawn"], facts["encoder"]
        )
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
        raise FieldguideError(f"{path} is not a masker ({error}). Delete it and run 03a again.") from None
