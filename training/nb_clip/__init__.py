"""NB-CLIP: contrastive pre-training whose targets grade how related two images are (supplement NB-CLIP)."""
