"""
Stage 01: gather pictures into one folder per label, and note where each came from.
"""

from utils.download.clients import SearchUnfinished, search_images, stream_images
from utils.download.collect import download_images, save_pictures
from utils.download.collection import Gathered, adopt_rows
from utils.download.fetch import Rules
from utils.download.folders import file_bytes, read_source, source_pictures
from utils.download.report import kept_count, reasons_table, sources_table
from utils.download.sharing import fetch_rows
from utils.download.sources import read_folder
from utils.download.taking import PlacesReport, places_report, read_places, save_given, take_photos, taken_addresses

__all__ = [
    "Gathered",
    "PlacesReport",
    "Rules",
    "SearchUnfinished",
    "adopt_rows",
    "download_images",
    "fetch_rows",
    "file_bytes",
    "kept_count",
    "places_report",
    "read_folder",
    "read_places",
    "read_source",
    "reasons_table",
    "save_given",
    "save_pictures",
    "search_images",
    "source_pictures",
    "sources_table",
    "stream_images",
    "take_photos",
    "taken_addresses",
]
