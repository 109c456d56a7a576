"""
Reading an export.pkl: the file is vetted, then torch unpickles it. A pickle is a program: loading one may run anything.

torch and fastai are imported only when such a file is loaded.
"""

import hashlib
import io
import json
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from . import vetting
from .recipe import Recipe, checked_labels, checked_threshold, validation_recipe
from .vetting import ModelError, in_one_line

if "." in __package__:
    from ..pictures import margins
else:  # inference/ and pictures/ lie loose in another program's folder
    from pictures import margins

VERSION = re.compile(r"[0-9]{1,4}([.][0-9a-z]{1,8}){0,4}")  # of a package; anything else in a card is not told


@dataclass(frozen=True)
class TorchNetwork:
    """
    The network of an export.pkl: uint8 pixels (N, H, W, 3) in, probabilities (N, K) out.

    Pickled for another process, it takes its file's bytes along, and they are vetted there unless the file is trusted.
    """

    module: object  # torch.nn.Module
    mean: tuple[float, ...]  # of three colours, of values scaled to 0…1
    std: tuple[float, ...]
    device: str
    source: tuple[str, bytes, bool] = field(repr=False, compare=False)  # the file's path, bytes, whether it is trusted
    lent: int | None = field(default=None, compare=False)  # processors, where they are fewer than the machine's
    lanes: int = 1  # torch spreads a batch over the processors by itself
    finds: bool = False  # masks come from a model.onnx alone
    describes: bool = False  # and features

    def __reduce__(self):
        return torch_network, (*self.source, self.lent)

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        import torch

        # By default a GPU rounds factors to 10 bits (TF32). Its answers would then differ from other machines'.
        exact = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
        with torch.inference_mode(), exact, torch_threads(self.lent):
            batch = torch.from_numpy(pixels).to(self.device).permute(0, 3, 1, 2).float() / 255  # (N, 3, H, W)
            mean, std = (torch.tensor(stat, device=self.device).view(3, 1, 1) for stat in (self.mean, self.std))
            return self.module((batch - mean) / std).double().softmax(dim=1).cpu().numpy()  # (N, K)


@contextmanager
def torch_threads(lent: int | None) -> Iterator[None]:
    """Let torch use so many threads in this block; None leaves it as it is."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(lent or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def read_pickle(
    path: Path, *, trusted: bool, lent: int | None = None
) -> tuple[tuple[str, ...], Recipe, float | None, TorchNetwork]:
    """Return labels, recipe, threshold and network of an export.pkl, which is vetted unless trusted."""
    if not trusted:
        vetting.vet(path)
    labels, recipe, network = _read_parts(path, path.read_bytes(), trusted=trusted)
    return labels, recipe, threshold_beside(path), replace(network, lent=lent)


def torch_network(path: str, data: bytes, trusted: bool, lent: int | None = None) -> TorchNetwork:
    """Return the network of an export.pkl, whose bytes are vetted unless trusted; `path` is where they came from."""
    if not trusted:
        vetting.vet(path, data)
    return replace(_read_parts(Path(path), data, trusted=trusted)[2], lent=lent)


def _read_parts(path: Path, data: bytes, *, trusted: bool) -> tuple[tuple[str, ...], Recipe, TorchNetwork]:
    """Return labels, recipe and network of a vetted or trusted export.pkl, or say what is wrong with it."""
    learner = unpickled(path, data, trusted=trusted)
    try:
        return learner_parts(learner, (str(path), data, trusted))
    except ModelError as error:
        raise ModelError(f"{path} cannot be used here: {error}.") from error.__cause__
    except Exception as error:  # missing or strange parts fail in ways of their own
        raise ModelError(
            f"{path} is not a classifier of pictures as stage 07 exports it, or is too large for this computer "
            f"({in_one_line(error)})."
        ) from error


def card_beside(path: Path) -> dict:
    """Return the card.json beside an export.pkl, {} unless that card is of this very file."""
    try:
        card = json.loads(path.with_name("card.json").read_text(encoding="utf-8"))
        with path.open("rb") as file:
            of_this_file = hashlib.file_digest(file, "sha256").hexdigest() in card["sha256"].values()
        return card if of_this_file else {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def threshold_beside(path: Path) -> float | None:
    """Return the threshold in the card beside an export.pkl; without one the model cannot say "unknown"."""
    try:
        return checked_threshold(card_beside(path)["unknown"]["threshold"])
    except (ValueError, KeyError, TypeError):
        return None


def installing(package: str, path: Path) -> str:
    """Return what to give pip where a package that the file needs is missing: timm in the version that made it."""
    if package != "timm":
        return "fastai"
    versions = card_beside(path).get("versions")
    made_with = versions.get("timm") if isinstance(versions, dict) else None
    return f"timm=={made_with}" if isinstance(made_with, str) and VERSION.fullmatch(made_with) else "timm"


def unpickled(path: Path, data: bytes, *, trusted: bool):
    """Return what a file's bytes hold; they are vetted once more as they are read, unless trusted."""
    import pickle

    try:
        import torch

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickles being unsafe: vetting is the answer to that
            return torch.load(
                io.BytesIO(data), map_location="cpu", pickle_module=pickle if trusted else vetting, weights_only=False
            )
    except (ModelError, MemoryError):
        raise
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        raise ModelError(
            f"{path} needs {package}, which is not installed: pip install {installing(package, path)}. The model.onnx "
            "beside it needs onnxruntime alone."
        ) from error
    except Exception as error:  # unpickling raises whatever the objects inside do
        raise ModelError(
            f"{path} cannot be loaded ({type(error).__name__}: {in_one_line(error)}). It is damaged, or was made with "
            "other versions of fastai and torch: card.json beside it names them."
        ) from error


