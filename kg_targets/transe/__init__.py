"""TransE over the concept graph: h + r ≈ t for every edge h –r→ t, images and concepts in one space.

The room that fits vectors, and so the only one of the library, beside the losses, that needs torch. One file each:
``settings`` (options and presets), ``triples`` (the graph as edges, some held out), ``corruption`` (negatives),
``model`` (closed-form gradients and the step), ``ranks`` (filtered MRR and Hits@10), ``state`` (what a killed fit
continues from), ``seed_fit`` (epochs and early stopping of one seed), ``fit`` (all seeds), ``images`` (vectors of
images from those of concepts) and ``placing`` (images as nodes among frozen ones).

Sources: Bordes et al. 2013, "Translating embeddings for modeling multi-relational data" (TransE); Wang et al. 2014,
"Knowledge graph embedding by translating on hyperplanes" (Bernoulli corruption); Krompaß et al. 2015,
"Type-constrained representation learning in knowledge graphs" (typed corruption); Duchi et al. 2011 (Adagrad). See
docs/methods.md#transe.
"""
