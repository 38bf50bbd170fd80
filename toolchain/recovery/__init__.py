"""Recovery: a compressed graph run by torch, trained to give the dense one's outputs again."""
