// The message in one crossing: a text, and an index of ids, offsets and lengths over it, counted in bytes
// of UTF-8. The ids are those of wit/README.md.

import message from "sipbox:policy/message@0.1.0";

export const id = { contactUri: 40, contactUser: 41, contactHost: 42, contactPort: 43 } as const;

export class View {
  readonly #text: string;
  readonly #index: number[];
  // Then offsets of bytes are those of characters.
  readonly #ascii: boolean;

  constructor() {
    const { text, index } = message.view();
    this.#text = text;
    this.#index = index;
    this.#ascii = !/[^\x00-\x7f]/.test(text);
  }

  // The first text of that id.
  text(id: number): string | undefined {
    const index = this.#index;
    for (let at = 0; at + 2 < index.length; at += 3) {
      const length = index[at + 2] ?? 0;
      // A part of the length 0 is missing; a header field is empty.
      if (index[at] === id && (length > 0 || id >= 128)) return this.#part(index[at + 1] ?? 0, length);
    }
    return undefined;
  }

  #part(offset: number, length: number): string {
    if (this.#ascii) return this.#text.substr(offset, length);
    const from = character(this.#text, 0, offset);
    return this.#text.slice(from, character(this.#text, from, length));
  }
}

// The place of the character so many bytes behind the one at `from`.
function character(text: string, from: number, bytes: number): number {
  let at = from;
  for (let left = bytes; left > 0 && at < text.length; at++) {
    const code = text.charCodeAt(at);
    // Two units of two bytes each make a character of four.
    const surrogate = code >= 0xd800 && code <= 0xdfff;
    left -= code < 0x80 ? 1 : code < 0x800 || surrogate ? 2 : 3;
  }
  return at;
}
