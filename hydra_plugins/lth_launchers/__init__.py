"""Hydra plugins: launchers, which start the runs of a sweep, the sweeper, and the console.

Hydra imports every module in this folder at every start: slow imports belong inside functions.
"""
