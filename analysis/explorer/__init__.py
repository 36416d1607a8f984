"""A page that shows runs while they run: `python -m analysis explore`.

live.py       the runs of some folders, kept up to date
layout.py     what is on the page
updates.py    what changes on it, and when
run_panel.py  one run: curves, layers, settings, origin, log
server.py     the command, and who may open the page
"""
