// The contract of wit/policy.wit as componentize-qjs maps it: names in camel case, `option` is
// `undefined` or `null` where there is nothing, `result` returns or throws an error whose `payload` is
// the refusal, a variant is an object with `tag` and `val`.

declare module "sipbox:policy/types@0.1.0" {
  export interface BindingFlags { natted?: boolean; sipping?: boolean; removeOnTimeout?: boolean }
  export type Transport = "udp" | "tcp" | "tls" | "ws" | "wss";
  export type Options = [name: string, value: string][];
  export interface Header { name: string; value: string }
  export interface Body { contentType: string; bytes: Uint8Array }
  export interface Reply {
    status: number;
    reason: string;
    headers: Header[];
    body: Body | null;
    options: Options;
  }
  export interface UriTarget { uri: string; nextHop: string; path: string[]; flow: string }
  export interface SetTarget { name: string; algorithm: string }
  export type Destination =
    | { tag: "uri"; val: UriTarget }
    | { tag: "registered"; val: string }
    | { tag: "set"; val: SetTarget };
  export interface Target { destination: Destination; q: number; id: number; options: Options }
  export interface RelayPlan {
    groups: Target[][];
    ringTimeout: number;
    totalTimeout: number;
    frTimeout: number;
    recordRoute: [name: string, value: string][] | null;
    options: Options;
  }
  export type Verdict =
    | { tag: "next" }
    | { tag: "reply"; val: Reply }
    | { tag: "relay"; val: RelayPlan }
    | { tag: "redirect"; val: Target[] }
    | { tag: "drop" }
    | { tag: "forward-stateless"; val: Target }
    | { tag: "reply-stateless"; val: Reply };
  export type Edit =
    | { tag: "set-header"; val: Header }
    | { tag: "add-header"; val: Header }
    | { tag: "remove-header"; val: string }
    | { tag: "set-request-uri"; val: string }
    | { tag: "set-body"; val: Body };
  export interface HostError {
    tag: "out-of-place" | "malformed" | "protected" | "unknown-option" | "limit" | "unavailable";
    val: string;
  }
}

declare module "sipbox:policy/message@0.1.0" {
  import type { Body, Edit } from "sipbox:policy/types@0.1.0";
  const message: {
    view(): { text: string; index: number[] };
    bytes(): Uint8Array;
    method(): string;
    requestUri(): string;
    status(): number;
    header(name: string): string | null | undefined;
    headers(name: string): string[];
    body(): Uint8Array;
    setHeader(name: string, value: string): void;
    addHeader(name: string, value: string): void;
    removeHeader(name: string): void;
    setRequestUri(uri: string): void;
    setBody(body: Body): void;
    apply(edits: Edit[]): void;
  };
  export default message;
}

declare module "sipbox:policy/call@0.1.0" {
  import type { Transport } from "sipbox:policy/types@0.1.0";
  export type RouteResult = "none" | "loose" | "strict" | "preloaded" | "foreign";
  export type SignatureResult = "none" | "valid" | "invalid" | "expired";
  export interface Hooks { branch?: boolean; reply?: boolean; failure?: boolean }
  export interface SourceClass {
    diffPortSrcVia?: boolean;
    diffIpSrcVia?: boolean;
    privateContact?: boolean;
    privateSdp?: boolean;
    privateVia?: boolean;
    diffIpSrcContact?: boolean;
    diffPortSrcContact?: boolean;
    carrierGradeNat?: boolean;
    privateSource?: boolean;
    loopback?: boolean;
    ipv6?: boolean;
  }
  const call: {
    source(): { address: string; port: number; transport: Transport };
    listener(): string;
    tenant(): string;
    now(): { seconds: number; milliseconds: number };
    inDialog(): boolean;
    direction(): "unknown" | "downstream" | "upstream";
    routeOutcome(): RouteResult;
    routeSignature(): SignatureResult;
    routeParam(name: string): string | null | undefined;
    routeParams(): string;
    checkRouteParam(pattern: string): boolean;
    recordRoute(params: [name: string, value: string][]): void;
    recordRoutePreset(outbound: string, inbound: string | null): void;
    addRouteParam(name: string, value: string): void;
    authenticatedUser(): string | null | undefined;
    var(name: string): string | null | undefined;
    setVar(name: string, value: string): void;
    classifySource(asked: SourceClass): SourceClass;
    arm(hooks: Hooks): void;
  };
  export default call;
}

declare module "sipbox:policy/log@0.1.0" {
  export type Level = "trace" | "debug" | "info" | "warn" | "error";
  const log: { log(level: Level, text: string): void };
  export default log;
}

declare module "sipbox:policy/auth@0.1.0" {
  import type { Options } from "sipbox:policy/types@0.1.0";
  export interface Realm {
    name: string;
    proxy: boolean;
    algorithms: ("md5" | "sha256")[];
    options: Options;
  }
  export type Outcome =
    | { tag: "none" }
    | { tag: "authenticated"; val: string }
    | { tag: "stale" }
    | { tag: "refused" }
    | { tag: "throttled" };
  const auth: { check(realm: Realm): Outcome; challenge(realm: Realm): void };
  export default auth;
}

