"""
Stage 05: how good is the model, on which labels, and where does it err?
"""

from utils.evaluate.background import background_line
from utils.evaluate.coach import coach_picture, coach_sentence, coach_table, what_next
from utils.evaluate.diagrams import reliability_diagram, verdict_picture
from utils.evaluate.ensembles import ensemble_sentence
from utils.evaluate.evaluation import (
    evaluate_round,
    label_table,
    pair_table,
    predict_side,
    score_table,
    worst_predictions,
)
from utils.evaluate.heatmaps import heat_strip
from utils.evaluate.individuals import feature_layers, individual_sentence, individual_table
from utils.evaluate.marks import mark_line, mark_sheet
from utils.evaluate.mirroring import mirroring_sentence, trained_mirrored
from utils.evaluate.rounds import (
    coded,
    p_text,
    paired_figures,
    read_evaluation,
    read_predictions,
    round_numbers,
    round_path,
    round_sentence,
)
from utils.evaluate.scores import scale, scorecard
from utils.evaluate.shortcuts import shortcut_line

__all__ = [
    "background_line",
    "coach_picture",
    "coach_sentence",
    "coach_table",
    "coded",
    "ensemble_sentence",
    "evaluate_round",
    "feature_layers",
    "heat_strip",
    "individual_sentence",
    "individual_table",
    "label_table",
    "mark_line",
    "mark_sheet",
    "mirroring_sentence",
    "p_text",
    "pair_table",
    "paired_figures",
    "predict_side",
    "read_evaluation",
    "read_predictions",
    "reliability_diagram",
    "round_numbers",
    "round_path",
    "round_sentence",
    "scale",
    "score_table",
    "scorecard",
    "shortcut_line",
    "trained_mirrored",
    "verdict_picture",
    "what_next",
    "worst_predictions",
]
