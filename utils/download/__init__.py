"""
Stage 01: gather pictures into one folder per label, and note where each came from.
"""

from utils.download.clients import SearchUnfinished, search_images, stream_images
from utils.download.collect import download_images, save_pictures
from utils.download.collection import Gathered
from utils.download.fetch import Rules
from utils.download.folders import FoldersReport, folder_pictures, folders_report, taken_addresses
from utils.download.report import kept_count, reasons_table, sources_table

__all__ = [
    "FoldersReport",
    "Gathered",
    "Rules",
    "SearchUnfinished",
    "download_images",
    "folder_pictures",
    "folders_report",
    "kept_count",
    "reasons_table",
    "save_pictures",
    "search_images",
    "sources_table",
    "stream_images",
    "taken_addresses",
]
