// What becomes of a request.

import type { Body, Header, Reply, Target, Verdict } from "sipbox:policy/types@0.1.0";

// The next policy of the chain decides.
export const next: Verdict = { tag: "next" };
// Nothing is sent.
export const drop: Verdict = { tag: "drop" };

export interface ReplyParts { reason?: string; headers?: Header[]; body?: Body }

function made(status: number, parts: ReplyParts): Reply {
  return {
    status,
    reason: parts.reason ?? "",
    headers: parts.headers ?? [],
    body: parts.body ?? null,
    options: [],
  };
}

// A response of this proxy.
export function reply(status: number, parts: ReplyParts = {}): Verdict {
  return { tag: "reply", val: made(status, parts) };
}
export function replyStateless(status: number, parts: ReplyParts = {}): Verdict {
  return { tag: "reply-stateless", val: made(status, parts) };
}

// A URI, by way of a next hop if there is one.
export function uri(to: string, nextHop = "", flow = "", path: string[] = []): Target {
  return target({ tag: "uri", val: { uri: to, nextHop, path, flow } });
}
// All bindings of `user@domain`.
export function registered(aor: string): Target {
  return target({ tag: "registered", val: aor });
}
function target(destination: Target["destination"]): Target {
  return { destination, q: 1000, id: 0, options: [] };
}

export interface RelayParts {
  // Milliseconds that a group may ring, and all of them together; 0: no limit but Timer C.
  ringTimeout?: number;
  totalTimeout?: number;
  // Milliseconds that a branch may go without any response; 0: Timer B or F alone.
  frTimeout?: number;
  recordRoute?: boolean | [name: string, value: string][];
  // What becomes of the route set that an initial request brings; without it such a request is 403.
  preloaded?: "follow" | "strip";
}

// Groups in series, their targets in parallel; none: along the route set, or to the Request-URI.
export function relay(groups: Target[][] = [], parts: RelayParts = {}): Verdict {
  const route = parts.recordRoute ?? false;
  return {
    tag: "relay",
    val: {
      groups,
      ringTimeout: parts.ringTimeout ?? 0,
      totalTimeout: parts.totalTimeout ?? 0,
      frTimeout: parts.frTimeout ?? 0,
      recordRoute: route === false ? null : route === true ? [] : route,
      options: parts.preloaded === undefined ? [] : [["preloaded", parts.preloaded]],
    },
  };
}
export function redirect(targets: Target[]): Verdict {
  return { tag: "redirect", val: targets };
}
export function forwardStateless(to: Target): Verdict {
  return { tag: "forward-stateless", val: to };
}
