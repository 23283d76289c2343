"""The development set: two small CLIPs and six tasks. Defaults are chosen on it, and it is never reported.

None of its emoji, groupings or pictures is in a task of docs/accuracy.md.
"""
