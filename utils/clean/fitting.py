"""
How many cards of the grid fit into the room that a view has.
"""

from collections.abc import Sequence

NARROWEST = 160  # pixels of a card
CARD_GAP, TEXT = 10, 190  # pixels between two cards, and of what stands on a card beside its picture
LEAST_CARDS, LEAST_HEIGHT = 6, 72  # on a page, wherever there are as many; pixels of a picture made small for that


def cards_that_fit(room: Sequence[int], card: Sequence[int], *, most: int) -> tuple[int, int]:
    """
    Return how many cards fit into a room, and how high their pictures are; both sizes are width and height in pixels.

    Pictures become smaller where six cards fit only that way; where they would be too small, six cards reach out of the
    room.

    >>> cards_that_fit((900, 1150), (256, 180), most=30), cards_that_fit((900, 540), (256, 180), most=30)
    ((9, 180), (6, 75))
    """
    (across, down), (width, height) = room, card
    columns = max(1, (across + CARD_GAP) // (max(width, NARROWEST) + CARD_GAP))
    rows = max(1, (down + CARD_GAP) // (height + TEXT + CARD_GAP))
    if columns * rows < min(LEAST_CARDS, most):
        rows = -(-min(LEAST_CARDS, most) // columns)
        height = min(height, max(LEAST_HEIGHT, (down + CARD_GAP) // rows - TEXT - CARD_GAP))
    return min(columns * rows, most), height
