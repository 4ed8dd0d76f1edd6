"""Compares the store with the EHR: questions, answers, certificates."""
