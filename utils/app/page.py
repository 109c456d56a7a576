"""
The app: a page to drop photos on, on anywidget: the kernel's half; drop.js and drop.css are the browser's.

Reads models/<name>/ (model.onnx or export.pkl, and card.json); writes nothing. The browser sends a photo in parts, the
next one when the last was taken, and gets one answer to each: more, then the result with a small JPEG. So neither side
ever holds more than one photo, however many there are. A photo is bytes and nothing else: its name stays in the
browser, and models are asked for by names that are offered, so that no message can lead to a file of this machine.
Messages are hostile until checked; a bad one is answered with an alert.
"""

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import anywidget

from utils.app.found import found_in
from utils.errors import FieldguideError
from utils.export import about, sought
from utils.inference import Classifier, Detector, ModelError, Nearest, load_model
from utils.pictures import OWN_BITS, jpeg_bytes, open_picture, outlined
from utils.project import Project
from utils.storage import subfolders
from utils.widgets import front_end, sendable, unforeseen

LARGEST = 50 * 1024**2  # bytes of a photo
PART = 1024**2  # bytes of a message: a tenth of what the server's connection takes
THUMBNAIL, QUALITY = 160, 80  # pixels of the longest side, and of JPEG
TOP = 3  # labels shown of each photo
SHOWN_NEAREST = 5  # individuals whose nearest known photo is shown beside an answer
IS_THING = 0.5  # of a mask: from here on a place is the thing
MODELS = ("model.onnx", "export.pkl")  # the first that is there: it opens in a tenth of the time
LONGEST = 100  # characters of the name that a view of this widget gives itself
MAKERS = {
    "classify": "Run the notebooks 01 to 07; 07_export makes it.",
    "detect": "Run the notebooks 1_tables to 4_test in notebooks/boxes; 4_test makes it.",
}
HEADINGS = {"classify": "Which one is it?", "detect": "What is where in the photo?"}  # where there are no labels
RELOAD = "Reload the browser's page."

logger = logging.getLogger(__name__)


@dataclass
class Upload:
    """The photo that is being sent: the bytes it will have, and those that came."""

    size: int
    view: str
    content: bytearray = field(default_factory=bytearray, repr=False)


class ClassifierPage(anywidget.AnyWidget):
    """
    A page on which photos are dropped or chosen, and their labels shown, or what a detector finds in them.

    It offers the models of `project` (by default the one that stage notebooks load) and those beside it. Where none can
    be used, it says in a sentence what to do.
    """

    _esm = front_end(Path(__file__).with_name("drop.js"))
    _css = Path(__file__).with_name("drop.css")

    def __init__(self, project: Project | None = None):
        super().__init__()  # in Colab it also switches widgets of this kind on
        self._lock = threading.Lock()
        self._upload: Upload | None = None
        self.models: dict[str, Path] = {}
        self._task = "classify"
        self._close()
        try:
            project = project or Project.load()
            self._task = project.task
            self.models = find_models(project)
            if not self.models:
                raise FieldguideError(f"There is no model in {project.models} yet. {MAKERS[project.task]}")
        except (FieldguideError, OSError) as error:
            self.problem = str(error)
        else:
            self._open(next(iter(self.models)))
        self.on_msg(self._receive)

    def _close(self, name: str = "", problem: str = "") -> None:
        self.model, self.problem, self.classifier, self.verdict, self.about = name, problem, None, "", []
        self.known = {"shown": False, "problem": ""}  # photos of individuals, beside each answer

    def _open(self, name: str) -> None:
        """Load one of the models; where that fails, the page says why."""
        path = self.models[name]
        self._close(name)
        try:
            self.classifier = load_model(path)
            self.verdict, self.about = about(path, self.classifier)
            self.known = known_photos(self.classifier)
        except (ModelError, FieldguideError, OSError) as error:
            self._close(name, f"{error} Or run 07_export again to make a new model.")
        except Exception as error:  # libraries raise what they like on a damaged model; the page must say so
            logger.exception("The model could not be opened.")
            self._close(name, f"The model {path} cannot be opened: {type(error).__name__}: {error}")

    def _receive(self, widget, content, buffers) -> None:
        self.send(*self.answer(content, buffers))

    def answer(self, content, buffers=()) -> tuple[dict, list[bytes]]:
        """Return the answer to a message from the browser, and the binary buffers that go with it."""
        request = content if isinstance(content, dict) else {}
        # Who asked, and which time: so a view can tell an answer that is another's.
        view, serial = request.get("view"), request.get("serial")
        view = view if isinstance(view, str) and len(view) <= LONGEST else ""
        sender = {"view": view, "serial": serial if type(serial) is int and abs(serial) < 2**53 else 0}
        handlers = {"hello": self._hello, "model": self._choose, "part": self._take, "stop": self._stop}
        with self._lock:
            try:
                ask = request.get("ask")
                if not isinstance(ask, str) or ask not in handlers:
                    raise FieldguideError(f"{_short(ask)} is nothing that can be asked here. {RELOAD}")
                message, buffers = handlers[ask](request, view, buffers)
                return _sendable(message | sender), buffers
            except FieldguideError as error:
                message = {"tell": "alert", "alert": str(error)}
            except Exception as error:
                message = {"tell": "alert", "alert": unforeseen(error, logger, "The page")}
            self._upload = None
            return _sendable(message | sender), []

    @property
    def _detects(self) -> bool:
        """Whether the model finds things in photos, instead of telling photos apart."""
        return isinstance(self.classifier, Detector)

    def _hello(self, request: Mapping, view: str, buffers) -> tuple[dict, list[bytes]]:
        """Tell a view that has just been made all it needs."""
        return {
            "tell": "model",
            "models": list(self.models),
            "model": self.model,
            "problem": self.problem,
            "labels": list(self.classifier.labels) if self.classifier else [],
            "heading": sought(self.classifier.labels) if self._detects else HEADINGS[self._task],
            "verdict": self.verdict,
            "about": self.about,
            "finds": bool(self.classifier and not self._detects and self.classifier.finds),
            "detects": self._detects,
            "known": self.known,
            "largest": LARGEST,
            "part": PART,
        }, []

    def _choose(self, request: Mapping, view: str, buffers) -> tuple[dict, list[bytes]]:
        """Open another model."""
        name = request.get("model")
        if not isinstance(name, str) or name not in self.models:
            raise FieldguideError(f"There is no model {_short(name)} here. {RELOAD}")
        self._upload = None
        self._open(name)
        return self._hello(request, view, buffers)

    def _stop(self, request: Mapping, view: str, buffers) -> tuple[dict, list[bytes]]:
        """Drop what came of an unfinished photo."""
        self._upload = None
        return {"tell": "stopped"}, []

    def _take(self, request: Mapping, view: str, buffers) -> tuple[dict, list[bytes]]:
        """Take one part of a photo; the last one brings the result."""
        if not self.classifier:
            raise FieldguideError(f"There is no model that could judge photos. {self.problem}")
        size, at, part = request.get("size"), request.get("at"), _only(buffers)
        if type(size) is not int or not 0 <= size <= LARGEST:
            raise FieldguideError(f"A photo of {_short(size)} bytes is not taken: at most {LARGEST // 1024**2} MB.")
        if at == 0:
            self._upload = Upload(size, view)
        upload = self._upload
        expected = upload and type(at) is int and (at, size, view) == (len(upload.content), upload.size, upload.view)
        fits = len(part) <= PART and (part or not size)
        if not expected or not fits or len(upload.content) + len(part) > size:
            raise FieldguideError("The parts of a photo came in disorder. Choose it once more.")
        upload.content += part
        if len(upload.content) < size:
            return {"tell": "more"}, []
        self._upload = None
        if self._detects:
            return found_in(self.classifier, bytes(upload.content))
        return judged(self.classifier, bytes(upload.content), self.known["shown"])


