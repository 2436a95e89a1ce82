"""Experiments: a grid of training runs is declared, planned, run, scored and rendered, whatever it trains.

``kg-targets tables GRID``. A grid is a YAML file in ``pipelines/grids`` (``grid``); its task says what a run is
(``retrieval`` for NB-CLIP, ``med_vqa`` for Med-VQA): commands in stages, which ``runner`` runs some
at a time and never twice, and a report whose pages are in ``templates``. See docs/tables.md and docs/vqa_tables.md.
"""
