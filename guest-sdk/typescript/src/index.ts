// The SDK for Sipbox policies in TypeScript: README.md shows a policy.

import "./time";
import type { Target, Verdict } from "sipbox:policy/types@0.1.0";
import { describe } from "./errors";
import { log } from "./log";
import { Request, Response } from "./message";

export type {
  Body, Destination, Edit, Header, HostError, Reply, Target, Verdict,
} from "sipbox:policy/types@0.1.0";
export { describe, refusal } from "./errors";
export { log } from "./log";
export { Request, Response, type Party, type TaggedParty } from "./message";
export { now } from "./time";
export {
  drop, forwardStateless, next, redirect, registered, relay, reply, replyStateless, uri,
  type RelayParts, type ReplyParts,
} from "./verdict";

export interface FailedTarget { id: number; uri: string; status: number }

// The best response so far, when all targets have failed.
export interface Failure {
  status: number;
  reason: string;
  failed: FailedTarget[];
  cancelled: boolean;
}

// What a policy is. `S` is what `configure` makes of its settings: the one thing that it keeps
// between calls. An instance serves many calls and may be thrown away between any two of them.
export interface Policy<S> {
  name: string;
  version: string;
  summary: string;
  // Names of variables that all policies of the chain see; others are its own.
  variables?: string[];
  // An exception refuses the settings with its text.
  configure(settings: unknown): S;
  // A Route value of ours came back; it decides nothing.
  onRoute?(request: Request, settings: S): void;
  onRequest?(request: Request, settings: S): Verdict;
  onBranch?(request: Request, target: Target, settings: S): "keep" | "skip";
  onReply?(response: Response, settings: S): "forward" | "drop";
  onFailure?(request: Request, failure: Failure, settings: S): Verdict;
}

// What a policy tells the host of itself.
export interface Description {
  name: string;
  version: string;
  summary: string;
  variables: string[];
}

// The interfaces that a policy's world may export.
export interface Exports {
  lifecycle: { configure(settings: string): Description };
  routeHook: { onRoute(): void };
  requestHook: { onRequest(): Verdict };
  branchHook: { onBranch(target: Target): "keep" | "skip" };
  replyHook: { onReply(): "forward" | "drop" };
  failureHook: { onFailure(failure: Failure): Verdict };
}

// An exception is logged with its text and lines, and ends the call by a trap: the host throws the
// instance away, and the tenant's fallback decides.
function guarded<T>(hook: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    log.error(`${hook}: ${describe(error)}`);
    throw error;
  }
}

// Makes the exports of a policy. Its module exports those that its world names:
// `export const { lifecycle, requestHook } = policy({ ... })`.
export function policy<S>(definition: Policy<S>): Exports {
  let state: { settings: S } | undefined;
  const settings = (): S => {
    if (state === undefined) throw new Error("a hook was called before `configure`");
    return state.settings;
  };
  return {
    lifecycle: {
      configure(text) {
        try {
          state = { settings: definition.configure(JSON.parse(text.trim() || "{}")) };
        } catch (error) {
          // `result<_, string>`: what is thrown is the text.
          throw error instanceof SettingsError ? error.message : describe(error);
        }
        const { name, version, summary, variables = [] } = definition;
        return { name, version, summary, variables };
      },
    },
    routeHook: {
      onRoute: () => guarded("onRoute", () => definition.onRoute?.(new Request(), settings())),
    },
    requestHook: {
      onRequest: () =>
        guarded("onRequest", () =>
          definition.onRequest?.(new Request(), settings()) ?? { tag: "next" }),
    },
    branchHook: {
      onBranch: (target) =>
        guarded("onBranch", () =>
          definition.onBranch?.(new Request(), target, settings()) ?? "keep"),
    },
    replyHook: {
      onReply: () =>
        guarded("onReply", () => definition.onReply?.(new Response(), settings()) ?? "forward"),
    },
    failureHook: {
      onFailure: (failure) =>
        guarded("onFailure", () =>
          definition.onFailure?.(new Request(), failure, settings()) ?? { tag: "next" }),
    },
  };
}

// Refuses settings: the operator reads the text, without the lines of the policy.
export class SettingsError extends Error {
  override name = "SettingsError";
}
