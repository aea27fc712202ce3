"""The endpoints and models of the service, and which deployed model answers a call."""

import dataclasses
import os
import re
import threading
from collections import Counter
from collections.abc import Collection, Mapping

from google.cloud.aiplatform_v1 import types

from sluice.models.files import LocalFiles
from sluice.models.saved_model.versions import list_versions
from sluice.models.server.status import StatusError
from sluice.models.server.store import Spec, Store
from sluice.models.server.vertex.limits import DEDICATED_BYTES, SHARED_BYTES

# Ids that people may choose; any other name gets a number, as the service gives them.
_CHOSEN_ID = re.compile(r"[a-z][a-z0-9-]{0,61}[a-z0-9]")
_FIRST_MODEL, _FIRST_ENDPOINT, _FIRST_DEPLOYED = 7001, 5001, 9001
# The service answers with a project's number, whatever a request calls the project.
_PROJECT_NUMBER = "123456789012"
_FORMATS = ("jsonl", "csv", "tf-record", "tf-record-gzip", "file-list", "bigquery")


@dataclasses.dataclass(frozen=True)
class Deployed:
    """A deployed model of an endpoint.

    Attributes:
      id: unique in the service.
      spec: what answers its calls.
      percent: its share of the traffic.
    """

    id: str
    spec: Spec
    percent: int


@dataclasses.dataclass
class _Endpoint:
    """An endpoint: the name and version (None: the newest) of each deployed model, and its share of the traffic."""

    id: str
    name: str
    split: Mapping[tuple[str, int | None], int]
    is_dedicated: bool
    served: Counter[str] = dataclasses.field(default_factory=Counter)


