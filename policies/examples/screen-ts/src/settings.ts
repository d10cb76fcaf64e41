// The settings, read by hand: what is wrong is said by its name.

import { SettingsError } from "@sipbox/guest";

export interface Field { name: string; value: string }

export interface Settings {
  countryCode: string;
  internationalPrefixes: string[];
  trunkPrefix: string;
  removeHeaders: string[];
  setHeaders: Field[];
  blockedCallers: string[];
  blockedCallees: string[];
  reason: string;
  countHeader: string | undefined;
}

const NAMES = [
  "country_code", "international_prefixes", "trunk_prefix", "remove_headers", "set_headers",
  "blocked_callers", "blocked_callees", "reason", "count_header",
];

const refuse = (name: string, expected: string): never => {
  throw new SettingsError(`${name}: expected ${expected}`);
};

const digits = (text: string): boolean => /^[0-9]+$/.test(text);
const token = (text: string): boolean => /^[A-Za-z0-9.!%*_+`'~-]+$/.test(text);
// eslint-disable-next-line no-control-regex -- what a header field must not have
const plain = (text: string): boolean => !/[\x00-\x1f\x7f]/.test(text);

function text(value: unknown, name: string, expected: string, good: (text: string) => boolean): string {
  return typeof value === "string" && good(value) ? value : refuse(name, expected);
}

function texts(value: unknown, name: string, expected: string, good: (text: string) => boolean): string[] {
  if (value === undefined) return [];
  if (!Array.isArray(value)) return refuse(name, "a list");
  return value.map((item, at) => text(item, `${name}[${at}]`, expected, good));
}

function fields(value: unknown): Field[] {
  if (value === undefined) return [];
  if (!Array.isArray(value)) return refuse("set_headers", "a list");
  return value.map((item: unknown, at) => {
    const name = `set_headers[${at}]`;
    if (typeof item !== "object" || item === null || Array.isArray(item)) {
      return refuse(name, "a table with `name` and `value`");
    }
    const other = Object.keys(item).find((key) => key !== "name" && key !== "value");
    if (other !== undefined) throw new SettingsError(`${name}: unknown setting \`${other}\``);
    const field = item as Partial<Record<keyof Field, unknown>>;
    return {
      name: text(field.name, `${name}.name`, "the name of a header field", token),
      value: text(field.value, `${name}.value`, "a text of one line", plain),
    };
  });
}

const number = (entry: string): boolean => /^\+?[0-9]*\*?$/.test(entry) && entry !== "";

export function read(json: unknown): Settings {
  if (typeof json !== "object" || json === null || Array.isArray(json)) {
    throw new SettingsError("expected a table");
  }
  const unknown = Object.keys(json).find((key) => !NAMES.includes(key));
  if (unknown !== undefined) throw new SettingsError(`unknown setting \`${unknown}\``);
  const all = json as Record<string, unknown>;
  const optional = (name: string, otherwise: string, expected: string, good: (text: string) => boolean): string =>
    all[name] === undefined ? otherwise : text(all[name], name, expected, good);
  return {
    countryCode: text(all["country_code"], "country_code", "1 to 3 digits that do not begin with 0",
      (code) => /^[1-9][0-9]{0,2}$/.test(code)),
    internationalPrefixes: all["international_prefixes"] === undefined
      ? ["00"]
      : texts(all["international_prefixes"], "international_prefixes", "digits", digits),
    trunkPrefix: optional("trunk_prefix", "0", "digits or an empty text", (prefix) => prefix === "" || digits(prefix)),
    removeHeaders: texts(all["remove_headers"], "remove_headers", "the name of a header field", token),
    setHeaders: fields(all["set_headers"]),
    blockedCallers: texts(all["blocked_callers"], "blocked_callers", "a number, or its beginning and `*`", number),
    blockedCallees: texts(all["blocked_callees"], "blocked_callees", "a number, or its beginning and `*`", number),
    reason: optional("reason", "Blocked", "a text of one line", plain),
    countHeader: all["count_header"] === undefined
      ? undefined
      : text(all["count_header"], "count_header", "the name of a header field", token),
  };
}
