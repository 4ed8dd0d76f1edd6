"""Whether the store has what the EHR has: questions, answers, certificates."""