class Resources:
    """Every model of a store, each with an endpoint of the same name. Thread-safe.

    Args:
      bases: the directory of each model.
      dedicated: the names of the endpoints that are dedicated.

    Attributes:
      artifacts: by model, an artifact URI to tell instead of the model's directory; may be empty, as the service's.
    """

    def __init__(
        self, store: Store, bases: Mapping[str, str], project: str, location: str, dedicated: Collection[str] = ()
    ) -> None:
        self.project, self.location = project, location
        self.artifacts: dict[str, str] = {}
        self._store, self._bases = store, dict(bases)
        self._lock = threading.Lock()
        self._models = {_id(name, _FIRST_MODEL + place): name for place, name in enumerate(bases)}
        self._endpoints = {
            endpoint.id: endpoint
            for place, name in enumerate(bases)
            for endpoint in [
                _Endpoint(_id(name, _FIRST_ENDPOINT + place), name, {(name, None): 100}, name in dedicated)
            ]
        }
        self._deployed: dict[tuple[str, str, int], str] = {}

    # Names, as tests and people need them.

    def endpoint_name(self, name: str) -> str:
        """Returns the resource name of a model's endpoint."""
        (found,) = [endpoint.id for endpoint in self._endpoints.values() if endpoint.name == name]
        return f"projects/{self.project}/locations/{self.location}/endpoints/{found}"

    def model_name(self, name: str) -> str:
        """Returns the resource name of a model."""
        (found,) = [each for each, known in self._models.items() if known == name]
        return f"projects/{self.project}/locations/{self.location}/models/{found}"

    def split(self, name: str, traffic: Mapping[str, int]) -> None:
        """Replaces the deployed models of a model's endpoint.

        Args:
          traffic: the percentage of each model: NAME for its newest version, or NAME@VERSION.
        """
        assert sum(traffic.values()) == 100, "the percentages add up to 100"
        split = {}
        for deployed, percent in traffic.items():
            model, _, version = deployed.partition("@")
            split[model, int(version) if version else None] = percent
        with self._lock:
            (endpoint,) = [each for each in self._endpoints.values() if each.name == name]
            endpoint.split, endpoint.served = split, Counter()

    def deployed(self, name: str) -> list[Deployed]:
        """Returns the deployed models of a model's endpoint."""
        with self._lock:
            (endpoint,) = [each for each in self._endpoints.values() if each.name == name]
            return self._list_deployed(endpoint)

    def served(self, name: str) -> dict[str, int]:
        """Returns how many calls each deployed model of a model's endpoint has got, by its id."""
        with self._lock:
            (endpoint,) = [each for each in self._endpoints.values() if each.name == name]
            return dict(endpoint.served)

    # What calls ask.

    def check_location(self, project: str, location: str) -> None:
        """Checks that a request is for this project, by id or number, and location.

        Raises:
          StatusError: it is not.
        """
        if project not in (self.project, _PROJECT_NUMBER):
            raise StatusError("PERMISSION_DENIED", f"Permission denied on project {project}, or it does not exist.")
        if location != self.location:
            raise StatusError("NOT_FOUND", f"Location {location} is not served here, only {self.location}.")

    @property
    def parent(self) -> str:
        """The resource name of the location, as answers have it."""
        return f"projects/{_PROJECT_NUMBER}/locations/{self.location}"

    def limit(self, endpoint_id: str) -> int:
        """Returns the most bytes that a request to an endpoint may have, and its answer.

        Raises:
          StatusError: there is no such endpoint.
        """
        return DEDICATED_BYTES if self._endpoint(endpoint_id).is_dedicated else SHARED_BYTES

    def choose(self, endpoint_id: str) -> Deployed:
        """Returns the deployed model that the next call goes to: after every 100 calls the split is exact.

        Raises:
          StatusError: there is no such endpoint.
        """
        endpoint = self._endpoint(endpoint_id)
        with self._lock:
            listed = [each for each in self._list_deployed(endpoint) if each.percent]
            chosen = min(listed, key=lambda each: (endpoint.served[each.id] + 1) / each.percent)
            endpoint.served[chosen.id] += 1
            return chosen

    def find_deployed(self, deployed_id: str) -> Deployed:
        """Returns a deployed model by its id, whatever its endpoint.

        Raises:
          StatusError: there is none.
        """
        with self._lock:
            for endpoint in self._endpoints.values():
                for each in self._list_deployed(endpoint):
                    if each.id == deployed_id:
                        return each
        raise StatusError("NOT_FOUND", f"There is no deployed model {deployed_id}.")

    def find_model(self, named: str) -> Spec:
        """Returns the model that ID, ID@VERSION or ID@default means, with its version.

        Raises:
          StatusError: there is none.
        """
        model_id, _, version = named.partition("@")
        name = self._models.get(model_id)
        loaded = self._store.loaded().get(name, []) if name else []
        wanted = max(loaded, default=None) if version in ("", "default") else _number(version)
        if name is None or wanted not in loaded:
            raise StatusError("NOT_FOUND", f"The Model {self.parent}/models/{named} does not exist.")
        return Spec(name, wanted)

    def endpoint_message(self, endpoint_id: str) -> types.Endpoint:
        """Returns what Endpoint.get answers.

        Raises:
          StatusError: there is no such endpoint.
        """
        endpoint = self._endpoint(endpoint_id)
        with self._lock:
            listed = self._list_deployed(endpoint)
        message = types.Endpoint(
            name=f"{self.parent}/endpoints/{endpoint.id}",
            display_name=endpoint.name,
            deployed_models=[self._deployed_message(each) for each in listed],
            traffic_split={each.id: each.percent for each in listed if each.percent},
        )
        if endpoint.is_dedicated:
            message.dedicated_endpoint_enabled = True
            message.dedicated_endpoint_dns = f"https://{endpoint.id}.{self.location}-1.prediction.vertexai.goog"
        return message

    def model_message(self, spec: Spec) -> types.Model:
        """Returns what Model.get answers for a version."""
        assert spec.version is not None
        is_newest = spec.version == max(self._store.loaded()[spec.name])
        return types.Model(
            name=f"{self.parent}/models/{self.model_name(spec.name).rpartition('/')[2]}",
            version_id=str(spec.version),
            version_aliases=["default"] if is_newest else [],
            display_name=spec.name,
            artifact_uri=self.artifacts.get(spec.name, _artifact(self._bases[spec.name], spec.version)),
            supported_deployment_resources_types=[types.Model.DeploymentResourcesType.DEDICATED_RESOURCES],
            supported_input_storage_formats=_FORMATS,
            supported_output_storage_formats=["jsonl", "csv", "bigquery"],
        )

    def _deployed_message(self, deployed: Deployed) -> types.DeployedModel:
        model_id = self.model_name(deployed.spec.name).rpartition("/")[2]
        return types.DeployedModel(
            id=deployed.id,
            model=f"{self.parent}/models/{model_id}",
            model_version_id=str(deployed.spec.version),
            display_name=deployed.spec.name,
        )

    def _endpoint(self, endpoint_id: str) -> _Endpoint:
        endpoint = self._endpoints.get(endpoint_id)
        if endpoint is None:
            raise StatusError("NOT_FOUND", f"The Endpoint {self.parent}/endpoints/{endpoint_id} does not exist.")
        return endpoint

    def _list_deployed(self, endpoint: _Endpoint) -> list[Deployed]:
        """Lists them with the lock held. A new version of a model is another deployed model, with an id of its own."""
        loaded = self._store.loaded()
        found = []
        for (name, version), percent in endpoint.split.items():
            number = max(loaded[name]) if version is None else version
            key = endpoint.id, name, number
            deployed_id = self._deployed.setdefault(key, str(_FIRST_DEPLOYED + len(self._deployed)))
            found.append(Deployed(deployed_id, Spec(name, number), percent))
        return found


def _id(name: str, number: int) -> str:
    return name if _CHOSEN_ID.fullmatch(name) else str(number)


def _number(text: str) -> int | None:
    return int(text) if text.isdecimal() else None


def _artifact(base: str, number: int) -> str:
    """Returns the directory of a version."""
    if os.path.exists(os.path.join(base, "saved_model.pb")):
        return os.path.abspath(base)
    listed = list_versions(base, LocalFiles())
    return next((os.path.abspath(version.directory) for version in listed if version.number == number), "")
