"""The words of a history: what the EHR is, what happens to it, and which runs are made. Data only.

A step says all that happens by its fields, never by chance: a history that is printed can be played again, and a step that no
longer applies (its row was dropped from the history) does nothing. Who chooses the steps is `director`, what they do to the EHR
`ehr`, and what runs are made of them `player`.
"""

from __future__ import annotations

from typing import NamedTuple

from tests.histories.printed import printed

OBSERVATION, CONDITION, PATIENT = "Observation", "Condition", "Patient"
DEVICE = "Device"  # of no patient; Observations refer to it
ORGANIZATION = "Organization"  # a directory
CHARTS = (OBSERVATION, CONDITION)
TYPES = (PATIENT, *CHARTS, DEVICE, ORGANIZATION)
UNTIL_H = 36  # an export "until" has what was last changed before this hour of the history


class Ask(NamedTuple):
    """What a run asks for. `who`: "all", "store", "group:A", "cohort:p1,p2", "pull:p1"."""

    who: str = "all"
    mode: str = "crawl"  # "crawl" | "bulk" | "auto"
    types: tuple[str, ...] = ()
    narrowed: str = (
        ""  # exports: "filter" (Observations whose version is odd), "elements" (subjects), "until" (`UNTIL_H`)
    )

    @property
    def is_pull(self) -> bool:
        return self.who.startswith("pull:")

    @property
    def group(self) -> str | None:
        return self.who[len("group:") :] if self.who.startswith("group:") else None

    @property
    def named(self) -> tuple[str, ...] | None:
        kind, _, rest = self.who.partition(":")
        return tuple(rest.split(",")) if kind in {"cohort", "pull"} else None


class Site(NamedTuple):
    """What stays as it is for a whole history: the server's manners and the connection's configuration."""

    home: Ask  # what the sound runs at the end ask
    levels: tuple[str, ...] = ()  # of $export: "system", "patient", "group"
    incremental: bool = True
    reconcile_every_d: int = 7
    page: int | None = None  # rows of a page, by offset
    totals: bool = True
    dated: bool = True  # rows have meta, and searches take _lastUpdated
    skew_s: int = 0  # by which the clock that dates rows is ahead of ours
    date_skewed: bool = True  # the Date header is by that clock too
    gone: int = 404  # what a read of a deleted row answers
    reads: bool = True  # of rows that are no Patients
    batches: bool = True  # _id of Patients
    tells_deletions: bool = False  # an export's `deleted` list
    readable_groups: bool = True
    follow: bool = False  # references
    validate: bool = False  # against FHIR R4B
    splits: bool = False  # a crawl asks for Observations by their categories a and b; c is in none
    heeds_since: bool = True  # else searches and exports of news give everything
    at_once: int = 1  # requests and files
    # exports give each row twice, in the "first" and the "second" content, all else gives one of these, or a "third"; "": neither
    told_twice: str = ""


# -- what happens at the EHR


class Add(NamedTuple):
    """A row appears, `age_d` days old by its date. `shown` False: no index has it yet."""

    type: str
    id: str
    patient: str | None = None
    age_d: int = 0
    shown: bool = True
    device: str | None = None
    also: str | None = None  # another patient whose compartment it is in; no search by patient says so


class AddMany(NamedTuple):
    """Rows `prefix`0, 1, 2 …, old."""

    type: str
    prefix: str
    count: int
    patient: str | None


class Change(NamedTuple):
    type: str
    id: str
    dated: bool = True


class Drop(NamedTuple):
    """Rows are deleted: one, or all whose id begins so ("m*")."""

    type: str
    id: str


class DropPatient(NamedTuple):
    """A Patient and all that is his are deleted."""

    id: str


class Restore(NamedTuple):
    """A dropped row (of a Patient: with his dropped chart) is back as it was; `dated` says so by its date."""

    type: str
    id: str
    dated: bool = True


class Move(NamedTuple):
    """A row becomes another patient's."""

    type: str
    id: str
    patient: str
    dated: bool = True


class Recategorize(NamedTuple):
    """An Observation is of another category: "a", "b" or "c"."""

    type: str
    id: str
    category: str
    dated: bool = True


class Hide(NamedTuple):
    """No index has the row any more; it can be read."""

    type: str
    id: str


class Show(NamedTuple):
    type: str
    id: str


class Withhold(NamedTuple):
    """The client may not see the row: lists leave it out, a read answers 403."""

    type: str
    id: str


class Permit(NamedTuple):
    type: str
    id: str


