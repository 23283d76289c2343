"""The recipe of the embedded demo model: a small CLIP trained from nothing on openly licensed emoji.

recipe runs prepare (download, render, tasks, whose emoji split holds out), train_pictures, train_words, the
export of the bundle, and measure. page writes docs/demo-model.md from what collect finds in the work folder.
ship puts the bundle and the first task into the package.
emoji and captions know the words; styles, training_set and augment the pictures; architecture the model's
form.
"""
