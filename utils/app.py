"""
The page's parts, so that app.ipynb holds no definitions: photos in, labels out.

Reads an export.pkl; writes nothing. `result_card_html` and its like are plain functions from data to HTML;
`ClassifierPage` puts them on a page of ipywidgets, which Voila shows without code or tracebacks.
"""

import base64
import html
from collections.abc import Iterable, Sequence
from pathlib import Path

import ipywidgets as widgets
from PIL import Image

from utils.inference import Classifier, ModelError, Prediction, load_classifier
from utils.pictures import jpeg_bytes
from utils.pictures import thumbnail as small_copy

THUMBNAIL = 160  # pixels
TOP = 3  # labels shown of each photo
PAGE = "max-width:720px;line-height:1.4"  # Jupyter's own lines are 28 pixels high, and as wide as the window
CARD = (
    "display:flex;align-items:flex-start;gap:12px;flex-wrap:wrap;"
    "padding:10px;margin:8px 0;border:1px solid #ccc;border-radius:8px"
)
TRACK = "background:#e6e9ec;border-radius:4px;height:8px;overflow:hidden"


def bar_html(label: str, probability: float) -> str:
    """
    Return a label with its probability (a fraction) in text and as a bar.

    >>> "cat</span><span>25.0 %" in bar_html("cat", 0.25)
    True
    """
    percent = f"{100 * probability:.1f}"
    return (
        f'<div style="margin:4px 0"><div style="display:grid;grid-template-columns:1fr max-content;gap:12px">'
        f"<span>{html.escape(label)}</span><span>{percent} %</span></div>"
        f'<div style="{TRACK}"><div style="background:#2a78b8;height:8px;width:{percent}%"></div></div></div>'
    )


def result_card_html(name: str, prediction: Prediction, thumbnail: str) -> str:
    """
    Return a card for one photo: thumbnail, file name, and the top labels as bars or why it could not be read.

    Parameters
    ----------
    name : str
        The file's name, as its owner wrote it.
    prediction : Prediction
    thumbnail : str
        An address for an image element, such as `data_address` gives, or "" for none.
    """
    if prediction.error:
        body = f'<div role="alert" style="color:#a32020">Could not be read: {html.escape(prediction.error)}</div>'
    else:
        first, *others = (bar_html(label, probability) for label, probability in prediction.top(TOP))
        body = f'<div style="font-weight:600">{first}</div>' + "".join(others)
    image = f'<img src="{html.escape(thumbnail)}" alt="" style="max-width:{THUMBNAIL}px">' if thumbnail else ""
    return (
        f'<div class="fieldguide-card" style="{CARD};{PAGE}">{image}<div style="flex:1;min-width:150px">'
        f'<div style="color:#666;overflow-wrap:anywhere">{html.escape(name)}</div>{body}</div></div>'
    )


def title_html(labels: Sequence[str]) -> str:
    """Return the head of the page: which labels the model knows."""
    known = ", ".join(f"<b>{html.escape(label)}</b>" for label in labels)
    return (
        f'<div style="{PAGE};margin-bottom:8px">This model knows {known}, and nothing else: '
        "a photo of anything else gets one of these names, too.</div>"
    )


def message_html(text: str) -> str:
    """Return a sentence for the page."""
    return f'<div role="alert" style="{PAGE}">{html.escape(text)}</div>'


def data_address(image: Image.Image) -> str:
    """Return an RGB image as a data address, so that the page needs no file of this computer."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg_bytes(image, quality=80)).decode("ascii")


def cards_html(classifier: Classifier, photos: Iterable[tuple[str, bytes]]) -> str:
    """Return a card for each photo, given as name and bytes, in their order."""
    photos = list(photos)
    predictions = classifier.predict([content for _, content in photos])
    return "".join(
        result_card_html(name, prediction, "" if prediction.error else data_address(small_copy(content, THUMBNAIL)))
        for (name, content), prediction in zip(photos, predictions, strict=True)
    )


def no_model_message(path: Path, error: Exception) -> str:
    """Return what to do where there is no model that can be used."""
    if isinstance(error, FileNotFoundError):
        return f"There is no model yet ({path}). Run the notebooks 01 to 07 first; 07_export makes it."
    return f"{error} Or run 07_export again to make a new one."


class ClassifierPage(widgets.VBox):
    """
    A page on which photos are chosen and their labels shown.

    Parameters
    ----------
    model : path of an export.pkl
        Where it cannot be used, the page says in a sentence which notebook to run.
    """

    def __init__(self, model: str | Path):
        self.upload = widgets.FileUpload(
            accept="image/*", multiple=True, description="Choose photos", button_style="primary"
        )
        self.status = widgets.HTML()
        self.results = widgets.HTML()
        try:
            self.classifier = load_classifier(model)
        except (ModelError, OSError) as error:
            self.classifier = None
            self.status.value = message_html(no_model_message(Path(model), error))
            super().__init__([self.status])
            return
        self.upload.observe(self._show, names="value")
        super().__init__([widgets.HTML(title_html(self.classifier.labels)), self.upload, self.status, self.results])

    def _show(self, change) -> None:
        """Show the photos just chosen; whatever goes wrong is told on the page."""
        photos = [(photo["name"], bytes(photo["content"])) for photo in change["new"]]
        if not photos:
            return
        self.status.value = message_html(f"Looking at {len(photos)} photo{'s' if len(photos) > 1 else ''} …")
        try:
            self.results.value = cards_html(self.classifier, photos)
            self.status.value = ""
        except Exception as error:  # a page has no other place for it: a traceback would go where nobody looks
            self.status.value = message_html(f"These photos could not be judged: {error}")
