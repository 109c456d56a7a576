"""
Lists that a person opens while cleaning, such as "Like ant-03.jpg", and the way back to where they were.

Holds no pictures and draws nothing: `session` knows the lists, `grid` shows them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from utils.clean.session import Cleaning, View
from utils.errors import FieldguideError
from utils.words import counted

OPENED_LISTS, PLACES_BACK = 5, 20  # opened lists that the menu holds, and places that lead back, at most
LIKE_ONE, FROM_MAP = "Like", "From the map"
ALIKE_SHOWN = 60  # pictures in a list of look-alikes, the picture itself among them


@dataclass(frozen=True)
class Place:
    """Where a person was: the selection as shown, the number of the first picture on its page, the key in focus."""

    view: View
    selected: list[int]
    seen: int
    first: int
    focus: str
    moves: int


class OpenedLists:
    """The lists that were opened, the newest last, and the places that they were opened from."""

    def __init__(self, cleaning: Cleaning):
        self._cleaning, self._orders, self._places = cleaning, {}, []

    def add(self, name: str, positions: Sequence[int], order: str, place: Place) -> View:
        """Put pictures into a list; return what shows it. `order` says in words what comes first."""
        cleaning = self._cleaning
        while name in cleaning.lists and name not in self._orders:  # never in the place of a list of suspects
            name += " *"
        self._orders.pop(name, None)
        self._orders[name] = order
        cleaning.lists.pop(name, None)
        cleaning.lists[name], cleaning.reasons[name] = list(positions), {}
        if place.view.list != name:
            self._places.append(place)
            del self._places[1:-PLACES_BACK]  # the first one stays: it is where all began
        spare = [each for each in self._orders if each not in (name, place.view.list)]
        for old in spare[: max(0, len(self._orders) - OPENED_LISTS)]:
            del self._orders[old], cleaning.lists[old], cleaning.reasons[old]
        return View(list=name, sort=cleaning.sorts[0])

    def leave(self) -> Place:
        """Return the place to go back to, and forget it."""
        while self._places:
            place = self._places.pop()
            if not place.view.list or place.view.list in self._cleaning.lists:
                return place
        raise FieldguideError("There is no list to go back to. Choose one under List.")

    def told(self, view: View) -> dict[str, str]:
        """Return what a page says of its list: what comes first, if it was opened, and where the way back leads."""
        back = self._places[-1].view.list or "all pictures" if self._places else ""
        return {"order": self._orders.get(view.list, ""), "back": back and f"Back to {back}"}


def look_alikes_told(cleaning: Cleaning, position: int) -> str:
    """Return an offer to show what looks like a picture and is not decided yet, "" if m would show no such picture."""
    shown = cleaning.alike.look_alikes(position, ALIKE_SHOWN, among=cleaning.there)
    if not (count := int(cleaning.undecided()[shown].sum())):
        return ""
    look, them = ("looks", "it") if count == 1 else ("look", "them")
    return f"{counted(count)} {look} like {cleaning.names[position]}: m shows {them}."
