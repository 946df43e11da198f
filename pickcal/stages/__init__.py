"""Stages: read the project, run batches, write the project. One module a stage."""
