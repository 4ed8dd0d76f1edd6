"""documents owns reading text out of attached files: PDF, RTF, HTML, C-CDA, plain text. Libraries parse; this sets limits."""
