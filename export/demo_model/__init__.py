"""The recipe of the embedded demo model: a small CLIP trained from nothing on openly licensed emoji.

recipe runs download, render, tasks (whose emoji split holds out), train_pictures, train_words, measure.
emoji and captions know the words, training_set and augment the pictures, architecture the model's form.
"""
