"""``kg-targets browse``: a local site to look at stores, image by image, pair by pair, batch by batch."""
