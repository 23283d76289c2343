"""The wheel on emulated arm64 machines.

run does it all. debian makes roots and fetches kernels; enter runs commands in a root by user emulation; boot
boots a kernel. job is copied into these systems, and checks there. page writes docs/boards.md.
"""
