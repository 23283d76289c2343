"""Several boards tune one prompt together. Needs the extra [fleet]."""
