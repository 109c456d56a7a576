"""
The paint box of the sample: draws one photo-like picture of a sea creature.

Each picture is painted back to front: ground, shadow, creature, whatever drifts in front, then light, lens and JPEG.
A creature is a set of formulas in body coordinates (along the spine, across it). A `_Pose` bends, turns and places it.
All creatures share the grounds, and neighbours share skin colours. So shape and texture tell the labels apart, and
colour alone does not. The constants are tuned: a resnet18 from scratch, 12 epochs at 128 pixels, is right for about
95 % of the validation pictures.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFilter

from utils.pictures import jpeg_bytes

# Fraction that even a person has to look at twice: far away, out of focus or half hidden.
HARD = 0.06


def draw_photo(rng: np.random.Generator, label: str) -> bytes:
    """Return a JPEG of one creature, the same for the same state of `rng`; `label` is one of `CREATURES`."""
    image, _ = _painted(rng, label)
    return jpeg_bytes(image, quality=int(rng.integers(72, 96)))


def draw_outline(rng: np.random.Generator, label: str) -> np.ndarray:
    """Return where the creature of `draw_photo` is, bool (H, W), also behind what drifts in front of it."""
    return _painted(rng, label)[1] > 0.5


def _painted(rng, label):
    """The picture, and how much of each pixel the creature covers."""
    hard = rng.random() < HARD
    long, aspect = int(rng.integers(320, 641)), rng.choice([1, 4 / 5, 3 / 4, 3 / 4, 2 / 3])
    shape = (round(long * aspect), long) if rng.random() < 0.75 else (long, round(long * aspect))
    sun = np.array([rng.normal(0, 0.5), -1, rng.uniform(0.8, 1.4)])
    sun = (sun / np.linalg.norm(sun)).astype(np.float32)

    ground = rng.choice(GROUNDS)
    scene = ground(rng, shape, sun)
    for _ in range(rng.integers(0, 3)):
        _lay_thing(scene, rng, sun)
    scene = _defocus(rng, scene)
    pose = _some_pose(rng, shape, label, hard)
    creature = CREATURES[label](rng, shape, pose, sun)
    _put(scene, creature, rng, sun)
    for front in rng.choice(FRONTS, int(rng.random() < 0.2) + hard, replace=False):
        front(rng, scene, pose, sun)
    return _develop(rng, scene, wet=ground in WET, hard=hard), creature.cover


def _some_pose(rng, shape, label, hard):
    """A place in the picture, mostly filled, and an attitude that suits the animal."""
    h, w = shape
    fill = 0.7 * min(h, w) + 0.3 * max(h, w)
    scale = rng.uniform(0.17, 0.26) * min(h, w) if hard else rng.uniform(0.4, 0.52) * fill
    room = max(min(h, w) / 2 - scale, 0.05 * min(h, w))  # a square cut from the middle still shows the animal
    x, y = (np.array([w, h]) / 2 + rng.uniform(-room, room, 2)).tolist()
    # Fish swim level, prawns nearly so with an arched back, cucumbers point anywhere and curl both ways.
    turn = rng.normal(0, {"tilapia": 0.2, "penaeus monodon": 0.3, "sea cucumber": 0.45}[label])
    if h > 1.3 * w and rng.random() < 0.4:  # along a tall picture
        turn += np.pi / 2 * rng.choice([-1, 1])
    mean, deviation = {"tilapia": (0, 0.2), "penaeus monodon": (-0.5, 0.3), "sea cucumber": (0, 0.5)}[label]
    bend = float(np.clip(rng.normal(mean, deviation), -1.3, 1.3))
    bend = bend if abs(bend) > 0.02 else 0.02
    turn = float(np.clip(turn, -2.4, 2.4))
    return _Pose(x, y, scale, turn, int(rng.choice([-1, 1])), bend, rng.uniform(0.78, 1))


@dataclass(frozen=True)
class _Pose:
    """Where a body lies: body coordinates run from the tail (u = -1) to the head (u = 1), v points to the back."""

    x: float  # the middle of the body, pixels
    y: float
    scale: float  # half the length of the body, pixels
    turn: float  # radians, counter-clockwise
    facing: int  # 1: the head is on the right
    bend: float  # curvature of the spine: never 0
    squeeze: float  # foreshortening along the spine

    def to_picture(self, u, v):
        """Points (…, 2) of the picture, pixels."""
        radius, angle = 1 / self.bend - v, self.bend * u
        x, y = radius * np.sin(angle) * self.squeeze * self.facing, 1 / self.bend - radius * np.cos(angle)
        c, s = np.cos(self.turn), np.sin(self.turn)
        return np.stack([self.x + self.scale * (x * c - y * s), self.y - self.scale * (x * s + y * c)], -1)

    def ribbon(self, line, thick, thin):
        """A line (n, 2) of the body, tapering from thick to thin, as `_ribbons` takes it: in pixels."""
        return self.to_picture(*line.T), np.linspace(thick, thin, len(line)) * self.scale

    def to_body(self, shape):
        """Body coordinates u, v of each pixel, two arrays (H, W)."""
        y, x = np.ogrid[: shape[0], : shape[1]]
        x, y = (x - np.float32(self.x)) / self.scale, (np.float32(self.y) - y) / self.scale
        c, s, sign = np.cos(self.turn), np.sin(self.turn), np.sign(self.bend)
        x, y = ((x * c + y * s) / (self.squeeze * self.facing)), 1 / self.bend - (y * c - x * s)
        x, y = (sign * x).astype(np.float32), (sign * y).astype(np.float32)
        return np.arctan2(x, y) / self.bend, 1 / self.bend - np.hypot(x, y) * np.float32(sign)


class _Layer:
    """Paint on glass: colour premultiplied by cover, so that edges do not darken."""

    def __init__(self, shape):
        self.colour = np.zeros((*shape, 3), np.float32)
        self.cover = np.zeros(shape, np.float32)

    def paint(self, colour, cover):
        """Lay a colour, (3,) or (H, W, 3), over what is there, where cover (H, W) says."""
        box = _box(cover)  # most strokes are small: leave the rest of the glass alone
        cover = cover[box]
        self.cover[box] += (1 - self.cover[box]) * cover
        self.colour[box] *= 1 - cover[..., None]
        self.colour[box] += cover[..., None] * (colour if colour.ndim == 1 else colour[box])


def _box(cover):
    """The smallest box, as two slices, outside of which nothing is covered."""
    spans = [np.flatnonzero(cover.any(axis)) for axis in (1, 0)]
    return tuple(slice(span[0], span[-1] + 1) if len(span) else slice(0) for span in spans)


def _put(scene, layer, rng, sun):
    """Lay a layer on the scene, with its shadow."""
    reach = 0.03 * max(scene.shape) * rng.uniform(0.4, 1.6)
    blurred = Image.fromarray((layer.cover * 255).astype(np.uint8)).filter(ImageFilter.BoxBlur(reach / 2))
    shadow = Image.new("L", blurred.size)
    shadow.paste(blurred, (round(-2 * sun[0] * reach), round(reach)))
    scene *= 1 - rng.uniform(0.15, 0.5) / 255 * np.asarray(shadow, np.float32)[..., None]
    scene *= 1 - layer.cover[..., None]
    scene += layer.colour


def _defocus(rng, scene):
    """What lies behind the creature, a little out of focus and paler."""
    image = Image.fromarray((scene.clip(0, 1) * 255).astype(np.uint8))
    image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.004, 0.016) * max(scene.shape)))
    scene = np.asarray(image, np.float32) / 255
    return scene + (scene.mean((0, 1)) - scene) * rng.uniform(0.2, 0.6)


def _develop(rng, scene, *, wet, hard):
    """What water, lens and camera do to the light."""
    h, w = shape = scene.shape[:2]
    if wet:
        if rng.random() < 0.5:  # caustics: bright ridges of light where the waves focus it
            ridges = 1 - np.abs(_noise(rng, shape, rng.uniform(0.12, 0.3) * max(shape), 2))
            scene *= 1 + rng.uniform(0.15, 0.45) * np.clip(ridges, 0, 1)[..., None] ** 6
        haze = rng.uniform(0.03, 0.2) + 0.1 * hard
        scene += (_tint(rng, WATERS) - scene) * haze
    scene *= rng.uniform(0.9, 1.3) * rng.normal(1, 0.04, 3).astype(np.float32)
    y, x = np.ogrid[-1 : 1 : h * 1j, -1 : 1 : w * 1j]
    scene *= (1 - rng.uniform(0, 0.25) * (x * x + y * y))[..., None].astype(np.float32)
    scene = np.clip(scene, 0, 1.6)
    scene /= 1 + 0.2 * scene**2  # a soft shoulder: film does not clip its lights
    scene += rng.standard_normal((*shape, 1), np.float32) * rng.choice([0.006, 0.012, 0.025]).astype(np.float32)
    image = Image.fromarray((np.clip(scene, 0, 1) * 255).astype(np.uint8))
    blur = rng.uniform(1, 2.4) if hard else rng.choice([0, 0.5, 1.2], p=[0.5, 0.35, 0.15])
    return image.filter(ImageFilter.GaussianBlur(float(blur) * max(shape) / 480)) if blur else image


# --- Brushes ---------------------------------------------------------------------------------------------------------


def _palette(*colours):
    return np.array([ImageColor.getrgb(colour) for colour in colours], np.float32) / 255


# Neighbours in this row share a hide, and light changes all: colour hints at the creature and does not give it away.
HIDES = _palette(
    *("#b59f78", "#9aa57c", "#a8b0a4", "#94949a"),
    *("#6f8ca8", "#b8603a", "#a8503f", "#86603f"),
    *("#6d5238", "#463e34", "#5a3f2e", "#7a6840"),
)
HUES = {"tilapia": HIDES[:4], "penaeus monodon": HIDES[3:8], "sea cucumber": HIDES[7:]}
WATERS = _palette("#3f7f8f", "#2c5f7a", "#5b8a72", "#7d8f6a", "#1f4a5e", "#6fa3a8")
STONES = _palette("#8a8378", "#6f6a63", "#a39a88", "#5c5f63", "#b3a28e", "#7a6a5c")
SANDS = _palette("#c2ab82", "#a8957a", "#8f8270")
FROSTS = _palette("#c9d4da", "#d8dcd8", "#b8c8d2")
WEEDS = _palette("#4f6b35", "#6b7a3a", "#3b5a3c", "#7c6b35", "#5a4a2f")
SKINS = _palette("#d9a98a", "#b9825f", "#8a5a3f", "#e3bda0")
WOODS = _palette("#9a7a55", "#7d6248", "#b08d62", "#6a5a4c")
EYES = _palette("#c9b26a", "#b8bcc0", "#b0603c")
PLASTICS = _palette("#3f6fa0", "#b8443a", "#d8d8d0", "#3d8a62", "#3a3d42", "#d0a83c")


def _tint(rng, palette, spread=0.05):
    """A colour of the palette, varied a little."""
    colour = palette[rng.integers(len(palette))] * rng.normal(1, spread) + rng.normal(0, spread / 2, 3)
    return colour.clip(0.02, 1).astype(np.float32)


def _noise(rng, shape, cell, octaves=3, stretch=1):
    """Smooth noise (H, W), mostly in [-1, 1]: features of `cell` pixels, `stretch` times longer sideways."""
    h, w = shape
    total = np.zeros(shape, np.float32)
    for octave in range(octaves):
        cells = int(h * 2**octave / cell) + 2, int(w * 2**octave / cell / stretch) + 2
        grid = Image.fromarray(rng.normal(0, 0.6, cells).astype(np.float32))
        total += np.asarray(grid.resize((w, h), Image.BICUBIC)) / 2**octave
    return total


def _inside(distance, pixel):
    """Cover in [0, 1] of pixels so far inside an edge: soft over one pixel, hence without stairs."""
    return np.clip(0.5 + distance / pixel, 0, 1)


def _light(height, sun, gloss=0.0):
    """How bright (H, W, 1) a surface of this height in pixels is under the sun."""
    dy, dx = np.gradient(height)
    facing = np.clip((sun[2] - dx * sun[0] - dy * sun[1]) / np.sqrt(1 + dx * dx + dy * dy), 0, 1)
    return (0.4 + 0.75 * facing + gloss * facing**20)[..., None].astype(np.float32)


def _ribbons(shape, ribbons):
    """Cover (H, W) of tapering ribbons: pairs of a line (n, 2) and its widths (n,), pixels."""
    mask = Image.new("L", (shape[1] * 2, shape[0] * 2))  # drawn twice as large, then reduced: no stairs
    draw = ImageDraw.Draw(mask)
    for line, width in ribbons:
        along = np.gradient(line, axis=0)
        side = np.stack([-along[:, 1], along[:, 0]], -1) / (np.hypot(*along.T)[:, None] + 1e-6)
        side *= np.broadcast_to(np.maximum(width, 0.7), len(line))[:, None] / 2
        outline = np.concatenate([line + side, (line - side)[::-1]]) * 2
        draw.polygon([tuple(point) for point in outline.tolist()], fill=255)
    return np.asarray(mask.reduce(2), np.float32) / 255


def _curve(*points, n=16):
    """A Bézier curve (n, 2) from the first point to the last, pulled by those between (de Casteljau)."""
    t = np.linspace(0, 1, n)[:, None]
    points = [np.broadcast_to(np.asarray(point, float), (n, 2)) for point in points]
    while len(points) > 1:
        points = [a + (b - a) * t for a, b in pairwise(points)]
    return points[0]


def _bumps(shape, centres, radii):
    """A height field (H, W) in pixels: a rounded cone at each centre."""
    field = np.zeros(shape, np.float32)
    for (x, y), radius in zip(centres, radii, strict=True):
        left, top, right, bottom = int(x - radius), int(y - radius), int(x + radius) + 2, int(y + radius) + 2
        view = field[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
        rows, columns = np.ogrid[: view.shape[0], : view.shape[1]]
        far = np.hypot(columns + max(left, 0) - x, rows + max(top, 0) - y) / radius
        np.maximum(view, radius * np.clip(1 - far, 0, 1) ** 1.3, out=view)
    return field


# --- The creatures: each returns a layer -----------------------------------------------------------------------------


def _tilapia(rng, shape, pose, sun):
    """A deep-bodied fish seen from the side: long spiny dorsal fin, bars, scales, a round eye."""
    layer, pixel = _Layer(shape), 1 / pose.scale
    u, v = pose.to_body(shape)
    hide = _tint(rng, HUES["tilapia"])
    s = np.clip((u + 0.62) / 1.6, 0, 1)  # 0 at the root of the tail, 1 at the snout
    back = rng.uniform(0.36, 0.46) * np.sin(np.pi * s**1.15).clip(0) ** 0.75 + 0.1 * (1 - s)
    half = back * np.where(v > 0, 1, rng.uniform(0.78, 0.92))
    fin = hide * rng.uniform(0.65, 0.95)
    _tilapia_fins(rng, layer, pose, u, v, half, fin)

    across = v / (half + 1e-3)
    scales = np.cos(u * 52) * np.cos(v * 60) * (u < 0.5)
    height = pose.scale * (0.55 * back * np.sqrt(np.clip(1 - across**2, 0.02, 1)) + 0.006 * scales)
    bars = rng.uniform(0, 0.35) * np.clip(np.sin(u * rng.uniform(16, 21) + 0.6 * v), 0, 1) ** 2 * (across > -0.5)
    colour = hide * ((1 - bars) * (1 + 0.16 * scales + 0.08 * _noise(rng, shape, 0.3 * pose.scale)))[..., None]
    belly = rng.uniform(0.05, 0.4) * np.clip(0.3 - across, 0, 1)
    colour += (np.float32([0.92, 0.9, 0.84]) - colour) * belly[..., None]
    gill = np.exp(-(((np.hypot(u - 0.86, v * 0.9 + 0.02) - 0.36) / 0.016) ** 2)) * (u < 0.7) * (np.abs(across) < 0.8)
    mouth = np.exp(-(((v + 0.05 - 0.3 * (u - 0.95)) / 0.012) ** 2)) * (u > 0.86)
    colour *= 1 - 0.5 * np.maximum(gill, mouth)[..., None]
    body = _inside((half - np.abs(v)) * 0.8, pixel) * (u > -0.62) * (u < 0.985)
    layer.paint(colour * _light(height, sun, rng.uniform(0.1, 0.5)), body)

    flap = rng.uniform(-0.5, 0.3)  # the breast fin, drawn over the body
    along, aside = -(u - 0.42) * np.cos(flap) - (v + 0.08) * np.sin(flap), (v + 0.08) * np.cos(flap)
    aside -= (u - 0.42) * np.sin(flap)
    leaf = np.clip(along, 0, 1) * 0.42 * np.clip(1.1 - along / 0.38, 0, 1) ** 0.5 - np.abs(aside)
    rays = 1.05 + 0.25 * np.sin(np.arctan2(aside, along + 0.02) * 40)
    layer.paint(fin * rays[..., None], _inside(leaf, pixel) * (along > 0) * (along < 0.4) * 0.75)
    _eye(layer, u - 0.7, v - 0.09, rng.uniform(0.055, 0.07), pixel, _tint(rng, EYES))
    return layer


def _tilapia_fins(rng, layer, pose, u, v, half, fin):
    """The fins behind the body: tail, dorsal, anal and pelvic."""
    pixel = 1 / pose.scale
    tail = 0.08 + rng.uniform(0.2, 0.32) * np.clip((-0.5 - u) / 0.5, 0, 1.2) ** 0.8 - np.abs(v)
    tail = np.minimum(tail, u + rng.uniform(0.98, 1.06) - 0.3 * v * v)
    rays = 0.8 + 0.25 * np.sin(np.arctan2(v, u + 0.1) * 90)
    layer.paint(fin * rays[..., None], _inside(np.minimum(tail, -0.5 - u), pixel) * 0.92)
    rays = fin * (0.85 + 0.25 * np.sin(u * 75 + v * rng.uniform(8, 20)))[..., None]
    dorsal = rng.uniform(0.1, 0.2) * np.clip((u + 0.62) * 5, 0, 1) * np.clip((0.62 - u) * 3, 0, 1) * (1.1 - 0.5 * u)
    dorsal -= 0.035 * np.abs(np.sin(u * 26))  # the spines stand out of the skin between them
    layer.paint(rays, _inside(np.minimum(half + dorsal - v, v), pixel) * (dorsal > 0) * 0.92)
    anal = 0.16 * np.clip((u + 0.55) * 4, 0, 1) * np.clip((-0.05 - u) * 4, 0, 1)
    layer.paint(rays, _inside(np.minimum(half + anal + v, -v), pixel) * (anal > 0) * 0.92)
    pelvic = [_curve((0.3 - 0.04 * i, -0.25), (0.2, -0.45), (-0.12 - 0.05 * i, -0.42 + 0.03 * i)) for i in range(3)]
    layer.paint(fin * 0.9, _ribbons(u.shape, [pose.ribbon(line, 0.07, 0.01) for line in pelvic]) * 0.92)


def _eye(layer, u, v, radius, pixel, iris):
    far = np.hypot(u, v)
    layer.paint(iris, _inside(radius - far, pixel))
    layer.paint(np.float32([0.04, 0.04, 0.05]), _inside(radius * 0.62 - far, pixel))
    layer.paint(np.float32([1, 1, 1]), _inside(radius * 0.2 - np.hypot(u - radius * 0.25, v - radius * 0.3), pixel))


def _sea_cucumber(rng, shape, pose, sun):
    """A soft sausage with warts (papillae), blotches and sometimes a bush of tentacles at the mouth."""
    layer, pixel = _Layer(shape), 1 / pose.scale
    u, v = pose.to_body(shape)
    hide = _tint(rng, HUES["sea cucumber"])
    thick, blunt, (a, b, c) = rng.uniform(0.19, 0.3), rng.uniform(2.2, 4), rng.uniform(0, 6.3, 3)

    def outline(u):
        """Half the thickness at u: a lumpy superellipse."""
        lumps = 1 + 0.05 * np.sin(7 * u + a) + 0.04 * np.sin(13 * u + b) + 0.12 * np.sin(1.6 * u + c)
        return thick * lumps * np.sqrt(np.clip(1 - np.abs(u) ** blunt, 0, 1))

    if rng.random() < 0.45:
        bush = [_curve((0.93, t * 0.07), (1.08, t * 0.1), (1.2, t * 0.2)) for t in rng.uniform(-1, 1, 9)]
        layer.paint(hide * rng.uniform(0.6, 1.3), _ribbons(shape, [pose.ribbon(line, 0.045, 0.02) for line in bush]))
    at, side, size = rng.uniform((-0.94, -1, 0.03), (0.94, 1, 0.075), (rng.integers(50, 110), 3)).T
    rim = np.abs(side) > 0.75  # these warts stand out of the silhouette
    foot = np.stack([at, 0.85 * outline(at) * np.sign(side)], -1)
    tip = foot + np.stack([0 * at, 1.2 * size * np.sign(side)], -1)
    spikes = [pose.ribbon(np.linspace(foot[i], tip[i], 4), 1.7 * size[i], 0.3 * size[i]) for i in np.flatnonzero(rim)]
    layer.paint(hide * 0.85, _ribbons(shape, spikes))

    half = outline(u)
    across = v / (half + 1e-3)
    centres = pose.to_picture(at, outline(at) * np.sin(side * 1.9))[~rim]
    warts = _bumps(shape, centres, size[~rim] * pose.scale)
    wrinkles = np.sin(u * rng.uniform(45, 70) + 2 * _noise(rng, shape, 0.3 * pose.scale)) * 0.004
    height = pose.scale * (0.9 * half * np.sqrt(np.clip(1 - across**2, 0.02, 1)) + wrinkles) + 1.1 * warts
    blotch = np.clip(_noise(rng, shape, rng.uniform(0.12, 0.3) * pose.scale) * 1.5, -1, 1) * rng.uniform(0.05, 0.35)
    tips = float(rng.choice([-1, 1]) * rng.uniform(0.3, 0.7))  # warts are darker or lighter than the hide
    colour = hide * ((1 + blotch) * (1 + tips * np.clip(warts * pixel / 0.04, 0, 1)))[..., None]
    belly = np.clip(-across - 0.35, 0, 1) * rng.uniform(0, 0.5)
    colour += (np.float32([0.8, 0.72, 0.6]) - colour) * belly[..., None]
    layer.paint(colour * _light(height, sun, rng.uniform(0, 0.5)), _inside(half - np.abs(v), pixel))
    return layer


def _prawn(rng, shape, pose, sun):
    """A giant tiger prawn: carapace with a toothed rostrum, banded abdomen, fan, legs and long antennae."""
    layer, pixel = _Layer(shape), 1 / pose.scale
    u, v = pose.to_body(shape)
    hide = _tint(rng, HUES["penaeus monodon"])
    limb = hide + (_tint(rng, HIDES) - hide) * rng.uniform(0, 0.8)
    _prawn_limbs(rng, layer, pose, hide, limb)

    s = np.clip((u + 0.8) / 1.6, 0, 1)  # 0 at the fan, 1 where the rostrum begins
    half = rng.uniform(0.15, 0.2) * (0.32 + 0.68 * np.clip(s * 1.5, 0, 1)) * np.clip((0.86 - u) * 3.2, 0, 1) ** 0.6
    across = v / (half + 1e-3)
    segment = (0.2 - u) / 0.155  # six of them behind the carapace
    plate = np.where((segment > 0) & (segment < 6.4), segment % 1, 0)
    height = 0.8 * half * np.sqrt(np.clip(1 - across**2, 0.02, 1)) + 0.02 * plate
    height += 0.012 * np.exp(-(((v - 0.03 - 0.05 * np.sin(u * 5)) / 0.02) ** 2)) * (u > 0.2)  # the carapace's ridge
    bands = np.where(segment > 0, np.sin((segment - 0.15) * 2 * np.pi), np.sin(segment * 5 + 2 * v) * 0.5)
    bands = np.clip(bands * 2, -1, 1) * rng.uniform(0.25, 0.5)
    colour = hide * (1 + bands + 0.12 * _noise(rng, shape, 0.12 * pose.scale))[..., None]
    pale = np.clip(bands, 0, 1) * rng.uniform(0.3, 1)
    colour += (np.float32([0.9, 0.85, 0.72]) - colour) * pale[..., None]
    body = _inside(half * (1 + 0.06 * plate) - np.abs(v), pixel) * (u > -0.8)
    layer.paint(colour * _light(height * pose.scale, sun, rng.uniform(0.1, 0.6)), body)
    layer.paint(limb * 0.7, _ribbons(shape, [pose.ribbon(_curve((0.76, 0.04), (0.82, 0.08), (0.86, 0.1)), 0.05, 0.04)]))
    _eye(layer, u - 0.87, v - 0.105, 0.042, pixel, np.float32([0.12, 0.1, 0.1]))
    return layer


def _prawn_limbs(rng, layer, pose, hide, limb):
    """All that is thin, back to front: each kind a colour, curves in body coordinates and their widths."""
    sway = rng.uniform(-0.25, 0.25)

    def draw(colour, curves, thick, thin):
        layer.paint(colour, _ribbons(layer.cover.shape, [pose.ribbon(curve, thick, thin) for curve in curves]))

    knees = [((0.3 + 0.12 * i + sway, -0.34), (0.1 + 0.16 * i + sway, -0.3 - 0.04 * i)) for i in range(5)]
    feet = [(0.12 + 0.2 * i + sway, -0.62 + 0.04 * i) for i in range(5)]
    draw(limb * 0.8, [_curve((0.22 + 0.1 * i, -0.1), *knees[i], feet[i]) for i in range(5)], 0.04, 0.012)
    roots = np.linspace(-0.55, 0.05, 5)
    draw(limb * 0.9, [_curve((u, -0.08), (u, -0.2), (u - 0.11 + sway / 2, -0.3)) for u in roots], 0.075, 0.03)
    for side in (1, rng.choice([-1, 1])):
        elbow, end = (1.4, side * rng.uniform(0.1, 0.9)), (rng.uniform(-0.6, 1.2), side * rng.uniform(0.4, 1.1))
        feeler = _curve((0.85, 0), (1.35, 0.15 * side + 0.1), elbow, end, n=40)
        draw(limb * rng.uniform(0.8, 1.3), [feeler], 0.025, 0.008)
    ends = [(1.28, 0.08 - 0.08 * i + sway / 2) for i in range(4)]
    draw(limb, [_curve((0.85, -0.02 * i), (1.05, 0.02 - 0.05 * i), ends[i]) for i in range(4)], 0.03, 0.008)
    draw(limb * 1.05, [_curve((0.78, -0.05), (0.95, -0.06), (1.1, -0.04))], 0.11, 0.03)
    spread = rng.uniform(0.08, 0.3)
    for i, a in enumerate((-1.0, -0.55, 0.55, 1.0, 0.0)):  # the blades of the fan, tipped darker
        blade = _curve((-0.72, 0), (-0.86, a * spread * 0.6), (-1.06 + 0.03 * abs(a), a * spread))
        draw(limb * (0.85 + 0.08 * i), [blade], 0.06, 0.1)
        draw(limb * 0.7, [blade[-4:]], 0.09, 0.1)
    beak = _curve((0.5, 0.13), (0.85, 0.16), (1.12, rng.uniform(0.1, 0.2)))
    draw(hide * 0.8, [beak], 0.09, 0.012)
    draw(hide * 0.8, [np.stack([beak[i], beak[i] + (0.035, 0.04)]) for i in range(2, 13, 2)], 0.03, 0.004)


CREATURES = {"penaeus monodon": _prawn, "sea cucumber": _sea_cucumber, "tilapia": _tilapia}


# --- Grounds, things that lie about, and things in front -------------------------------------------------------------


def _flat(colour, shade):
    return (colour * (1 + shade[..., None])).astype(np.float32)


def _water(rng, shape, sun):
    """Open water: light above, dark below, rays from the surface."""
    y, x = np.ogrid[0 : 1 : shape[0] * 1j, 0 : 1 : shape[1] * 1j]
    rays = np.sin((x - 0.5 - sun[0] * y) / (0.4 + y) * rng.uniform(8, 20)) * (1 - y) * rng.uniform(0, 0.2)
    shade = rng.uniform(0.2, 0.5) - rng.uniform(0.4, 0.9) * y + rays + 0.08 * _noise(rng, shape, max(shape) / 3)
    return _flat(_tint(rng, WATERS), shade)


def _sand(rng, shape, sun):
    """Sand, often rippled."""
    y, x = np.ogrid[: shape[0], : shape[1]]
    way, wave = rng.uniform(-1.2, 1.2), rng.uniform(0.05, 0.12) * max(shape)
    drift = 6 * _noise(rng, shape, 0.5 * max(shape), 2)
    ripples = np.sin((y * np.cos(way) + x * np.sin(way)) / wave * 6.3 + drift) * rng.uniform(0, 0.02) * wave * 6
    grain = _noise(rng, shape, 5, 1)
    return _flat(_tint(rng, SANDS), 0.08 * grain) * _light(ripples + 0.5 * grain, sun)


def _pebbles(rng, shape, sun):
    """A bed of round stones."""
    h, w = shape
    size = rng.uniform(0.03, 0.08) * max(shape)
    image = Image.new("RGB", (w, h), "#3a3630")
    draw = ImageDraw.Draw(image)
    count = int(1.6 * h * w / size**2)
    centres, radii = rng.uniform(0, 1, (count, 2)) * (w, h), rng.uniform(0.4, 1, count) * size
    colours = STONES[rng.integers(len(STONES), size=count)] * rng.normal(1, 0.12, (count, 1))
    for (x, y), r, colour in zip(centres, radii, colours, strict=True):
        draw.ellipse((x - r, y - r, x + r, y + r), tuple(int(c) for c in (colour * 255).clip(0, 255)))
    height = 0.9 * _bumps(shape, centres, radii) + 0.6 * _noise(rng, shape, 6, 1)
    return np.asarray(image, np.float32) / 255 * _light(height, sun)


def _meadow(rng, shape, sun):
    """Water with a thicket of seagrass."""
    scene = _water(rng, shape, sun)
    for depth in (0.5, 0.75, 1):
        blades = _blades(rng, shape, 14)
        scene += (_tint(rng, WEEDS) * depth - scene) * (_ribbons(shape, blades) * (0.5 + 0.4 * depth))[..., None]
    return scene


def _blades(rng, shape, count):
    """Blades of seagrass rooted below the picture."""
    h, w = shape
    for _ in range(count):
        x, lean, tall = rng.uniform(0, w), rng.normal(0, 0.12 * w), rng.uniform(0.4, 1.1) * h
        yield _curve((x, h), (x - lean, h - tall / 2), (x + lean, h - tall)), np.linspace(0.03, 0.006, 16) * w


def _net(rng, shape, sun):
    """A net over something dark."""
    scene = _flat(_tint(rng, WATERS) * rng.uniform(0.3, 0.9), 0.25 * _noise(rng, shape, 0.2 * max(shape)))
    return _mesh(rng, scene, sun)


def _mesh(rng, scene, sun):
    """Lay a slack net over the scene."""
    shape = scene.shape[:2]
    y, x = np.ogrid[: shape[0], : shape[1]]
    pitch = rng.uniform(0.06, 0.13) * max(shape)
    slack = 0.8 * _noise(rng, shape, 0.6 * max(shape), 2)
    threads = np.minimum(np.abs(np.sin((x + y) / pitch * 2.2 + slack)), np.abs(np.sin((x - y) / pitch * 2.2 - slack)))
    cover = _inside(rng.uniform(0.06, 0.13) - threads, 2.2 / pitch)[..., None] * 0.9
    scene += (_tint(rng, PLASTICS) * (0.8 + 0.2 * _noise(rng, shape, 8, 1))[..., None] - scene) * cover
    return scene


def _board(rng, shape, sun):
    """Planks."""
    y = np.arange(shape[0], dtype=np.float32)[:, None]
    wide = rng.uniform(0.2, 0.5) * max(shape)
    grain = _noise(rng, shape, 0.06 * max(shape), 3, stretch=14)
    rings = np.sin(9 * _noise(rng, shape, 0.3 * max(shape), 1, stretch=6) + y * 0.06)
    gap = np.exp(-(((y + rng.uniform(0, wide)) % wide / (0.012 * max(shape))) ** 2))
    plank = np.sin(np.floor(y / wide) * 12.9) * 0.08
    return _flat(_tint(rng, WOODS), 0.16 * grain + 0.06 * rings + plank - 0.7 * gap)


def _crate(rng, shape, sun):
    """The slotted floor of a plastic crate, wet."""
    y, x = np.ogrid[: shape[0], : shape[1]]
    pitch = rng.uniform(0.08, 0.16) * max(shape)
    a, b = (x % pitch) / pitch - 0.5, (y % (pitch * 0.6)) / (pitch * 0.6) - 0.5
    slot = np.clip((0.32 - np.maximum(np.abs(a), np.abs(b))) * 12, 0, 1).astype(np.float32)
    scene = _flat(_tint(rng, PLASTICS) * 0.85, 0.1 * _noise(rng, shape, 0.3 * max(shape)))
    return scene * (1 - 0.65 * slot[..., None]) * _light(-4 * slot, sun, 0.3)


def _ice(rng, shape, sun):
    """Crushed ice on a market stall."""
    size = rng.uniform(0.03, 0.07) * max(shape)
    lumps = np.abs(_noise(rng, shape, size, 2)) * size * 0.5
    return _flat(_tint(rng, FROSTS), 0.05 * _noise(rng, shape, size)) * _light(lumps, sun, 0.3)


def _hand(rng, shape, sun):
    """A palm held out under the catch, over a blurred beyond."""
    h, w = shape
    scene = _flat(_tint(rng, np.concatenate([WATERS, STONES, WEEDS])), 0.3 * _noise(rng, shape, 0.3 * max(shape), 2))
    skin, facing, scale = _tint(rng, SKINS), int(rng.choice([-1, 1])), 0.7 * w
    for finger in range(4):
        y, x = h * (0.26 + 0.17 * finger), w * (0.5 - facing * rng.uniform(0.25, 0.35))
        pose = _Pose(x, y, scale, rng.normal(0, 0.05) + 0.04 * (finger - 1.5), facing, rng.uniform(0.02, 0.3), 1)
        _put(scene, _finger(rng, shape, pose, 0.09 * h / scale, skin, sun), rng, sun)
    return scene


def _finger(rng, shape, pose, thick, skin, sun):
    """A round finger."""
    layer = _Layer(shape)
    u, v = pose.to_body(shape)
    joint = 1 + 0.05 * np.cos(u * 9)
    far = np.hypot(np.clip(u - 1 + thick, 0, None), v) / (thick * joint)
    creases = 0.003 * np.sin(u * 60) * (np.cos(u * 9) > 0.7)
    height = pose.scale * (thick * np.sqrt(np.clip(1 - far**2, 0.02, 1)) + creases)
    tone = skin * (1 + 0.06 * _noise(rng, shape, 0.1 * max(shape)))[..., None]
    layer.paint(tone * _light(height, sun, 0.1), _inside((1 - far) * thick, 1 / pose.scale))
    return layer


def _lay_thing(scene, rng, sun, at=None, size=None):
    """Lay a stone, a starfish or a shell on the scene."""
    x, y = rng.uniform(0, 1, 2) * scene.shape[1::-1] if at is None else at
    size = size or rng.uniform(0.04, 0.12) * max(scene.shape)
    left, top = int(max(x - 2 * size, 0)), int(max(y - 2 * size, 0))
    window = scene[top : max(int(y + 2 * size), 0), left : max(int(x + 2 * size), 0)]
    if min(window.shape[:2]) < 4:
        return
    shape = window.shape[:2]
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    rows, columns = (rows + top - y).astype(np.float32), (columns + left - x).astype(np.float32)
    far, angle = np.hypot(columns, rows) / float(size), np.arctan2(rows, columns) + rng.uniform(0, 6.3)
    kind = rng.choice(["stone", "star", "shell"], p=[0.6, 0.2, 0.2])
    ribs = np.cos(24 * angle) * (kind == "shell")
    match kind:
        case "stone":
            rim = 1 + 0.12 * np.sin(2 * angle + rng.uniform(0, 6)) + 0.06 * np.sin(3 * angle + rng.uniform(0, 6))
        case "star":
            rim = 0.75 + 0.45 * np.cos(5 * angle)
        case "shell":
            rim = 1 + 0.3 * np.cos(angle) + 0.04 * ribs
    height = np.clip(1 - (far / rim) ** 2, 0.01, 1) ** 0.5 * size * (0.9 if kind == "stone" else 0.4)
    height += 0.6 * _noise(rng, shape, 7, 1) + 0.03 * size * ribs
    colour = _tint(rng, STONES if kind == "stone" else HIDES) * (1 + 0.1 * _noise(rng, shape, size))[..., None]
    layer = _Layer(shape)
    layer.paint(colour * _light(height, sun, 0.1), _inside(rim - far, 1 / size))
    _put(window, layer, rng, sun)


def _in_grass(rng, scene, pose, sun):
    """Seagrass before the creature."""
    shape = scene.shape[:2]
    blades = list(_blades(rng, shape, int(rng.integers(2, 7))))
    scene += (_tint(rng, WEEDS) - scene) * (_ribbons(shape, blades) * 0.92)[..., None]


def _in_net(rng, scene, pose, sun):
    """A net before the creature."""
    _mesh(rng, scene, sun)


def _behind_stone(rng, scene, pose, sun):
    """A stone, shell or star over a part of the creature."""
    at = pose.to_picture(rng.choice([-0.9, 0.9]) * rng.uniform(0.4, 1), rng.uniform(-0.3, 0.3))
    _lay_thing(scene, rng, sun, at, pose.scale * rng.uniform(0.2, 0.4))


def _bubbles(rng, scene, pose, sun):
    """Rising bubbles: a bright rim and a glint."""
    shape = scene.shape[:2]
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    for _ in range(rng.integers(4, 12)):
        x, y, r = rng.uniform(0, shape[1]), rng.uniform(0, shape[0]), rng.uniform(0.006, 0.025) * max(shape)
        box = slice(max(int(y - 2 * r), 0), int(y + 2 * r)), slice(max(int(x - 2 * r), 0), int(x + 2 * r))
        dx, dy = (columns[:, box[1]] - x) / r, (rows[box[0]] - y) / r
        rim = np.exp(-(((np.hypot(dx, dy) - 0.85) / 0.15) ** 2))
        glint = np.exp(-16 * ((dx + 0.35) ** 2 + (dy + 0.35) ** 2))
        scene[box] += (1 - scene[box]) * 0.7 * (0.5 * rim + glint)[..., None]


def _behind_finger(rng, scene, pose, sun):
    """A finger that holds the creature."""
    x, y = pose.to_picture(rng.uniform(-0.6, 0.6), 0)
    turn, long, thick = rng.normal(np.pi / 2, 0.3), max(scene.shape), pose.scale * rng.uniform(0.1, 0.16)
    finger = _Pose(x - long * np.cos(turn), y + long * np.sin(turn), long, turn, 1, 0.02, 1)
    _put(scene, _finger(rng, scene.shape[:2], finger, thick / long, _tint(rng, SKINS), sun), rng, sun)


GROUNDS = (_water, _sand, _pebbles, _meadow, _net, _board, _crate, _ice, _hand)
WET = (_water, _sand, _pebbles, _meadow, _net)
FRONTS = (_in_grass, _in_net, _behind_stone, _bubbles, _behind_finger)
