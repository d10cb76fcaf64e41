// A guest of the tests: every hook reads, edits and answers; a call to `throw...` ends in an
// exception. The same guest stands beside this one in Rust and in C.

import { log, policy, registered, relay, reply, uri, now, type Request } from "@sipbox/guest";

function lost(where: string): never {
  throw new Error(`lost in ${where}`);
}

function deep(level: number): never {
  const further = deep(level + 1);
  throw new Error(`level ${level} ${String(further)}`);
}

function read(request: Request): string {
  const { from, to, contact } = request;
  const parts = [request.method, request.uri, from.user, from.host, from.tag, to.uri, request.callId,
    contact.user, contact.host,
    request.header("X-Probe"), request.header("X-None"), String(request.body.length), request.tenant];
  return parts.map((part) => part ?? "-").join("|");
}

export const { lifecycle, routeHook, requestHook, branchHook, replyHook, failureHook } = policy({
  name: "guest-hooks-ts",
  version: "0.1.0",
  summary: "Every hook in TypeScript.",

  configure: () => undefined,

  onRoute(request) {
    request.setHeader("X-Hooks", `route ${request.routeOutcome}`);
  },

  onRequest(request) {
    switch (request.uriUser) {
      case "throw":
        return lost("onRequest");
      case "throw-refused":
        // Via is the host's: nobody catches what the SDK throws.
        request.setHeader("Via", "SIP/2.0/UDP nowhere");
        break;
      case "throw-deep":
        return deep(0);
      case "console":
        console.warn("said by", "console", { at: now() > 1_000_000_000_000, date: new Date() > new Date(0) });
        return reply(200, { reason: "Said" });
      case "random":
        return reply(200, { reason: String(Math.random()) });
      case "registered":
        return relay([[registered("bob@example.org")]]);
    }
    request.setVar("hooks", "1");
    request.setHeader("X-Read", read(request));
    request.addHeader("X-Hooks", "request");
    request.arm({ branch: true, reply: true, failure: true });
    return relay([[uri(request.uri, "sip:192.0.2.9:5070")]], { recordRoute: true });
  },

  onBranch(request, target) {
    if (request.uriUser === "throw-branch") lost("onBranch");
    request.addHeader("X-Hooks", `branch ${target.id}`);
    return "keep";
  },

  onReply(response) {
    if (response.to.user === "throw-reply") lost("onReply");
    response.setVar("hooks", String(Number(response.var("hooks") ?? 0) + 1));
    response.setHeader("X-Hooks", `reply ${response.status} ${response.var("hooks") ?? "-"}`);
    return "forward";
  },

  onFailure(request, failure) {
    if (request.uriUser === "throw-failure") lost("onFailure");
    log.debug(`failed with ${failure.status} ${failure.reason}, ${failure.failed.length} targets`);
    return reply(480, { reason: `Best was ${failure.status}`, headers: [{ name: "X-Failed", value: failure.failed.map((f) => f.uri).join(" ") }] });
  },
});

declare const console: { warn(...parts: unknown[]): void };
