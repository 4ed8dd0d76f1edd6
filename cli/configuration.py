"""The configuration of a call. No other module of the command line reads it."""

from __future__ import annotations

import os

from cli.invocation import Invocation
from config.settings import Settings, load_settings
from connectors.fhir.profile import VendorProfile
from connectors.fhir.vendors import PROFILES


def settings_of(invocation: Invocation) -> Settings:
    """Read the configuration for this call; ConfigError names every problem."""
    return load_settings(invocation.config, os.environ, vendors=PROFILES, profile=VendorProfile)
