"""What a run keeps on disk, and whom it tells how it goes on."""
