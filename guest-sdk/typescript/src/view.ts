// The message in one crossing: bytes, and an index of ids, offsets and lengths over them. The ids
// are those of wit/README.md.

import message from "sipbox:policy/message@0.1.0";

export const id = { contactUri: 40, contactUser: 41, contactHost: 42, contactPort: 43 } as const;

export class View {
  readonly #bytes: Uint8Array;
  readonly #index: number[];

  constructor() {
    const { bytes, index } = message.view();
    this.#bytes = bytes;
    this.#index = index;
  }

  // The first text of that id. Bytes that are not UTF-8 become `?`.
  text(id: number): string | undefined {
    const index = this.#index;
    for (let at = 0; at + 2 < index.length; at += 3) {
      if (index[at] === id) return decode(this.#bytes, index[at + 1] ?? 0, index[at + 2] ?? 0);
    }
    return undefined;
  }
}

function decode(bytes: Uint8Array, from: number, length: number): string {
  let text = "";
  let at = from;
  const end = Math.min(from + length, bytes.length);
  while (at < end) {
    const first = bytes[at] ?? 0;
    const more = first < 0x80 ? 0 : first >= 0xf0 ? 3 : first >= 0xe0 ? 2 : first >= 0xc2 ? 1 : -1;
    let point = more <= 0 ? first : first & (0x3f >> more);
    let good = more >= 0 && first < 0xf5 && at + more < end;
    for (let n = 1; good && n <= more; n++) {
      const next = bytes[at + n] ?? 0;
      good = (next & 0xc0) === 0x80;
      point = (point << 6) | (next & 0x3f);
    }
    good &&= point <= 0x10ffff && (point < 0xd800 || point > 0xdfff);
    good &&= point >= (more === 3 ? 0x10000 : more === 2 ? 0x800 : 0);
    text += good ? String.fromCodePoint(point) : "?";
    at += good ? more + 1 : 1;
  }
  return text;
}
