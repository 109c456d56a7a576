"""The small shared package behind the notebooks: what fastai lacks, one package per stage."""
