"""Tables of Med-VQA: pre-training, fine-tuning and scoring of every row of a grid, and the report beside the floors.

``python -m pipelines.vqa_tables GRID``; see docs/vqa_tables.md. Grids are ``pipelines/grids/vqa_*.yaml``.
"""
