"""documents read text out of what EHRs attach: PDF, RTF, HTML, C-CDA and plain text. Libraries do it; here are the bounds."""
