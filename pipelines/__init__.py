"""How targets are made: the demo data, the stages of a build, where they run, and the command line."""
