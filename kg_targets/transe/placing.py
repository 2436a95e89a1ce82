"""Images as nodes among frozen vectors: steps of the same loss on their edges that move nothing but them."""

import numpy as np
import torch
from scipy import sparse

from kg_targets.store.digest import shuffle_key
from kg_targets.transe.fit import device_of, one_thread
from kg_targets.transe.images import Vectors
from kg_targets.transe.model import Batch, TransE
from kg_targets.transe.settings import TransESettings

EPOCHS = 30


def place(
    has_attribute: sparse.csr_array, concepts: Vectors, relation: Vectors, settings: TransESettings, seed: int
) -> Vectors:
    """Vectors of images, float32 [N, seeds · dim]; zeros where an image has no concept with a vector.

    The tail is always the end that is replaced, by the concepts given here. Random numbers follow from the seed.

    Args:
        has_attribute: [N, C], not 0 where an image asserts a concept.
        concepts: [C, seeds · dim], of length 1 as a whole or zeros.
        relation: r of ``has_attribute``, [seeds · dim].
    """
    there = np.flatnonzero(concepts.any(axis=1))
    links = sparse.csr_array(has_attribute[:, there]).tocoo()
    rows, heads = np.unique(links.row, return_inverse=True)
    placed = np.zeros((has_attribute.shape[0], concepts.shape[1]), dtype=np.float32)
    if not len(rows):
        return placed
    device, scale = device_of(settings), np.sqrt(settings.seeds)
    edges = torch.from_numpy(np.stack([heads, links.col + len(rows)]).astype(np.int64)).to(device)
    with one_thread():
        for member in range(settings.seeds):
            part = slice(member * settings.dim, (member + 1) * settings.dim)
            generator = torch.Generator(device)
            generator.manual_seed(int.from_bytes(shuffle_key(seed, member, "placing")[:7], "big"))
            frozen = np.concatenate([concepts[there, part], relation[None, part]]) * scale
            vectors = _placed(edges, len(rows), torch.from_numpy(frozen).to(device), settings, generator)
            placed[rows, part] = vectors.cpu().numpy() / scale
    return placed


def _placed(
    edges: torch.Tensor,
    images: int,
    frozen: torch.Tensor,
    settings: TransESettings,
    generator: torch.Generator,
) -> torch.Tensor:
    """Unit vectors of the images, [images, dim]; ``edges`` int64 [2, M] into images, then ``frozen``'s rows."""
    start = TransE.start(images, 0, settings, generator).table
    nodes = images + len(frozen) - 1
    model = TransE(torch.cat([start, frozen.float()]), nodes, settings, trainable=images)
    for _ in range(EPOCHS):
        order = torch.randperm(edges.shape[1], generator=generator, device=edges.device)
        for chosen in torch.split(order, settings.batch):
            heads, tails = edges[:, chosen]
            shape = (len(chosen), settings.negatives)
            negatives = torch.randint(images, nodes, shape, generator=generator, device=edges.device)
            neither = torch.zeros_like(negatives, dtype=torch.bool)
            model.step(Batch(heads, torch.full_like(heads, nodes), tails, neither, negatives))
    return model.table[:images]
