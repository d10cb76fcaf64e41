// Lines for the operator's log, and a `console` that writes them.

import host, { type Level } from "sipbox:policy/log@0.1.0";

function line(level: Level, parts: unknown[]): void {
  host.log(level, parts.map(shown).join(" "));
}

function shown(value: unknown): string {
  if (typeof value === "string") return value;
  if (typeof value !== "object" || value === null || value instanceof Error) return String(value);
  return JSON.stringify(value) ?? String(value);
}

export const log = {
  trace: (...parts: unknown[]): void => line("trace", parts),
  debug: (...parts: unknown[]): void => line("debug", parts),
  info: (...parts: unknown[]): void => line("info", parts),
  warn: (...parts: unknown[]): void => line("warn", parts),
  error: (...parts: unknown[]): void => line("error", parts),
};

// The interpreter has none; libraries expect one.
(globalThis as { console?: unknown }).console = { ...log, log: log.info };
