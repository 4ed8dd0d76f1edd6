"""auth owns SMART backend-services login: discovery, the signed assertion, tokens."""
