"""Makes the two trimmed schemas beside this file from GitHub's published ones.

    npm pack @octokit/openapi @octokit/graphql-schema      (both MIT, Octokit contributors)
    python tests/issues/trim_github_schemas.py OPENAPI_FOLDER GRAPHQL_FOLDER

Kept are the answers to the requests that `trackrecord.issues` makes, without prose and examples,
and of the GraphQL schema the types, fields and arguments that its query names. OpenAPI 3.0's
`nullable` becomes JSON Schema's null, so that any JSON Schema validator can read the result.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from graphql import (
    FieldNode,
    GraphQLEnumType,
    GraphQLInterfaceType,
    GraphQLNamedType,
    GraphQLObjectType,
    GraphQLScalarType,
    GraphQLSchema,
    GraphQLUnionType,
    TypeInfo,
    TypeInfoVisitor,
    Visitor,
    build_schema,
    get_named_type,
    parse,
    visit,
)
from graphql.type import is_specified_scalar_type

from trackrecord.issues.graphql import details_query

HERE = Path(__file__).parent
REST_FILE, GRAPHQL_FILE = HERE / "github_rest_schemas.json", HERE / "github_schema.graphql"
PATHS = {
    "repository": "/repos/{owner}/{repo}",
    "issues": "/repos/{owner}/{repo}/issues",
    "issue": "/repos/{owner}/{repo}/issues/{issue_number}",
    "comments": "/repos/{owner}/{repo}/issues/comments",
    "issue_comments": "/repos/{owner}/{repo}/issues/{issue_number}/comments",
    "timeline": "/repos/{owner}/{repo}/issues/{issue_number}/timeline",
    "pull": "/repos/{owner}/{repo}/pulls/{pull_number}",
    "files": "/repos/{owner}/{repo}/pulls/{pull_number}/files",
}
PROSE = frozenset({"description", "example", "examples", "title", "externalDocs", "x-github"})


def rest_schemas(openapi: dict[str, Any]) -> dict[str, Any]:
    """The JSON Schemas used, among them "answer:NAME" for each answer in `PATHS`."""
    answers = {
        name: openapi["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]
        for name, path in PATHS.items()
    }
    definitions: dict[str, Any] = {}
    waiting = [(f"answer:{name}", answer["schema"]) for name, answer in answers.items()]
    while waiting:
        name, schema = waiting.pop()
        if name not in definitions:
            definitions[name] = _json_schema(schema)
            used = _references(schema)
            waiting += [(each, openapi["components"]["schemas"][each]) for each in used]
    return definitions


def graphql_schema(sdl: str, version: str) -> str:
    """The part of the schema that the sync's query uses, in the schema definition language."""
    schema = build_schema(sdl, assume_valid=True)
    used = _used_fields(schema)
    for name in [n for n, fields in used.items() if isinstance(_type(schema, n), GraphQLUnionType)]:
        del used[name]
    parts = [
        f"# Trimmed from npm @octokit/graphql-schema {version}, MIT License,",
        "# Copyright (c) GitHub 2025.",
    ]
    named: set[str] = set()
    for name in sorted(used):
        kind = _type(schema, name)
        assert isinstance(kind, GraphQLObjectType | GraphQLInterfaceType)
        keyword = "interface" if isinstance(kind, GraphQLInterfaceType) else "type"
        lines = []
        for field, arguments in sorted(used[name].items()):
            spec = kind.fields[field]
            given = ", ".join(f"{a}: {spec.args[a].type}" for a in sorted(arguments))
            named |= {get_named_type(spec.args[a].type).name for a in arguments}
            named.add(get_named_type(spec.type).name)
            lines.append(f"  {field}{f'({given})' if given else ''}: {spec.type}")
        interfaces = [i.name for i in getattr(kind, "interfaces", ()) if i.name in used]
        implements = f" implements {' & '.join(interfaces)}" if interfaces else ""
        parts.append("\n".join([f"{keyword} {name}{implements} {{", *lines, "}"]))
    parts += [text for n in sorted(named - set(used)) if (text := _leaf(_type(schema, n), used))]
    return "\n\n".join(parts) + "\n"


def _used_fields(schema: GraphQLSchema) -> dict[str, dict[str, set[str]]]:
    info = TypeInfo(schema)
    used: dict[str, dict[str, set[str]]] = {}

    class Collector(Visitor):
        def enter_field(self, node: FieldNode, *_: Any) -> None:
            parent = info.get_parent_type()
            assert parent is not None
            if node.name.value != "__typename":
                arguments = {argument.name.value for argument in node.arguments or ()}
                used.setdefault(parent.name, {}).setdefault(node.name.value, set()).update(
                    arguments
                )
                kind = parent
                if isinstance(kind, GraphQLInterfaceType):
                    for implementation in schema.get_possible_types(kind):
                        fields = used.setdefault(implementation.name, {})
                        fields.setdefault(node.name.value, set()).update(arguments)

    visit(parse(details_query([1])), TypeInfoVisitor(info, Collector()))
    return used


def _leaf(kind: GraphQLNamedType, used: dict[str, Any]) -> str | None:
    if isinstance(kind, GraphQLUnionType):
        members = [t.name for t in kind.types if t.name in used]
        return f"union {kind.name} = {' | '.join(members)}"
    if isinstance(kind, GraphQLEnumType):
        return "\n".join([f"enum {kind.name} {{", *(f"  {v}" for v in kind.values), "}"])
    if isinstance(kind, GraphQLScalarType) and not is_specified_scalar_type(kind):
        return f"scalar {kind.name}"
    return None


def _type(schema: GraphQLSchema, name: str) -> GraphQLNamedType:
    found = schema.get_type(name)
    assert found is not None
    return found


def _json_schema(schema: Any) -> Any:
    """`schema` without prose, `nullable` as null, references into `$defs`."""
    if isinstance(schema, list):
        return [_json_schema(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    kept: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "properties":
            kept[key] = {name: _json_schema(entry) for name, entry in value.items()}
        elif key == "$ref":
            kept[key] = f"#/$defs/{value.rpartition('/')[2]}"
        elif key not in PROSE and key not in ("nullable", "format"):
            kept[key] = _json_schema(value)
    return {"anyOf": [{"type": "null"}, kept]} if schema.get("nullable") else kept


def _references(schema: Any) -> set[str]:
    if isinstance(schema, list):
        return set().union(*map(_references, schema)) if schema else set()
    if not isinstance(schema, dict):
        return set()
    own = {schema["$ref"].rpartition("/")[2]} if isinstance(schema.get("$ref"), str) else set()
    return own.union(*(_references(value) for value in schema.values()))


def main(openapi_folder: Path, graphql_folder: Path) -> None:
    openapi = json.loads((openapi_folder / "generated" / "api.github.com.json").read_text())
    definitions = ",\n".join(
        f"{json.dumps(name)}: {json.dumps(schema, separators=(',', ':'))}"
        for name, schema in sorted(rest_schemas(openapi).items())
    )
    origin = f"npm @octokit/openapi {openapi['info']['version']}"
    REST_FILE.write_text(
        f'{{"$comment": "Trimmed from {origin}, MIT License, '
        'Copyright (c) 2020 Octokit contributors.",\n"$defs": {\n' + definitions + "\n}}\n"
    )
    version = json.loads((graphql_folder / "package.json").read_text())["version"]
    sdl = (graphql_folder / "schema.graphql").read_text()
    GRAPHQL_FILE.write_text(graphql_schema(sdl, version))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
