"""safe_harbor owns the de-identified profile: what of a resource may leave, by 45 CFR 164.514(b)(2)."""
