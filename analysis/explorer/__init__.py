"""A page that shows runs while they run: `python -m analysis explore`.

live.py       the runs of some folders, kept up to date
layout.py     the parts of the page
updates.py    its callbacks: new results, filters, clicks
run_panel.py  one run: layers, settings, origin
server.py     the command, and who may open the page
"""
