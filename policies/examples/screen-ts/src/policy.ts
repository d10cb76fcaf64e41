// Example: numbers become E.164, header fields are set and removed as the settings say, and who is
// on the block list gets 403. The same policy stands beside this one in Rust and in C.

import { describe, log, next, policy, reply } from "@sipbox/guest";
import { read, type Settings } from "./settings";

const COUNT = "screen.provisional";

// The number in its international form, or undefined if it is none that was dialled in full.
function normalised(user: string, settings: Settings): string | undefined {
  const written = user.replace(/[-.()]/g, "");
  const digits = written.startsWith("+") ? written.slice(1) : written;
  if (!/^[0-9]+$/.test(digits)) return undefined;
  const number = written.startsWith("+") ? digits : withoutPrefix(digits, settings);
  // E.164: no leading zero, 15 digits at most.
  if (number === undefined || !/^[1-9][0-9]{0,14}$/.test(number)) return undefined;
  return `+${number}`;
}

function withoutPrefix(digits: string, settings: Settings): string | undefined {
  const international = settings.internationalPrefixes
    .filter((prefix) => digits.startsWith(prefix))
    .reduce((longest, prefix) => (prefix.length > longest.length ? prefix : longest), "");
  if (international !== "") return digits.slice(international.length);
  const trunk = settings.trunkPrefix;
  if (trunk === "" || digits === trunk || !digits.startsWith(trunk)) return undefined;
  return settings.countryCode + digits.slice(trunk.length);
}

const blocked = (number: string, list: string[]): boolean =>
  list.some((entry) =>
    entry.endsWith("*") ? number.startsWith(entry.slice(0, -1)) : number === entry);

// An edit that the host refuses is the operator's mistake, and no reason to lose the call.
function attempt(what: string, edit: () => void): void {
  try {
    edit();
  } catch (error) {
    log.warn(`${what}: ${describe(error)}`);
  }
}

export const { lifecycle, requestHook, replyHook } = policy<Settings>({
  name: "policy-screen-ts",
  version: "0.1.0",
  summary: "Example in TypeScript: numbers to E.164, header fields from settings, a block list.",

  configure: read,

  onRequest(request, settings) {
    if (request.inDialog) return next;
    const user = request.uriUser ?? "";
    const callee = normalised(user, settings) ?? user;
    const from = request.from.user ?? "";
    const caller = normalised(from, settings) ?? from;
    if (blocked(caller, settings.blockedCallers) || blocked(callee, settings.blockedCallees)) {
      log.info(`blocked: ${caller} calls ${callee}`);
      return reply(403, { reason: settings.reason });
    }
    if (callee !== user) {
      const { uri } = request;
      const at = request.uriScheme.length + 1;
      attempt("set-request-uri", () => request.setUri(uri.slice(0, at) + callee + uri.slice(at + user.length)));
    }
    for (const name of settings.removeHeaders) attempt("remove-header", () => request.removeHeader(name));
    for (const { name, value } of settings.setHeaders) attempt("set-header", () => request.setHeader(name, value));
    if (settings.countHeader !== undefined) request.arm({ reply: true });
    return next;
  },

  onReply(response, settings) {
    let count = Number(response.var(COUNT) ?? 0);
    if (response.status < 200) {
      count += 1;
      response.setVar(COUNT, String(count));
    }
    const { countHeader } = settings;
    if (countHeader !== undefined) attempt("set-header", () => response.setHeader(countHeader, String(count)));
    return "forward";
  },
});
