"""From a folder of labelled pictures to image features."""
