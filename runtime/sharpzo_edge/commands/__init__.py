"""What each command does. The command line and the public functions are thin layers over these files."""
