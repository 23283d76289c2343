"""Running what is compared: tasks and their pictures, the jobs, one run, its figures, and the stored runs."""
