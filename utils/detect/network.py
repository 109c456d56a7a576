"""
3_train, the network: a detector of torchvision by its name in the project file, with a head for the project's labels.

Reads the packaged weights or torch's own cache, and writes there what it downloads. ``fcos`` (Tian et al. 2019, "FCOS:
Fully Convolutional One-Stage Object Detection") stands on the project's own backbone with a feature pyramid (Lin et al.
2017); the others are torchvision's with weights that know COCO's 80 things.

One convention at this module's edge, whatever a network does inside:

- pixels are uint8 (N, size, size, 3), pictures as `utils.pictures.letterboxed` puts them into a square;
- boxes are float32 (N, 4) in pixels of that square: left, top, right, bottom;
- labels are positions 0 to K − 1 in `labels`. torchvision's faster R-CNN and SSD count from 1, 0 is their background.

To export a one-stage network (FCOS, RetinaNet, SSD), take `raw_outputs`: tensors in, tensors out, no decision. What
follows it is the same on tensors and on arrays: a least score, and the suppression of boxes that overlap a better one
of their label; see `decided`. One setting differs from torchvision's own, in training's validation, test and use alike:
every box that has the least score takes part in the suppression, not only the best 1000 of a map or 300 of a label.
"""

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence

import torch
import torchvision
from fastai.vision.all import no_random
from fastai.vision.learner import create_vision_model
from torch import Tensor, nn
from torchvision.models import detection
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.fcos import FCOS, FCOSHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.models.detection.ssd import SSD
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops import boxes as box_ops
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from utils.errors import FieldguideError
from utils.hub import hub_weights
from utils.project import PACKAGED, WEIGHTS, Project
from utils.train import architecture, download_weights, preparation

OWN_DETECTOR = "fcos"  # the detector on the project's own backbone
STRIDES = (8, 16, 32)  # pixels of the picture for each place of the maps that the pyramid takes from the backbone
ABOVE = (64, 128)  # and of two more maps, where pictures are so large that a thing can need them
LARGE_PICTURE = 512  # pixels; the map of stride 32 sees things whose edges are up to 256 pixels from their middle
PYRAMID_CHANNELS, HEAD_CONVOLUTIONS = 128, 2  # of the pyramid, and of each branch of the head; torchvision: 256 and 4
# From a place to the edges of its box, in strides, before anything is learned. FCOS cuts distances off below 0, where
# nothing is learned any more: with torchvision's 0 one training of two on 160 photos stood still.
FIRST_REACH = 3.0
LEAST_SCORE, MOST_OVERLAP, MOST_BOXES = 0.05, 0.6, 100  # of boxes that are told; overlap is intersection over union
EVERY_BOX = 10**9  # boxes that take part in the suppression, more than any network has
NO_CHANCE = -1e4  # a score before the sigmoid that is 0 after it, and has no gradient
DECISIONS = {"score_thresh": LEAST_SCORE, "detections_per_img": MOST_BOXES, "topk_candidates": EVERY_BOX}
Targets = Sequence[Mapping[str, Tensor]]  # of each picture: "boxes" (M, 4), "labels" (M,), "ignored" (I, 4)


class Pyramid(nn.Module):
    """
    A backbone in stages, and the feature pyramid on the maps that they end with: (N, 3, H, W) to maps by name.

    A pretrained backbone keeps the mean and spread of its normalisation: batches of 8 photos would spoil them.
    """

    def __init__(self, stages: Sequence[nn.Module], widths: Sequence[int], above: nn.Module | None, *, keeps: bool):
        super().__init__()
        self.keeps = keeps
        self.stages = nn.ModuleList(stages)
        self.pyramid = FeaturePyramidNetwork(list(widths), PYRAMID_CHANNELS, extra_blocks=above)
        self.out_channels = PYRAMID_CHANNELS

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        maps = OrderedDict()
        for n, stage in enumerate(self.stages):
            maps[str(n)] = x = stage(x)  # (N, C, H / stride, W / stride)
        return self.pyramid(maps)

    def train(self, mode: bool = True):
        super().train(mode)
        for layer in self.stages.modules():
            if self.keeps and isinstance(layer, nn.BatchNorm2d):
                layer.eval()
        return self


class IgnoringHead(FCOSHead):
    """FCOS's head; places inside an ignored box, where nothing is to be found, are neither right nor wrong."""

    def compute_loss(self, targets, head_outputs, anchors, matched_idxs):
        hidden = [
            _inside(places, target) & (matched < 0)
            for places, target, matched in zip(anchors, targets, matched_idxs, strict=True)
        ]
        logits = head_outputs["cls_logits"].masked_fill(torch.stack(hidden)[:, :, None], NO_CHANCE)
        return super().compute_loss(targets, head_outputs | {"cls_logits": logits}, anchors, matched_idxs)


