"""What several measurements share: the machine, commands, what they measure on, and parts of their pages."""
