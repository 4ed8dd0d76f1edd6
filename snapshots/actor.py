"""The person or program for whom the store is opened. Owns the shape only; every layer gets it as an argument.

`cli/acting.py` makes one from the command line. Code that uses chartferry as a library makes its own.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Actor:
    """Who opens the store, in which roles, from where and why. It holds no patient data."""

    name: str  # who acts: the account of the operating system, or another name that this account gives
    login: str = ""  # the account of the operating system, or what vouches for the name; "": the name itself
    roles: tuple[str, ...] = ()
    origin: str = ""  # the machine
    reason: str | None = None
    masked: bool = False  # sees a mask in place of what is encrypted
    broke_glass: str | None = None  # why a mask was lifted for it

    @property
    def account(self) -> str:
        """What vouches for the name."""
        return self.login or self.name