def find_models(project: Project) -> dict[str, Path]:
    """Return name → file of each model in the folder of the project's models, its own first, the others by name."""
    root = Path(project.models_dir)
    folders = subfolders(root) if root.is_dir() else []
    folders.sort(key=lambda folder: (folder != project.models, folder.name))
    found = {}
    for folder in folders:
        path = next((folder / name for name in MODELS if (folder / name).is_file()), None)
        if path:
            found[folder.name] = path
    return found


def known_photos(classifier: Classifier | Detector) -> dict:
    """Return whether a model has known photos to show, and why not if it should."""
    if not classifier.network.describes:
        return {"shown": False, "problem": ""}
    try:
        return {"shown": bool(classifier.gallery), "problem": ""}
    except ModelError as error:
        return {"shown": False, "problem": f"The known photos cannot be shown. {error}"}


def judged(classifier: Classifier, content: bytes, nearest: bool = False) -> tuple[dict, list[bytes]]:
    """
    Return what the page tells of one photo, and JPEGs: its thumbnail, and the `nearest` known photos if wanted.

    There are none where the photo cannot be read.
    """
    (prediction,) = classifier.predict([content], unknown=classifier.threshold is not None)
    message = {
        "tell": "result",
        "label": prediction.label,
        "probability": prediction.probability,
        "top": prediction.top(TOP),
        "nearest": [],
        "error": prediction.error,
        "alert": "",
    }
    if prediction.error:
        return message, []
    found = classifier.mask(content)
    shown = open_picture(content, longest_side=THUMBNAIL, bits=OWN_BITS)
    if found is not None:
        shown = outlined(shown, found >= IS_THING)
    (found,) = classifier.nearest([content], SHOWN_NEAREST) if nearest else [Nearest()]
    message["nearest"] = [[known.label, known.similarity] for known in found.individuals]
    return message, [jpeg_bytes(shown, quality=QUALITY), *(known.thumbnail for known in found.individuals)]


def _only(buffers) -> bytes:
    """Return the one part that goes with a message, or raise."""
    if not isinstance(buffers, (list, tuple)) or len(buffers) != 1:
        raise FieldguideError(f"A part of a photo came without its bytes. {RELOAD}")
    return bytes(memoryview(buffers[0]).cast("B")[: PART + 1])


def _short(value) -> str:
    """Return a value from outside as a few characters of text."""
    if isinstance(value, str):
        return repr(value[:LONGEST])
    return str(value) if isinstance(value, (bool, float)) or (type(value) is int and abs(value) < 2**63) else "that"


def _sendable(message: dict) -> dict:
    """Return a message that can be sent, and whose numbers are numbers: a damaged model's need not be."""
    return sendable(message, allow_nan=False)
