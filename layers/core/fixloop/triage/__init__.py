"""Triage as Bland describes it: issues that people and the loop work on, with their evidence and their timeline."""
