"""`page`: label pictures and look at results in a browser. Needs the extra [page]; see docs/page.md.

The page's own process imports neither numpy nor onnxruntime nor Pillow. What needs them runs in children: a
helper (worker, worker_process) and `tune` as the command line runs it (tuning_run).
"""
