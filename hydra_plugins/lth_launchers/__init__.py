"""Hydra's launchers of this project: where the runs of a sweep go.

Everything in this folder is imported at every start: heavy imports stand inside functions.
"""
