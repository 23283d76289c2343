"""Heads that are tried on the development set: closed-form classifiers on image features.

Each is chosen by how it labels pictures that were left out of its own fit, so that it needs no validation
pictures. Nothing here is part of the product yet.
"""
