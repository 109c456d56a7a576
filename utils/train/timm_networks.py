"""
Stage 04, the networks of timm: ``arch = "timm/NAME"`` in the project file, where timm is installed.

fastai's own way with timm drops what stands behind the pooling: in mobilenetv3, mobilenetv4 and hgnetv2 that is the
last, widening layer. Here timm takes off pooling and classifier, and all else stays. Downloads weights through timm,
which asks the Hugging Face hub.
"""

from collections.abc import Callable
from difflib import get_close_matches
from functools import lru_cache
from importlib.util import find_spec

import torch
from fastai.vision.all import no_random
from fastai.vision.learner import _default_meta, model_meta
from torch import nn

from utils.errors import FieldguideError
from utils.project import PACKAGED, TIMM, as_setting, multiples

# timm's modules whose every network is cut rightly and exported safely: `LAYERS` in utils/inference/vetting.py has
# the layers of each.
FAMILIES = (
    *("convnext", "efficientnet", "hgnet", "mobilenetv3", "regnet", "repvit", "resnet"),
    "vision_transformer",
)
NO_ONNX = "*efficientnet_cc_*"  # they mix their weights anew for each picture, which ONNX cannot express


def timm_recipe(arch: str):
    """Return what timm knows of the network ``timm/NAME``, its PretrainedCfg, or refuse the name."""
    if find_spec("timm") is None:
        raise FieldguideError(f"arch = {arch!r} needs timm, which is not installed. Install it: pip install timm")
    import timm

    name = arch.removeprefix(TIMM)
    base = name.partition(".")[0]
    known = timm.list_models(module=FAMILIES, exclude_filters=NO_ONNX)
    if base not in known and timm.is_model(base):
        raise FieldguideError(
            f"arch = {arch!r} is a network that cannot be exported here. Write another one of timm, such as "
            f"timm/resnet18, of the families {', '.join(FAMILIES)}."
        )
    if base not in known:
        near = get_close_matches(base, known, n=3, cutoff=0.5) or ["resnet18"]
        raise FieldguideError(
            f"arch = {arch!r} is not a network of timm {timm.__version__}. Write one such as "
            f"{', '.join(TIMM + found for found in near)}."
        )
    try:
        return timm.get_pretrained_cfg(name)
    except RuntimeError:
        tags = [TIMM + found for found in timm.list_pretrained(f"{base}.*")]
        raise FieldguideError(
            f"arch = {arch!r} asks for weights that timm {timm.__version__} does not know. Write "
            f"{', '.join([TIMM + base, *tags])}."
        ) from None


@lru_cache(maxsize=64)
def timm_network(arch: str, size: tuple[int, int]) -> Callable:
    """Return what makes the network ``timm/NAME`` for pictures of `size`, height and width, and tell fastai its cut."""
    recipe = timm_recipe(arch)
    import timm

    # A vision transformer has a place for each patch of one size of picture. fastai shows it other sizes once.
    fixed = {"img_size": size, "dynamic_img_size": True, "dynamic_img_pad": True} if recipe.fixed_input_size else {}

    def network(*, pretrained: bool = False) -> nn.Module:
        return timm.create_model(arch.removeprefix(TIMM), pretrained=pretrained, **fixed)

    if fixed:
        with no_random(), torch.device("meta"):
            step = network().patch_embed.patch_size[0]
        if any(side % step for side in size):
            raise FieldguideError(
                f"size = {as_setting(size)} is not a multiple of {step}, and arch = {arch!r} looks at patches of "
                f"{step} pixels. Set size = {as_setting(multiples(size, step))}."
            )
    network.__name__ = arch
    model_meta[network] = {**_default_meta, "cut": timm_body}
    return network


def timm_body(model: nn.Module) -> nn.Sequential:
    """Return a timm network without its classifier: pictures (B, 3, H, W) to maps (B, F, h, w)."""
    if model.pretrained_cfg["fixed_input_size"]:
        model.reset_classifier(0)  # a vision transformer pools in a way of its own, (B, F)
        return nn.Sequential(model, nn.Unflatten(1, (-1, 1, 1)))  # a map of one place, for fastai's head
    model.reset_classifier(0, "")
    return nn.Sequential(model)


def download_timm_weights(arch: str, network: Callable) -> None:
    """Make sure that the pretrained weights of ``timm/NAME`` are on this machine."""
    if not timm_recipe(arch).has_weights:
        raise FieldguideError(
            f"timm has no pretrained weights for arch = {arch!r}. Write another arch, such as timm/resnet18, or set "
            'weights = "none" in the project file to train from scratch.'
        )
    try:
        with no_random():
            network(pretrained=True)
    except Exception as error:  # the clients of hub and web raise kinds of their own
        raise FieldguideError(
            f"The pretrained weights of {arch} could not be had ({(str(error).splitlines() or ['no answer'])[0][:160]})"
            f'. Set arch = "{PACKAGED}" in the project file, which needs no download; or connect to the internet (or, '
            "if the disk is full, free some space) and run this again."
        ) from error
