"""etcd's answers and the proxy's, case by case and field by field. See README.md for how to add one."""

import importlib
import itertools
import os
import pathlib

import pytest

from conformance import differences
from conformance.case import ALL, first_difference
from conformance.places import NAMESPACE, RELEASES, Places, Way
from conformance.run import Run

for file in sorted(pathlib.Path(__file__).parent.glob("conformance/*_cases.py")):
    importlib.import_module(f"conformance.{file.stem}")

# release, TLS, authentication, namespace: five ways in which every two of these meet in all their values.
PAIRS = [("3.4", False, False, None), ("3.4", True, True, NAMESPACE), ("3.5", False, True, NAMESPACE),
         ("3.5", True, False, NAMESPACE), ("3.5", True, True, None)]
EVERY = list(itertools.product(RELEASES, [False, True], [False, True], [None, NAMESPACE]))
WAYS = [
    pytest.param(
        (release, tls, auth, namespace),
        id="-".join([release, "tls" if tls else "plain", "auth" if auth else "open",
                     "namespace" if namespace else "whole"]))
    for release, tls, auth, namespace in (EVERY if os.environ.get("RINGWAY_WAYS") == "all" else PAIRS)]


@pytest.fixture(scope="session")
def places(authority):
    made = Places(authority)
    yield made
    made.close()


@pytest.fixture(scope="module", params=WAYS)
def way(request, places):
    release, tls, auth, namespace = request.param
    made = Way(places.place(release, tls, auth), namespace)
    yield made
    made.close()


def play(case, way, client):
    """What a client of this side records."""
    if way.place.auth and "root" not in way.place.tokens:
        way.place.login()
    run = Run(client, way.place.tokens, case.hidden, way.place.login)
    run.begin()
    try:
        case.play(run)
    except Exception as error:
        # An answer that the case cannot go on with: the record is compared up to there.
        run.note("the case", stopped=repr(error))
    finally:
        run.end()
    return run.record


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.name.replace(" ", "_"))
def test_same_answers(case, way):
    if not case.applies(way.place, way.namespace):
        pytest.skip("not for this etcd")
    expected = play(case, way, way.direct)
    for entry in expected:
        assert not {"silence", "disorder", "stopped"} & set(entry), expected
    # A request that etcd itself does not survive is no case; all that follow would wait for it in vain.
    if way.place.etcd.process.poll() is not None:
        pytest.exit(f"{case.name} ended etcd {way.place.release}", 1)
    found = play(case, way, way.through)
    if way.revive():
        pytest.fail("the proxy has died")
    if difference := differences.find(case, way):
        pytest.skip(f"differs on purpose: {difference.reason}")
    if parting := first_difference(expected, found):
        pytest.fail(parting, pytrace=False)
