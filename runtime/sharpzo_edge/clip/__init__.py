"""The model: its bundle, its words, its pictures' pixels, and its two towers."""