def learner_parts(learner, source: tuple[str, bytes, bool]) -> tuple[tuple[str, ...], Recipe, TorchNetwork]:
    """Return labels, recipe and network from a learner's own transforms, or say why it is of another kind."""
    import torch

    loader = learner.dls.loaders[-1]
    categories = [t for pipeline in loader.dataset.tfms for t in pipeline.fs if type(t).__name__ == "Categorize"]
    of_pictures = {type(t).__name__: t for t in loader.after_item.fs if t.split_idx != 0}
    of_batches = {type(t).__name__: t for t in loader.after_batch.fs if _judging(t)}
    if len(categories) != 1:
        raise ModelError("it does not sort pictures into one label each")
    normalize = of_batches.pop("Normalize", None)
    of_batches.pop("IntToFloatTensor", None)
    if of_batches:
        raise ModelError(
            f"it changes pictures by {', '.join(of_batches)} before judging them; use fastai's load_learner"
        )
    stats = (normalize.mean, normalize.std) if normalize else (torch.zeros(3), torch.ones(3))
    mean, std = (tuple(stat.flatten().tolist()) for stat in stats)
    if not len(mean) == len(std) == 3:
        raise ModelError(f"it wants pictures in {len(mean)} colours")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = TorchNetwork(learner.model.to(device).eval(), mean, std, device, source)
    return checked_labels(list(categories[0].vocab)), _recipe_of(of_pictures), network


def _recipe_of(steps: dict) -> Recipe:
    """Return the recipe that fastai's transforms of a picture make, by the names of their classes, or refuse them."""
    resize, cut = steps.get("Resize"), steps.get("CropPad")
    if set(steps) == {"RandomResizedCrop", "ToTensor"}:
        reduced = steps["RandomResizedCrop"]
        (width, height), extra = reduced.size, margins(max(reduced.size), reduced.val_xtra)  # the same on both sides
    elif set(steps) == {"Resize", "CropPad", "ToTensor"} and resize.method == "squish" and resize.order < cut.order:
        reduced, (width, height) = resize, cut.size
        extra = (resize.size[1] - height, resize.size[0] - width)
    else:
        raise ModelError(
            "it prepares pictures in another way than stage 04 does (RandomResizedCrop, or Resize and CropPad), so its "
            "answers would be wrong; use fastai's load_learner"
        )
    notes = {name: getattr(reduced, name, None) for name in ("bits", "mirrored")}  # of stage 07; fastai reads neither
    size = height if height == width else (height, width)
    return validation_recipe(size, extra, int(reduced.resamples[0]), **notes)


def _judging(transform) -> bool:
    """Return whether a transform of batches changes pictures that are judged, not only those trained on."""
    # fastai also calls turning, zooming and warping for judging; they leave a picture as it is, unless they resize.
    return transform.split_idx != 0 and (not hasattr(transform, "aff_fs") or transform.size is not None)
