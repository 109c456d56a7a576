"""
Stage 09: try settings of training, and say what their differences are worth.
"""

from utils.study.conclusions import conclusions
from utils.study.pictures import cost_picture, curves, key_pictures
from utils.study.study import Study, read_study
from utils.study.winner import save_winner

__all__ = ["Study", "conclusions", "cost_picture", "curves", "key_pictures", "read_study", "save_winner"]
