"""Incidents: the engine with one fault switched on, a page from a user, and what can be looked at.

    case        an incident as data (`cases/*.toml`)
    faults/     one module an incident: the fault, the workload that shows it, what can be seen
    site        a served engine on a virtual clock, and its records
    views       metrics, logs, timelines and block tables, made from these records
    run         an incident with its fault on or off
    item        the incident as a session puts it before a person
    grade       the three layers of an answer

Importing this loads no torch; a run may.
"""

from trackrecord.loop.incidents.case import IncidentError, load_case, names
from trackrecord.loop.incidents.grade import grade_incident
from trackrecord.loop.incidents.item import incident_item, true_path
from trackrecord.loop.incidents.outcome import Outcome
from trackrecord.loop.incidents.run import run_incident

__all__ = [
    "IncidentError",
    "Outcome",
    "grade_incident",
    "incident_item",
    "load_case",
    "names",
    "run_incident",
    "true_path",
]
