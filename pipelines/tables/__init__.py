"""Tables of ablations: a grid of training runs on held-out cases, run to the end by one command.

``python -m pipelines.tables GRID``: folds → target stores → training runs → score sheets → report. A grid is a YAML
file in ``pipelines/grids`` (``grid``), its stages are lists of commands (``plan``), which are run some at a time and
never twice (``runner``).
"""
