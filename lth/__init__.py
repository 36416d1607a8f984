"""Lottery-ticket experiments as graphs of trainings; docs/design.md is the map."""
