// The HTTP API for people: the OpenAPI document as one page, without anything from another host.

import { get, takeToken } from "./api.js";
import { byId, el } from "./dom.js";

const METHODS = ["get", "post"];

function text(name, words) {
  return el("code", {}, words ? `${name} ${words}` : name);
}

/** What a schema allows, in words and links to other schemas. */
function type(schema) {
  if (schema.$ref) {
    const name = schema.$ref.split("/").pop();
    return [el("a", { href: `#${name}` }, name)];
  }
  const choices = schema.oneOf ?? schema.anyOf;
  if (choices) return choices.flatMap((choice, place) => [place ? " or " : "", ...type(choice)]);
  if (schema.prefixItems) return ["[", ...schema.prefixItems.flatMap((item, place) => [place ? ", " : "", ...type(item)]), "]"];
  if (schema.type === "array") return ["list of ", ...type(schema.items ?? {}), range(schema.minItems, schema.maxItems)];
  if (schema.type === "object" && typeof schema.additionalProperties === "object")
    return [...(schema.propertyNames ? type(schema.propertyNames) : ["name"]), " → ", ...type(schema.additionalProperties)];
  if (schema.enum) return [schema.enum.map((value) => JSON.stringify(value)).join(", ")];
  const bounds = range(schema.minimum ?? schema.exclusiveMinimum, schema.maximum);
  const initial = schema.default === undefined || schema.default === null ? "" : `, else ${JSON.stringify(schema.default)}`;
  return [`${schema.type ?? "anything"}${bounds}${initial}`];
}

function range(low, high) {
  const infinite = (limit) => limit === undefined || Math.abs(limit) >= 1e15;
  if (infinite(low) && infinite(high)) return "";
  return ` (${infinite(low) ? "at most " : low}${infinite(low) || infinite(high) ? "" : " to "}${infinite(high) ? " or more" : high})`;
}

function row(name, schema, { required = false, description = schema.description } = {}) {
  return el(
    "tr",
    {},
    el("th", { scope: "row" }, text(name)),
    el("td", {}, ...type(schema), required ? ", required" : ""),
    el("td", { class: "soft" }, description ?? ""),
  );
}

const table = (rows) => (rows.length ? el("table", {}, el("tbody", {}, ...rows)) : null);

function operation(method, path, described) {
  const content = (part) => Object.entries(part?.content ?? {});
  const bodies = content(described.requestBody).map(([kind, { schema }]) =>
    schema ? row("body", schema, { required: true }) : row("body", { type: kind }, { required: true }),
  );
  const answers = Object.entries(described.responses).flatMap(([status, response]) =>
    content(response).map(([kind, { schema }]) =>
      row(status, schema ?? { type: kind }, { description: response.description === "Successful Response" ? "" : response.description }),
    ),
  );
  return el(
    "section",
    {},
    el("h3", {}, text(method.toUpperCase(), path)),
    el("p", {}, described.summary),
    table([
      ...(described.parameters ?? []).map((parameter) => row(parameter.name, parameter.schema, parameter)),
      ...bodies,
      ...answers,
    ]),
  );
}

function object(name, schema) {
  const fields = Object.entries(schema.properties ?? {}).map(([field, value]) =>
    row(field, value, { required: schema.required?.includes(field) }),
  );
  return el(
    "section",
    { id: name },
    el("h3", {}, text(name)),
    schema.description ? el("p", {}, schema.description) : null,
    fields.length ? table(fields) : el("p", {}, ...type(schema)),
  );
}

async function start() {
  takeToken();
  try {
    const { info, servers, paths, components } = await get("openapi.json");
    byId("version").textContent = `version ${info.version}, below ${servers[0].url}`;
    byId("description").textContent = info.description;
    byId("operations").replaceChildren(
      ...Object.entries(paths).flatMap(([path, methods]) =>
        METHODS.filter((method) => methods[method]).map((method) => operation(method, path, methods[method])),
      ),
    );
    byId("schemas").replaceChildren(...Object.entries(components.schemas).map(([name, schema]) => object(name, schema)));
    // The fragment was there before what it names.
    if (location.hash) byId(location.hash.slice(1))?.scrollIntoView();
  } catch (error) {
    byId("problem-text").textContent = error.message;
    byId("problem").hidden = false;
  }
  document.body.classList.add("ready");
}

start();
