"""Builds of target stores: options, the stages of a build, and where they run."""
