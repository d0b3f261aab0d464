"""docs/asyncapi.yaml against AsyncAPI's own JSON schema of version 3.0.0, from the npm package that
its authors publish."""

import copy
import json
import shutil
import subprocess
from urllib.parse import urlsplit

import pytest
from jsonschema import Draft7Validator, FormatChecker

from schemas.docs.asyncapi import document

SPECS = "@asyncapi/specs@6.11.1"
FORMATS = FormatChecker()


@FORMATS.checks("uri")
def is_uri(value):
    return bool(urlsplit(value).scheme)


@pytest.fixture(scope="module")
def specification(tmp_path_factory):
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip(f"no npm here: {SPECS} with AsyncAPI's JSON schema cannot be installed")
    folder = tmp_path_factory.mktemp("asyncapi")
    install = [
        npm,
        "install",
        "--prefix",
        str(folder),
        "--prefer-offline",
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
        SPECS,
    ]
    done = subprocess.run(
        install, cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, f"npm could not install {SPECS}: {done.stderr[-500:]}"
    schema = json.loads((folder / "node_modules/@asyncapi/specs/schemas/3.0.0.json").read_text())
    return Draft7Validator(schema, format_checker=FORMATS)


def mistakes(specification, document):
    return [
        f"{'/'.join(map(str, error.absolute_path))}: {error.message[:200]}"
        for error in specification.iter_errors(document)
    ]


def test_the_document_is_valid_by_the_specification(specification):
    assert mistakes(specification, document()) == []


def _without_action(whole):
    del whole["operations"]["sendRawTradeByProducers"]["action"]


def _parameter_of_another_shape(whole):
    whole["channels"]["barsInterval"]["parameters"]["interval"]["type"] = "string"


def _payload_that_is_no_avro(whole):
    whole["components"]["messages"]["Bar"]["payload"]["schema"]["fields"][0]["type"] = {
        "type": "decimal"
    }


def _unknown_binding(whole):
    whole["channels"]["barsInterval"]["bindings"]["kafka"]["partitons"] = 6


def _link_that_is_no_address(whole):
    whole["channels"]["barsInterval"]["externalDocs"] = {"url": "topics/bars.md"}


CHANGES = [
    _without_action,
    _parameter_of_another_shape,
    _payload_that_is_no_avro,
    _unknown_binding,
    _link_that_is_no_address,
]


@pytest.mark.parametrize("change", CHANGES)
def test_the_specification_refuses_a_mistake(specification, change):
    whole = copy.deepcopy(document())
    change(whole)
    assert mistakes(specification, whole) != []
