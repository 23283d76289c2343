"""Accuracy per query: SharpZO, its rivals and closed-form heads on the same graph, features and seeds.

methods/ is what is compared: a module for each method or family, and the list of all. harness/ runs them:
it reads the tasks, encodes and draws the pictures, runs a method on one task, measures it, and keeps a JSON
for each run. report/ reads these JSONs and writes docs/accuracy.md and docs/accuracy.svg. Methods know
nothing of the harness, and neither knows the report.
"""