declare module "sipbox:policy/location@0.1.0" {
  import type { BindingFlags, Options } from "sipbox:policy/types@0.1.0";
  export interface Binding {
    contact: string;
    q: number;
    expires: number;
    path: string[];
    received: string;
    flow: string;
    instance: string;
    userAgent: string;
    flags: BindingFlags;
  }
  export interface SaveLimits {
    minExpires: number;
    maxExpires: number;
    defaultExpires: number;
    maxContacts: number;
    options: Options;
  }
  export type SaveOutcome =
    | { tag: "saved"; val: number }
    | { tag: "queried"; val: number }
    | { tag: "refused"; val: number };
  const location: {
    lookup(aor: string): Binding[];
    save(aor: string, limits: SaveLimits): SaveOutcome;
    remove(aor: string): number;
  };
  export default location;
}

declare module "sipbox:policy/nat@0.1.0" {
  import type { BindingFlags } from "sipbox:policy/types@0.1.0";
  export interface SdpFixes {
    addDirActive?: boolean;
    rewriteMediaIp?: boolean;
    addNoRtpproxy?: boolean;
    rewriteOriginIp?: boolean;
    rewriteNullIps?: boolean;
    oldipSkip?: boolean;
  }
  const nat: {
    forceRport(): void;
    fixNatedContact(params: string, preserveUri: boolean): void;
    restoreNatedRuri(): boolean;
    fixNatedRegister(): void;
    setBindingFlags(marks: BindingFlags): void;
    fixNatedSdp(fixes: SdpFixes, address: string, fields: string): void;
    addRcvParam(inUri: boolean): void;
  };
  export default nat;
}

declare module "sipbox:policy/dialogs@0.1.0" {
  import type { Header, Options } from "sipbox:policy/types@0.1.0";
  export interface CreateFlags {
    byeOnTimeout?: boolean;
    optionsPingCaller?: boolean;
    optionsPingCallee?: boolean;
    endOnRaceCondition?: boolean;
  }
  export type DialogState = "unconfirmed" | "early" | "confirmed-no-ack" | "confirmed" | "deleted";
  export type Party = "unknown" | "caller" | "callee";
  export interface Dialog {
    id: string;
    state: DialogState;
    sender: Party;
    lifetime: number;
    timeout: number;
  }
  export type Validity = "valid" | "cseq" | "remote-target" | "route-set" | "other";
  const dialogs: {
    createDialog(create: CreateFlags, options: Options): boolean;
    current(): Dialog | null | undefined;
    storeDlgValue(name: string, value: string): void;
    fetchDlgValue(name: string): string | null | undefined;
    setDlgFlag(flag: string): void;
    resetDlgFlag(flag: string): void;
    isDlgFlagSet(flag: string): boolean;
    testAndSetDlgFlag(flag: string, value: boolean): boolean;
    setDlgProfile(profile: string, value: string, clearValues: boolean): void;
    unsetDlgProfile(profile: string, value: string): void;
    isInProfile(profile: string, value: string): boolean;
    getProfileSize(profile: string, value: string): number;
    setDlgTimeout(seconds: number): void;
    validateDialog(): Validity;
    endDialog(extra: Header[]): void;
  };
  export default dialogs;
}

declare module "sipbox:policy/leases@0.1.0" {
  export type Outcome = { tag: "granted"; val: number } | { tag: "full"; val: number };
  export interface Place { scope: string; key: string; limit: number }
  export type AllOutcome = { tag: "granted" } | { tag: "full"; val: number };
  const leases: {
    acquire(scope: string, key: string, limit: number): Outcome;
    acquireAll(places: Place[]): AllOutcome;
    release(lease: number): void;
    held(scope: string, key: string): number;
  };
  export default leases;
}

declare module "sipbox:policy/kv@0.1.0" {
  export interface Entry {
    value: Uint8Array;
    version: number;
    ttl: number;
  }
  export type Swap =
    | { tag: "stored"; val: number }
    | { tag: "differs"; val: Entry | null | undefined }
    | { tag: "busy" };
  const kv: {
    get(key: string): Entry | null | undefined;
    set(key: string, value: Uint8Array, ttl: number): void;
    remove(key: string): boolean;
    compareAndSet(key: string, expected: number | null, value: Uint8Array, ttl: number): Swap;
  };
  export default kv;
}

declare module "sipbox:policy/counters@0.1.0" {
  export type Outcome = { tag: "taken"; val: number } | { tag: "over"; val: number };
  const counters: {
    add(name: string, key: string, by: number, window: number): number;
    take(name: string, key: string, by: number, window: number, limit: number): Outcome;
    read(name: string, key: string, window: number): number;
    reset(name: string, key: string, window: number): void;
    sequence(name: string): number;
  };
  export default counters;
}
