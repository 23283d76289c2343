"""The wheel on emulated arm64 machines.

run does it all: each of the parts, by the laboratory. debian makes roots and fetches kernels; enter runs
commands in a root by user emulation; boot boots a kernel. job and answers are copied into these systems, and
check there. page writes docs/boards.md.
"""
