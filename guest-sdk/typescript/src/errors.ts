// What is said of an exception: its text, and where it was thrown by the lines of the sources. The
// builder puts a table for that at the end of the bundle.

import type { HostError } from "sipbox:policy/types@0.1.0";

interface Lines { sources: string[]; lines: number[][] }

let table: Lines | undefined;

function lines(): Lines {
  const text = (globalThis as { __sipboxLines?: string }).__sipboxLines;
  table ??= JSON.parse(text ?? '{"sources":[],"lines":[]}') as Lines;
  return table;
}

// `source:line` for a place in the bundle.
function place(line: number, column: number): string | undefined {
  const { sources, lines: all } = lines();
  const triples = all[line - 1] ?? [];
  let found: string | undefined;
  for (let at = 0; at + 2 < triples.length; at += 3) {
    if (found !== undefined && (triples[at] ?? 0) > column - 1) break;
    found = `${sources[triples[at + 1] ?? 0]}:${triples[at + 2]}`;
  }
  return found;
}

// The calls that led to an exception, innermost first, without those of the SDK.
function places(stack: string): string[] {
  return [...stack.matchAll(/:(\d+):(\d+)\)?$/gm)]
    .map(([, line, column]) => place(Number(line), Number(column)))
    .filter((found): found is string => found !== undefined && !found.startsWith("sdk/"));
}

// Why a host call was refused, if that is what an exception is about.
export function refusal(error: unknown): HostError | undefined {
  const payload = (error as { payload?: Partial<HostError> } | undefined)?.payload;
  return typeof payload?.tag === "string" ? { tag: payload.tag, val: payload.val ?? "" } : undefined;
}

// An exception in one line.
export function describe(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const refused = refusal(error);
  const text = refused ? `${refused.tag}: ${refused.val}` : `${error.name}: ${error.message}`;
  const [at, ...from] = places(error.stack ?? "");
  const callers = from.length > 0 ? `, called from ${from.join(", ")}` : "";
  return `${text}${at === undefined ? "" : ` at ${at}${callers}`}`;
}