class Merge(NamedTuple):
    """`former`'s rows become `survivor`'s. The former id then redirects, is gone, or can be read and links ("link")."""

    former: str
    survivor: str
    how: str


class Unmerge(NamedTuple):
    former: str
    dated: bool = True


class Join(NamedTuple):
    group: str
    patient: str


class Leave(NamedTuple):
    group: str
    patient: str


class Levels(NamedTuple):
    """The export levels that are declared from now on."""

    names: tuple[str, ...]


class Reuse(NamedTuple):
    """A dropped row's id is given anew: version 1, other content, perhaps another patient; `dated` today, else long ago."""

    type: str
    id: str
    patient: str
    dated: bool = True


class Unserve(NamedTuple):
    """The server no longer has the type: it declares, lists and exports none, and knows no row of it."""

    type: str


class Serve(NamedTuple):
    type: str


class Backup(NamedTuple):
    """The EHR's content is saved."""


class SetBack(NamedTuple):
    """The EHR's content is what was last saved, versions and dates too; what came since is gone without a word."""


class Becomes(NamedTuple):
    """A manner of the server, or a setting of the connection (a field of `Site`), is another from now on."""

    field: str
    value: object


class Wait(NamedTuple):
    hours: int = 24


class Erase(NamedTuple):
    """The store forgets a patient, unless a run is open."""

    patient: str


class Prune(NamedTuple):
    """The store drops all replaced versions, quarantined input and units that it may."""


class Beside(NamedTuple):
    """Another connection of the tenant fetches the same EHR, whole. No run of ours touches its rows after that."""


class Upgrade(NamedTuple):
    """The store becomes one that an earlier version left: ways, knowledge and doubts are not known."""


Happening = (
    Add | AddMany | Change | Drop | DropPatient | Restore | Move | Hide | Show | Withhold | Permit | Merge | Unmerge
    | Join | Leave | Levels | Recategorize | Reuse | Unserve | Serve | Backup | SetBack | Becomes
)  # fmt: skip

# -- what is wrong during one run. `rows` are "Type/id", with * at the end for all that begin so


class Sick(NamedTuple):
    """Lists do not have the rows; reads do."""

    rows: tuple[str, ...]


class Lie(NamedTuple):
    """Neither lists nor reads have the rows: they answer 404."""

    rows: tuple[str, ...]


class Blind(NamedTuple):
    """Reads of the type know nothing: they answer 404 whatever is there. Lists do not have the rows."""

    type: str
    rows: tuple[str, ...]


class Refuse(NamedTuple):
    """Searches of the type (for these patients, else for all) answer so; an export has an error file in its place."""

    type: str
    status: int
    patients: tuple[str, ...] = ()


class Incomplete(NamedTuple):
    """Searches of the type say that more exists than this client is shown, and show nothing."""

    type: str


class Patients410(NamedTuple):
    """Reads of Patients answer 410, searches and exports have none; charts are served."""


class All410(NamedTuple):
    """Every search and read answers 410."""


class Misled(NamedTuple):
    """Reads of one Patient redirect to another; his chart is served."""

    patient: str
    to: str


class NoExport(NamedTuple):
    """A kick-off answers 404, whatever is declared."""


class Flaky(NamedTuple):
    """One request in so many answers 503."""

    every: int


class LostJob(NamedTuple):
    """The server knows none of its exports a moment after they began: 404."""


class LostFile(NamedTuple):
    """An export's file of the type answers so."""

    type: str
    status: int


class CutFile(NamedTuple):
    """An export's file of the type ends within a line."""

    type: str


class LostPage(NamedTuple):
    """Every page but the first answers so."""

    status: int


class Unnarrowed(NamedTuple):
    """Searches of the type give every patient's rows, whomever they name."""

    type: str


Fault = (
    Sick | Lie | Blind | Refuse | Incomplete | Patients410 | All410 | Misled | NoExport | Flaky | LostJob | LostFile
    | CutFile | LostPage | Unnarrowed
)  # fmt: skip


class Kill(NamedTuple):
    """The process ends at its n-th request, or before ("write") or after ("written") its n-th write."""

    at: str
    n: int


class Run(NamedTuple):
    ask: Ask
    since: str = "auto"  # "none"; or "36h": the instant so long ago
    faults: tuple[Fault, ...] = ()
    during: tuple[tuple[int, Happening], ...] = ()  # before the n-th request is answered
    kill: Kill | None = None


Step = Happening | Wait | Beside | Upgrade | Erase | Prune | Run


class History(NamedTuple):
    site: Site
    steps: tuple[Step, ...]

    def __str__(self) -> str:
        return "\n".join(map(printed, (self.site, *self.steps)))
