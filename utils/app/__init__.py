"""
The page: drop photos, and see what the model says of them.
"""

from utils.app.page import ClassifierPage

__all__ = ["ClassifierPage"]
