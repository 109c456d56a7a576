"""Tests in a real browser: what a person sees, clicks and types, and what is on disk afterwards."""
