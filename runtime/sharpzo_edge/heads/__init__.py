"""Classifiers on image features in closed form, chosen by how they label pictures that were left out."""