class IgnoringRetinaHead(RetinaNetHead):
    """RetinaNet's head, which knows anchors that do not count: those that overlap a thing somewhat."""

    def compute_loss(self, targets, head_outputs, anchors, matched_idxs):
        between = self.classification_head.BETWEEN_THRESHOLDS
        matched = [
            found.masked_fill(_inside(places, target) & (found < 0), between)
            for places, target, found in zip(anchors, targets, matched_idxs, strict=True)
        ]
        return super().compute_loss(targets, head_outputs, anchors, matched)


def _inside(places: Tensor, target: Mapping[str, Tensor]) -> Tensor:
    """Return which of A places (A, 4) have their middle in an ignored box: bool (A,)."""
    middles = (places[:, None, :2] + places[:, None, 2:]) / 2  # (A, 1, 2)
    ignored = target["ignored"][None]  # (1, I, 4)
    return ((middles >= ignored[..., :2]) & (middles <= ignored[..., 2:])).all(2).any(1)


class BoxDetector(nn.Module):
    """
    A detection network of torchvision behind the convention of this module.

    In training it returns the parts of the loss by name. In evaluation it returns a dict per picture of boxes (M, 4),
    labels (M,) and scores (M,), best first; with `targets` also the parts of the loss, which move no running mean.
    `ignores` tells whether its loss leaves out ignored boxes. Where it is False, 3_train paints these areas grey:
    faster R-CNN draws its negatives and SSD mines them, and neither can be told where not to. `one_stage` tells whether
    `raw_outputs` are all that it sees: faster R-CNN decides inside where it looks a second time.
    """

    def __init__(self, network: nn.Module, name: str, labels: Sequence[str], size: int):
        super().__init__()
        self.network, self.name, self.labels, self.size = network, name, tuple(labels), size
        self.first = 0 if isinstance(network, FCOS | detection.RetinaNet) else 1
        self.ignores = self.first == 0
        self.one_stage = isinstance(network, FCOS | detection.RetinaNet | SSD)
        if self.one_stage:
            stats = network.transform.image_mean, network.transform.image_std
            mean, spread = (torch.tensor(values).view(1, 3, 1, 1) * 255 for values in stats)
            self.register_buffer("mean", mean, persistent=False)
            self.register_buffer("spread", spread, persistent=False)
            self.register_buffer("places", _places_of_maps(network, size), persistent=False)  # (A, 4)

    def forward(self, pixels: Tensor, targets: Targets | None = None):
        if self.name == OWN_DETECTOR:
            return self._own(pixels, targets)
        images = list(pixels.permute(0, 3, 1, 2) / 255)
        shifted = [{**target, "labels": target["labels"] + self.first} for target in targets] if targets else None
        if self.training:
            return self.network(images, shifted)
        found = [{**each, "labels": each["labels"] - self.first} for each in self.network(images)]
        return found if targets is None else (self._told_losses(images, shifted), found)

    def _own(self, pixels: Tensor, targets: Targets | None):
        """Do what torchvision's FCOS does with pictures of one size, without copying them; losses and boxes at once."""
        maps, outputs = self.maps_and_outputs(pixels)
        network, counts = self.network, [each.shape[2] * each.shape[3] for each in maps]
        places = [self.places] * len(pixels)
        losses = network.compute_loss(targets, outputs, places, counts) if targets is not None else {}
        if self.training:
            return losses
        levels = {name: list(values.split(counts, 1)) for name, values in outputs.items()}
        shapes = [(self.size, self.size)] * len(pixels)
        found = network.postprocess_detections(levels, [list(each.split(counts)) for each in places], shapes)
        return found if targets is None else (losses, found)

    def maps_and_outputs(self, pixels: Tensor) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Return a one-stage network's maps, and what its head makes of them at A places: scores, corners and more."""
        pictures = (pixels.permute(0, 3, 1, 2) - self.mean) / self.spread  # (N, 3, H, W), as the pixels lie
        maps = list(self.network.backbone(pictures).values())
        return maps, self.network.head(maps)

    def _told_losses(self, images: list[Tensor], targets: Targets) -> dict[str, Tensor]:
        """Return the parts of the loss without training: torchvision's networks tell them in training only."""
        deciding = [layer for layer in self.network.modules() if type(layer).__module__.startswith(DECIDING)]
        for layer in deciding:
            layer.training = True  # the flag alone: normalisation and dropout stay in evaluation
        try:
            with no_random():  # faster R-CNN looks at some of the places, which it draws
                return self.network(images, targets)
        finally:
            for layer in deciding:
                layer.training = False


DECIDING = "torchvision.models.detection."


