"""What must be true of a run that ended green, beside that what is visible is there: clauses (a) and (b) of `oracle`."""

from __future__ import annotations

from datetime import timedelta

from snapshots.report import RunReport
from tests.histories import steps as s
from tests.histories.ehr import Ehr
from tests.histories.past import Past
from tests.histories.store_view import Stored, StoreView
from tests.histories.watch import Failure, Watch, some


class Green:
    """Judges green runs of one history. `knows_all`: what the EHR shows is all that it says."""

    def __init__(self, ehr: Ehr, view: StoreView, past: Past, *, knows_all: bool) -> None:
        self._ehr = ehr
        self._view = view
        self._past = past
        self._knows_all = knows_all

    def failure(self, watch: Watch, report: RunReport, after: Stored, how: str) -> Failure | None:
        failure = self._silence(watch, report)
        if failure is None and watch.full:
            failure = (
                self._haunted(watch, report, after, how)
                or self._claimed(watch, report)
                or self._misfiled(watch, after)
                or self._not_followed(watch, after, how)
                or self._not_looked_for(watch, report, after, how)
            )
        else:
            failure = failure or self._untold(watch, after, how)
        if failure is None and report.status == "nothing" and watch.visible:
            return Failure(f"a: a quiet night is called nothing ({how[2:]})", small=True)
        return failure

    def _silence(self, watch: Watch, report: RunReport) -> Failure | None:
        notes = " ".join(report.notes)
        for _, kind, patient in sorted(watch.heard.refused):
            rows = [row for row in self._ehr.of_type(kind) if patient in {"*", row.patient}]
            if rows and kind not in notes:
                return Failure(f"a: a refusal without a word ({watch.reach})", kind)
        return None

    def _haunted(self, watch: Watch, report: RunReport, after: Stored, how: str) -> Failure | None:
        """Dead rows that a green full run left live, though this ask had listed them before."""
        if watch.touched or report.status == "nothing":  # which claims nothing
            return None
        known = self._past.listed.get((watch.ask, watch.reach), set())
        members = set(self._ehr.patients_of(watch.ask, watch.stored))
        doubted = self._view.doubted()
        unproved = _unproved(report)
        left = []
        for key in after.live:
            if key in known and key not in self._ehr.rows and key not in doubted and key[0] not in unproved:
                row = self._ehr.dropped[key][0]
                patient = row.patient
                if watch.tells_of(watch.heard.refused, row):
                    continue
                if watch.leaves_out(row.type):
                    continue  # a narrowed export shows no deletion (docs/bulk.md): reads in rotation do
                whose = {patient} if watch.reach == "crawl" else {*row.patients}
                if watch.reach in {"system", "patient"} or not row.patients or whose & members:
                    left.append(key)
        # no export can name a patient whom the server does not have: the store counts his rows among those that nothing lists
        nobodys = {key for key in left if (s.PATIENT, self._ehr.dropped[key][0].patient) not in self._ehr.rows}
        # nor does anything tell who is in a Group that cannot be read, of which no Patients are exported: he may have left it
        if (
            watch.reach == "group"
            and not self._ehr.site.readable_groups
            and s.PATIENT not in (watch.ask.types or (s.PATIENT,))
        ):
            nobodys.update(left)
        # nor is the chart of a survivor asked for, once a merge is undone: rows that are filed there are read in turn, later
        filed = self._view.filed() if left and watch.reach == "crawl" else set()
        asked = {key for key, one in filed if one in members or one in watch.survivors}
        left = [key for key in left if key in asked or not any(key == other for other, _ in filed)]
        unlisted = self._view.unwitnessed(self._ehr.true_time()) if nobodys else set()
        left = [key for key in left if key not in nobodys or key not in unlisted]
        return Failure(f"a: a dead row is live after a green run ({how[2:]})", some(left)) if left else None

    def _misfiled(self, watch: Watch, after: Stored) -> Failure | None:
        """Rows that came, and are not in each chart that they are of."""
        if not self._knows_all:
            return None
        filed = self._view.filed()
        right = [key for key, body in watch.visible.items() if after.live.get(key) == body and key[0] != s.PATIENT]
        lost = [key for key in right if any((key, one) not in filed for one in self._ehr.rows[key].patients)]
        return Failure(f"a: a row is not in a chart that it is of ({watch.reach})", some(lost)) if lost else None

    def _not_followed(self, watch: Watch, after: Stored, how: str) -> Failure | None:
        """What visible rows refer to, where references are followed: a Device that could be read all the while."""
        is_wanted = not watch.ask.types or s.DEVICE in watch.ask.types
        if not self._ehr.site.follow or not is_wanted or watch.narrowed == "elements" or s.DEVICE in self._ehr.unserved:
            return None
        named = {body["device"]["reference"] for body in watch.visible.values() if "device" in body}
        left = [
            key
            for key, body in watch.readable.items()
            if "/".join(key) in named and self._ehr.read_status(key) == 200 and after.live.get(key) != body
        ]
        return Failure(f"a: what a row refers to is not there ({how[2:]})", some(left)) if left else None

    def _not_looked_for(self, watch: Watch, report: RunReport, after: Stored, how: str) -> Failure | None:
        """Rows that the last green full run alike listed and this one did not, and that can be read: stored as they are read."""
        before = self._past.last_full.get((watch.ask, watch.reach), set())
        members = set(self._ehr.patients_of(watch.ask, watch.stored))
        left = []
        for key in (before & watch.readable.keys() & watch.before.live.keys()) - watch.visible.keys():
            whose = watch.before.live[key].get("subject", {}).get("reference", "").removeprefix("Patient/")
            is_asked = whose in members and (s.PATIENT, whose) in watch.visible and not watch.leaves_out(key[0])
            is_asked = is_asked and key[0] not in _unproved(report)
            is_asked = is_asked and not watch.tells_of(watch.heard.refused, self._ehr.rows[key])
            is_asked = is_asked and not any(kind == key[0] and one == whose for _, kind, one in watch.heard.refused)
            if is_asked and self._ehr.read_status(key) == 200 and after.live[key] != watch.readable[key]:
                left.append(key)
        return Failure(f"a: a row that is no longer listed was not read ({how[2:]})", some(left)) if left else None

    def _untold(self, watch: Watch, after: Stored, how: str) -> Failure | None:
        """Deletions since the last run alike, of which an export of news told, and that were not believed, nor named."""
        alike = [one for one in self._past.runs if (one.ask, one.reach) == (watch.ask, watch.reach)]
        if watch.ask.narrowed or not alike or watch.since or watch.touched:
            return None
        known, doubted = self._past.listed.get((watch.ask, watch.reach), set()), self._view.doubted()
        since = alike[-1].begun + timedelta(hours=1)
        deleted = {key for key, (_, at) in self._ehr.dropped.items() if at > since} & watch.heard.deleted
        left = [key for key in deleted & known & after.live.keys() if key not in doubted]
        return Failure(f"b: a deletion that was told of is not believed ({how[2:]})", some(left)) if left else None

    def _claimed(self, watch: Watch, report: RunReport) -> Failure | None:
        """Whether the claims, where the report has such, speak of every type of which there is something to see."""
        claims = getattr(report, "claims", None)
        if claims is None:
            return None
        named = {claim.resource_type for claim in claims} | {hole.resource_type for hole in report.holes}
        notes = " ".join(report.notes)
        missing = [key for key in watch.visible if key[0] not in named and key[0] not in notes]
        return (
            Failure(f"a: nothing is claimed of a type that was asked ({watch.reach})", some(missing))
            if missing
            else None
        )


def _unproved(report: RunReport) -> set[str]:
    """Types of which the run says that it proves nothing: the export has no file of them, or they are not declared."""
    unproving = [
        note
        for note in report.notes
        if note.startswith("earlier exports had") or "nor declared by" in note or "no longer declared by" in note
    ]
    return {t for note in unproving for t in s.TYPES if t in note}
