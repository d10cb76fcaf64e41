// The message of this call, as request or as response.

import host from "sipbox:policy/message@0.1.0";
import call, { type Hooks, type RouteResult, type SignatureResult, type SourceClass } from "sipbox:policy/call@0.1.0";
import type { Body, Edit, Transport } from "sipbox:policy/types@0.1.0";
import { id, View } from "./view";

// From, To or the first Contact. What the message lacks is undefined.
export interface Party {
  readonly uri: string | undefined;
  readonly user: string | undefined;
  readonly host: string | undefined;
  readonly port: number | undefined;
}

export interface TaggedParty extends Party {
  readonly tag: string | undefined;
  readonly display: string | undefined;
}

const number = (text: string | undefined): number | undefined =>
  text === undefined ? undefined : Number(text);

// The parts of a URI, as the host's reader finds them: it has refused what is ill-formed.
interface UriParts { scheme: string; user?: string; host: string; port?: number; params: string }

function uriParts(uri: string): UriParts {
  const colon = uri.indexOf(":");
  const scheme = uri.slice(0, colon);
  const query = uri.indexOf("?", uri.indexOf("@") + 1);
  const rest = uri.slice(colon + 1, query < 0 ? undefined : query);
  const at = rest.indexOf("@");
  const semicolon = rest.indexOf(";", at + 1);
  const place = rest.slice(at + 1, semicolon < 0 ? undefined : semicolon);
  const params = semicolon < 0 ? "" : rest.slice(semicolon + 1);
  if (scheme.toLowerCase() === "tel") return { scheme, user: place, host: "", params };
  const behind = place.indexOf(":", place.lastIndexOf("]") + 1);
  const parts: UriParts = { scheme, host: behind < 0 ? place : place.slice(0, behind), params };
  // The password is nobody's business.
  if (at >= 0) parts.user = rest.slice(0, at).split(":", 1)[0] ?? "";
  if (behind >= 0) parts.port = Number(place.slice(behind + 1));
  return parts;
}

// From or To: a URI in angle brackets behind a name, or one that ends where parameters begin.
class Address implements TaggedParty {
  readonly uri: string;
  readonly display: string | undefined;
  readonly tag: string | undefined;
  #parts: UriParts | undefined;

  constructor(field: string) {
    const named = /^\s*("(?:[^"\\]|\\.)*"|[^"<]*?)\s*<([^>]*)>(.*)$/s.exec(field);
    const bare = field.indexOf(";");
    this.uri = named?.[2] ?? field.slice(0, bare < 0 ? undefined : bare).trim();
    this.display = named?.[1] || undefined;
    const params = named?.[3] ?? (bare < 0 ? "" : field.slice(bare));
    this.tag = /;\s*tag\s*=\s*([^;\s]+)/i.exec(params)?.[1];
  }
  get #uriParts(): UriParts {
    return (this.#parts ??= uriParts(this.uri));
  }
  get user(): string | undefined {
    return this.#uriParts.user;
  }
  get host(): string | undefined {
    return this.#uriParts.host;
  }
  get port(): number | undefined {
    return this.#uriParts.port;
  }
}

// What requests and responses have in common. Fields are asked of the host one by one: an interpreter
// takes longer to read the whole view than to make ten calls.
class Message {
  #view: View | undefined;
  #from: Address | undefined;
  #to: Address | undefined;

  // The first text of an id of the view (wit/README.md).
  text(id: number): string | undefined {
    this.#view ??= new View();
    return this.#view.text(id);
  }

  // The first field of that name, compact forms included, folds removed.
  header(name: string): string | undefined {
    return host.header(name) ?? undefined;
  }
  headers(name: string): string[] {
    return host.headers(name);
  }
  get body(): Uint8Array {
    return host.body();
  }

  get from(): TaggedParty {
    return (this.#from ??= new Address(this.header("From") ?? ""));
  }
  get to(): TaggedParty {
    return (this.#to ??= new Address(this.header("To") ?? ""));
  }
  get contact(): Party {
    return {
      uri: this.text(id.contactUri),
      user: this.text(id.contactUser),
      host: this.text(id.contactHost),
      port: number(this.text(id.contactPort)),
    };
  }
  get callId(): string {
    return this.header("Call-ID") ?? "";
  }
  get cseq(): { number: number; method: string } {
    const [count, method] = (this.header("CSeq") ?? "").trim().split(/\s+/);
    return { number: Number(count), method: method ?? "" };
  }

  get source(): { address: string; port: number; transport: Transport } {
    return call.source();
  }
  /** Which of these facts hold of the addresses in the message and its source. */
  sourceClass(asked: SourceClass): SourceClass {
    return call.classifySource(asked);
  }
  get listener(): string {
    return call.listener();
  }
  get tenant(): string {
    return call.tenant();
  }
  get inDialog(): boolean {
    return call.inDialog();
  }
  get direction(): "unknown" | "downstream" | "upstream" {
    return call.direction();
  }
  get authenticatedUser(): string | undefined {
    return call.authenticatedUser() ?? undefined;
  }

  // Variables of the transaction: set in one hook, seen in the later ones.
  var(name: string): string | undefined {
    return call.var(name) ?? undefined;
  }
  setVar(name: string, value: string): void {
    call.setVar(name, value);
  }

  // Changes show from the next policy on. A refusal throws; `refusal(error)` says why.
  setHeader(name: string, value: string): void {
    host.setHeader(name, value);
  }
  addHeader(name: string, value: string): void {
    host.addHeader(name, value);
  }
  removeHeader(name: string): void {
    host.removeHeader(name);
  }
  setBody(body: Body): void {
    host.setBody(body);
  }
  // All of them, or none.
  apply(edits: Edit[]): void {
    host.apply(edits);
  }
}

// The request, in `onRequest`, `onBranch` and `onFailure`.
export class Request extends Message {
  #uri: string | undefined;
  #parts: UriParts | undefined;

  get method(): string {
    return host.method();
  }
  get uri(): string {
    return (this.#uri ??= host.requestUri());
  }
  get uriScheme(): string {
    return this.#uriParts.scheme;
  }
  // Escapes as written, without the password; of a `tel` URI the number.
  get uriUser(): string | undefined {
    return this.#uriParts.user;
  }
  get uriHost(): string {
    return this.#uriParts.host;
  }
  get uriPort(): number | undefined {
    return this.#uriParts.port;
  }
  get uriParams(): string {
    return this.#uriParts.params;
  }
  get #uriParts(): UriParts {
    return (this.#parts ??= uriParts(this.uri));
  }

  get routeOutcome(): RouteResult {
    return call.routeOutcome();
  }
  get routeSignature(): SignatureResult {
    return call.routeSignature();
  }
  // Parameters of the Route value that was ours: one, or all as received.
  routeParam(name: string): string | undefined {
    return call.routeParam(name) ?? undefined;
  }
  get routeParams(): string {
    return call.routeParams();
  }
  checkRouteParam(pattern: string): boolean {
    return call.checkRouteParam(pattern);
  }
  // Asks for a Record-Route, whoever decides.
  recordRoute(params: [name: string, value: string][] = []): void {
    call.recordRoute(params);
  }
  addRouteParam(name: string, value: string): void {
    call.addRouteParam(name, value);
  }

  setUri(uri: string): void {
    host.setRequestUri(uri);
  }
  // Asks for later hooks of this transaction.
  arm(hooks: Hooks): void {
    call.arm(hooks);
  }
}

// The response, in `onReply`.
export class Response extends Message {
  get status(): number {
    return host.status();
  }
}