def raw_outputs(detector: BoxDetector, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """
    Return all that a one-stage network sees before anything is decided: the part of it that can be exported.

    Parameters
    ----------
    detector : a `BoxDetector` whose `one_stage` is True
    pixels : uint8 tensor (N, size, size, 3)

    Returns
    -------
    boxes : float32 tensor (N, A, 4)
        One per place of the maps, or per anchor there, in pixels of the square, cut off at its edges.
    scores : float32 tensor (N, A, K)
        By what the network ranks boxes, in [0, 1]: FCOS √(score · centerness), SSD its softmax without the background.
    """
    _, outputs = detector.maps_and_outputs(pixels)
    network, logits, offsets = detector.network, outputs["cls_logits"], outputs["bbox_regression"]
    if isinstance(network, FCOS):
        boxes = network.box_coder.decode(offsets, detector.places[None])
        scores = torch.sqrt(logits.sigmoid() * outputs["bbox_ctrness"].sigmoid())
    else:  # this coder takes (A, 4) places, and several offsets from each: here those of N pictures
        boxes = network.box_coder.decode_single(offsets.permute(1, 0, 2).flatten(1), detector.places)
        boxes = boxes.unflatten(1, (-1, 4)).permute(1, 0, 2)
        scores = logits.softmax(-1)[..., 1:] if isinstance(network, SSD) else logits.sigmoid()
    return boxes.clamp(0, detector.size), scores


def decided(boxes: Tensor, scores: Tensor, overlap: float = MOST_OVERLAP) -> dict[str, Tensor]:
    """
    Return the boxes of one picture that are told, from its `raw_outputs`: (A, 4) and (A, K) to a dict of M, best first.

    Written plainly, as the oracle of what stands for it on arrays. `overlap` is the network's ``nms_thresh``.
    """
    places, labels = torch.where(scores > LEAST_SCORE)
    kept = box_ops.batched_nms(boxes[places], scores[places, labels], labels, overlap)[:MOST_BOXES]
    return {"boxes": boxes[places][kept], "labels": labels[kept], "scores": scores[places, labels][kept]}


def build_detector(project: Project, labels: Sequence[str], *, pretrained: bool = True) -> BoxDetector:
    """
    Return the project's `detector` for K labels; the project's seed is behind every weight that is drawn.

    With ``pretrained=False``, or weights = "none" in the project file, all of them are drawn and nothing is downloaded.
    Raises FieldguideError for a name that torchvision lacks, weights that cannot be had, and a backbone that has no
    maps of strides 8, 16 and 32.
    """
    pretrained = pretrained and project.weights != "none"
    with no_random(project.seed):
        if project.detector == OWN_DETECTOR:
            return _own_detector(project, labels, pretrained=pretrained)
        return BoxDetector(_torchvisions(project, len(labels), pretrained), project.detector, labels, project.size)


def _own_detector(project: Project, labels: Sequence[str], *, pretrained: bool) -> BoxDetector:
    if pretrained:
        download_weights(project)
    body = create_vision_model(architecture(project), 2, pretrained=pretrained)[0]
    stages, widths = _stages(body, project)
    large = project.size > LARGE_PICTURE
    above = LastLevelP6P7(PYRAMID_CHANNELS, PYRAMID_CHANNELS) if large else None
    strides = STRIDES + ABOVE if large else STRIDES
    network = FCOS(
        Pyramid(stages, widths, above, keeps=pretrained),
        len(labels),
        min_size=project.size,
        max_size=project.size,
        anchor_generator=AnchorGenerator(tuple((stride,) for stride in strides), ((1.0,),) * len(strides)),
        head=IgnoringHead(PYRAMID_CHANNELS, 1, len(labels), HEAD_CONVOLUTIONS),
        nms_thresh=MOST_OVERLAP,
        **DECISIONS,
    )
    nn.init.constant_(network.head.regression_head.bbox_reg.bias, FIRST_REACH)
    network.transform.image_mean, network.transform.image_std = map(list, preparation(project).stats)
    return BoxDetector(network, OWN_DETECTOR, labels, project.size)


def _stages(body: nn.Module, project: Project) -> tuple[list[nn.Module], list[int]]:
    """Divide a backbone behind the last layer of each stride: its stages, and how many channels each ends with."""
    layers = _layers(body)
    shapes, x = [], torch.zeros(1, 3, project.size, project.size)
    was = body.training
    with torch.no_grad():
        body.eval()
        for layer in layers:
            x = layer(x)
            shapes.append(x.shape)
        body.train(was)
    ends = []
    for stride in STRIDES:
        side = project.size // stride
        found = [n for n, shape in enumerate(shapes) if shape[2:] == (side, side)]
        if not found:
            raise FieldguideError(
                f"arch = {project.arch!r} has no map of {side} × {side} places for pictures of {project.size} pixels, "
                f'which detector = "{OWN_DETECTOR}" needs. Write arch = "{PACKAGED}", or a network of torchvision '
                "in stages, such as resnet18."
            )
        ends.append(found[-1] + 1)
    begins = [0, *ends[:-1]]
    stages = [nn.Sequential(*layers[begin:end]) for begin, end in zip(begins, ends, strict=True)]
    return stages, [shapes[end - 1][1] for end in ends]


def _layers(body: nn.Module) -> list[nn.Module]:
    """Return the layers of a network one after the other, those of its sequences among them."""
    if type(body).forward is not nn.Sequential.forward:
        return [body]
    return [layer for child in body for layer in _layers(child)]


def _places_of_maps(network: nn.Module, size: int) -> Tensor:
    """Return the squares around all places of a network's maps, which depend on the size of pictures alone: (A, 4)."""
    picture, was = torch.zeros(1, 3, size, size), network.training
    try:
        with torch.no_grad():
            maps = list(network.eval().backbone(picture).values())
    except RuntimeError as error:
        if "Kernel size" not in str(error):
            raise
        raise FieldguideError(
            f"size = {size} is too small for this detector, whose last maps would have no place left. Set size = 320."
        ) from error
    network.train(was)
    return network.anchor_generator(ImageList(picture, [(size, size)]), maps)[0]


def _torchvisions(project: Project, labels: int, pretrained: bool) -> nn.Module:
    """Return a detector of torchvision for a number of labels, which shows pictures of `size` to itself as they are."""
    name, size = project.detector, project.size
    if name not in (known := torchvision.models.list_models(module=detection)):
        raise FieldguideError(
            f"detector = {name!r} is not a detector of torchvision {torchvision.__version__}. Write "
            f'detector = "{OWN_DETECTOR}" in the project file, or one of {", ".join(known)}.'
        )
    if project.weights not in WEIGHTS:
        raise FieldguideError(
            f"weights = {project.weights!r} is a file for a backbone, and detector = {name!r} brings its own weights. "
            f'Set weights = "imagenet" to take these, or detector = "{OWN_DETECTOR}".'
        )
    weights = torchvision.models.get_model_weights(name).DEFAULT if pretrained else None
    if weights:
        hub_weights(weights.url, whose=name, instead=f'Set detector = "{OWN_DETECTOR}"', learned="COCO")
    network = torchvision.models.get_model(name, weights=weights, weights_backbone=None)
    _replace_head(network, labels)
    own = network.transform
    own.min_size, own.max_size, own.fixed_size = (size,), size, (size, size) if own.fixed_size else None
    for scorer in (network, getattr(network, "roi_heads", None)):
        for key, value in DECISIONS.items():
            if hasattr(scorer, key):
                setattr(scorer, key, value)
    return network


def _replace_head(network: nn.Module, labels: int) -> None:
    """Give a detector of torchvision a last layer for other labels than COCO's; all other weights stay."""
    if isinstance(network, detection.FasterRCNN):
        width = network.roi_heads.box_predictor.cls_score.in_features
        network.roi_heads.box_predictor = detection.faster_rcnn.FastRCNNPredictor(width, labels + 1)
        return
    scores = network.head.classification_head
    if isinstance(network, FCOS | detection.RetinaNet):
        old = scores.cls_logits
        anchors = old.out_channels // scores.num_classes
        scores.cls_logits = _as_new(nn.Conv2d(old.in_channels, anchors * labels, 3, padding=1))
        scores.num_classes = labels
        network.head.__class__ = IgnoringHead if isinstance(network, FCOS) else IgnoringRetinaHead
        return
    for n, branch in enumerate(scores.module_list):  # SSD's: a convolution per map; SSDlite's: it is the last of layers
        holder, at = (scores.module_list, n) if isinstance(branch, nn.Conv2d) else (branch, len(branch) - 1)
        old = holder[at]
        count = old.out_channels // scores.num_columns * (labels + 1)
        holder[at] = nn.Conv2d(old.in_channels, count, old.kernel_size, padding=old.padding)
        nn.init.normal_(holder[at].weight, std=0.03)
        nn.init.zeros_(holder[at].bias)
    scores.num_columns = labels + 1


def _as_new(layer: nn.Conv2d, *, likely: float = 0.01) -> nn.Conv2d:
    """Return the last layer of a focal loss as Lin et al. (2017) begin it: everything is probably nothing."""
    nn.init.normal_(layer.weight, std=0.01)
    nn.init.constant_(layer.bias, -math.log((1 - likely) / likely))
    return layer
