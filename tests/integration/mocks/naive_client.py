"""What a hurried engineer writes: every habit that some EHR punishes, each a method. raw_client beside it takes care.

Nothing here is wrong on the friendliest of servers. Nothing waits: what would be slept is returned.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self
from urllib.parse import unquote, urljoin

import httpx

from tests.fix_ehr import ServedEhr
from tests.integration.mocks.raw_client import Http, ask_token, assertion, get, next_link

PREFER = {"Prefer": "respond-async"}
_PATIENCE = 30  # pages or polls after which even a hurried engineer looks


class NaiveLogin:
    """Token requests, each with one habit."""

    def __init__(self, ehr: ServedEhr) -> None:
        self._ehr = ehr

    def for_ten_minutes(self) -> httpx.Response:
        """An assertion that is good for a while saves signing."""
        return ask_token(self._ehr, jwt_text=assertion(self._ehr, exp=int(time.time()) + 600))

    def with_one_assertion(self) -> list[httpx.Response]:
        """Signed once, sent at every login: jti and all."""
        signed = assertion(self._ehr)
        return [ask_token(self._ehr, jwt_text=signed) for _ in range(2)]

    def for_the_token_url(self) -> httpx.Response:
        """`aud` is the token URL, as the guide says."""
        return ask_token(self._ehr, jwt_text=assertion(self._ehr, aud=self._ehr.token_url))

    def for_the_base_url(self) -> httpx.Response:
        """`aud` is the server, is it not."""
        return ask_token(self._ehr, jwt_text=assertion(self._ehr, aud=self._ehr.base_url))

    def with_a_wildcard(self) -> httpx.Response:
        """One scope for everything."""
        return ask_token(self._ehr, scope="system/*.read")

    def without_scope(self) -> httpx.Response:
        """The grant follows the registration anyway."""
        return ask_token(self._ehr, scope=None)

    def without_launch(self) -> httpx.Response:
        """Backend services have no launch context."""
        return ask_token(self._ehr, scope="system/Patient.read", launch=None)

    def with_a_bare_launch(self, patient: str) -> httpx.Response:
        """The launch parameter is the patient."""
        return ask_token(self._ehr, launch=patient)

    def reason(self, answer: httpx.Response) -> str:
        """OAuth errors have a description."""
        return answer.json()["error_description"].lower()


class NaiveClient:
    """FHIR requests as they come to mind: httpx as it is, `.json()` on everything, the first shape seen is every shape."""

    def __init__(self, ehr: ServedEhr, **form: Any) -> None:
        self._ehr = ehr
        self.login = NaiveLogin(ehr)
        headers = {}
        if not ehr.ehr.config.open:
            headers["Authorization"] = f"Bearer {ask_token(ehr, **form).json()['access_token']}"
        self.http = Http(base_url=ehr.base_url + "/", headers=headers, timeout=None)
        self.json = {"Accept": "application/fhir+json"}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    # -- search

    def without_accept(self, path: str) -> Any:
        """Accept is optional."""
        return self.http.get(path).json()

    def for_any_structured_type(self, path: str) -> Any:
        """FHIR is XML and JSON; either will do."""
        return self.http.get(path, headers={"Accept": "application/fhir+xml"}).json()

    def first_page(self, path: str) -> list[dict[str, Any]]:
        """A bundle without entries is an empty answer, whatever else it is."""
        return [entry["resource"] for entry in self.http.get(path, headers=self.json).json().get("entry", [])]

    def trusting_200(self, path: str) -> list[dict[str, Any]]:
        """200 is a bundle; anything else is a problem of today, and the sync continues without it."""
        answer = self.http.get(path, headers=self.json)
        return [entry["resource"] for entry in answer.json()["entry"]] if answer.status_code == 200 else []

    def until_total(self, path: str) -> list[dict[str, Any]]:
        """Pages until `total` rows are there."""
        found: list[dict[str, Any]] = []
        url: str | None = path
        while url is not None:
            bundle = self.http.get(url, headers=self.json).json()
            found += [entry["resource"] for entry in bundle.get("entry", [])]
            url = next_link(bundle) if len(found) < bundle["total"] else None
        return found

    def until_an_empty_page(self, path: str) -> list[dict[str, Any]]:
        """An empty page is the end."""
        found: list[dict[str, Any]] = []
        url: str | None = path
        while url is not None:
            bundle = self.http.get(url, headers=self.json).json()
            rows = [entry["resource"] for entry in bundle.get("entry", [])]
            found += rows
            url = next_link(bundle) if rows else None
        return found

    def by_links(self, path: str) -> list[dict[str, Any]]:
        """Every entry is a row, once; a page that fails is the end."""
        found: list[dict[str, Any]] = []
        url: str | None = path
        while url is not None:
            answer = self.http.get(url, headers=self.json)
            if answer.status_code != 200:
                break
            found += [entry["resource"] for entry in answer.json().get("entry", [])]
            url = next_link(answer.json())
        return found

    def by_the_last_link(self, path: str) -> list[dict[str, Any]]:
        """`self` comes first and `next` last."""
        found: list[dict[str, Any]] = []
        url = path
        for _ in range(_PATIENCE):
            bundle = self.http.get(url, headers=self.json).json()
            found += [entry["resource"] for entry in bundle.get("entry", [])]
            links = bundle["link"]
            if len(links) < 2:
                break
            url = links[-1]["url"]
        return found

    def by_rebuilt_links(self, path: str) -> list[dict[str, Any]]:
        """A link is parsed and put together again, which decodes it."""
        found: list[dict[str, Any]] = []
        url: str | None = path
        while url is not None:
            answer = self.http.get(unquote(url), headers=self.json)
            if answer.status_code != 200:
                break
            found += [entry["resource"] for entry in answer.json().get("entry", [])]
            url = next_link(answer.json())
        return found

    def by_own_offsets(self, path: str, size: int, wanted: int) -> list[dict[str, Any]]:
        """Pages are counted here, and asked as everyone asks them."""
        found: list[dict[str, Any]] = []
        for start in range(0, wanted, size):
            found += self.first_page(f"{path}&_count={size}&_offset={start}")
        return found

    def until_a_short_page(self, path: str, size: int) -> list[dict[str, Any]]:
        """A page with fewer rows than asked is the last."""
        found: list[dict[str, Any]] = []
        url: str | None = f"{path}&_count={size}"
        while url is not None:
            bundle = self.http.get(url, headers=self.json).json()
            rows = [entry["resource"] for entry in bundle.get("entry", [])]
            found += rows
            url = next_link(bundle) if len(rows) >= size else None
        return found

    def stopping_at_the_first_error(self, paths: Iterable[str]) -> list[dict[str, Any]]:
        """One run, one exception."""
        found: list[dict[str, Any]] = []
        for path in paths:
            answer = self.http.get(path, headers=self.json)
            if answer.status_code != 200:
                break
            found += [entry["resource"] for entry in answer.json().get("entry", [])]
        return found

    def posted(self, kind: str, query: str, **form: str) -> Any:
        """What identifies goes into the query, the rest into the body."""
        return self.http.post(f"{kind}/_search?{query}", data=form, headers=self.json)

    def versions(self, path: str) -> list[str]:
        """Rows are distinguished by meta.lastUpdated."""
        return [resource["meta"]["lastUpdated"] for resource in self.first_page(path)]

    def changed_since(self, path: str, instant: str) -> list[str]:
        """What the server gives for `_lastUpdated` is what changed."""
        return [resource["id"] for resource in self.first_page(f"{path}&_lastUpdated=gt{instant}")]

    def read(self, path: str) -> dict[str, Any] | None:
        """200 is the resource; anything else means that there is none."""
        answer = self.http.get(path, headers=self.json)
        return answer.json() if answer.status_code == 200 else None

    # -- bulk

    def export(self, path: str) -> httpx.Response:
        """Kick off."""
        return self.http.get(path, headers={**self.json, **PREFER})

    def export_again_and_again(self, path: str) -> list[int]:
        """A kick-off that is refused is tried once more, and once more."""
        return [self.export(path).status_code for _ in range(5)]

    def poll_without_pause(self, url: str) -> list[int]:
        """202 means ask again."""
        seen = []
        for _ in range(_PATIENCE):
            seen.append(self.http.get(url, headers=self.json).status_code)
            if seen[-1] != 202:
                break
        return seen

    def poll_by_body(self, url: str) -> Any:
        """Every answer is JSON."""
        return self.http.get(url, headers=self.json).json()

    def poll_by_percent(self, url: str) -> float:
        """Progress is a percentage."""
        return float(self.http.get(url, headers=self.json).headers["X-Progress"].rstrip("%"))

    def poll_as_told(self, url: str) -> int:
        """Wait as long as the server says; gives the seconds."""
        waited = 0
        for _ in range(_PATIENCE):
            answer = self.http.get(url, headers=self.json)
            if answer.status_code != 202:
                break
            waited += int(answer.headers["Retry-After"])
        return waited

    def manifest(self, url: str) -> dict[str, Any]:
        """The manifest, taking the care that the server of the test wants while waiting."""
        for _ in range(_PATIENCE):
            answer = self.http.get(url, headers=self.json)
            if answer.status_code == 200:
                return answer.json()
        raise AssertionError("the job did not end")

    def file_as_flagged(self, manifest: dict[str, Any]) -> httpx.Response:
        """The token goes along when requiresAccessToken is True."""
        url = manifest["output"][0]["url"]
        return self.http.get(url) if manifest["requiresAccessToken"] is True else get(url)

    def file_with_the_token_everywhere(self, url: str) -> httpx.Response:
        """A redirect is followed with the same headers."""
        answer = self.http.get(url)
        while answer.is_redirect:
            answer = self.http.get(urljoin(url, answer.headers["Location"]))
        return answer

    def files_at_once(self, urls: Iterable[str]) -> list[int]:
        """All files in parallel; gives the statuses."""
        with ThreadPoolExecutor(8) as pool:
            return list(pool.map(lambda url: self.http.get(url).status_code, urls))

    def rows_promised(self, manifest: dict[str, Any]) -> int:
        """The manifest tells how many rows to expect."""
        return sum(file["count"] for file in manifest["output"])

    def failed(self, manifest: dict[str, Any]) -> bool:
        """A job with errors is a failed job."""
        return bool(manifest["error"])
