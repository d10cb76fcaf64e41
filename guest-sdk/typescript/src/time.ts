// Clock and randomness. A component without WASI has neither; the time of the call is the host's,
// and randomness would make a call that cannot be replayed.

import call from "sipbox:policy/call@0.1.0";

// Milliseconds since 1970: the time of the call, the same however often it is asked.
export function now(): number {
  const { seconds, milliseconds } = call.now();
  return seconds * 1000 + milliseconds;
}

const Native = Date;

class CallDate extends Native {
  constructor(...parts: unknown[]) {
    if (parts.length === 0) super(now());
    else super(...(parts as [number]));
  }
  static override now(): number {
    return now();
  }
}

globalThis.Date = CallDate as DateConstructor;
Math.random = (): number => {
  throw new Error("Math.random: a policy decides by its message alone; hash the Call-ID instead");
};
