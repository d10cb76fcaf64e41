//! STUN binding requests on a SIP port: the keep-alive of a UDP flow (RFC 5626
//! sections 4.4.2 and 8), which also tells the client its outside address.
//!
//! Only what that usage takes of RFC 5389: no credentials, no other method.

use std::net::{IpAddr, SocketAddr};

const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const BINDING_REQUEST: u16 = 0x0001;
const BINDING_SUCCESS: u16 = 0x0101;
const BINDING_ERROR: u16 = 0x0111;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
const ERROR_CODE: u16 = 0x0009;
const UNKNOWN_ATTRIBUTES: u16 = 0x000a;
const HEADER: usize = 20;
/// Room for the longest answer: an error with [`MAX_UNKNOWN`] attributes named.
const MAX_ANSWER: usize = 64;
const MAX_UNKNOWN: usize = 8;
/// USERNAME and MESSAGE-INTEGRITY: a server that asks for no credentials lets
/// them pass.
const TOLERATED: [u16; 2] = [0x0006, 0x0008];

/// An answer, ready to be sent.
pub(crate) struct Answer {
    bytes: [u8; MAX_ANSWER],
    len: usize,
}

impl Answer {
    fn new() -> Self {
        Self {
            bytes: [0; MAX_ANSWER],
            len: 0,
        }
    }

    fn put(&mut self, part: &[u8]) {
        let end = self.len + part.len();
        if let Some(room) = self.bytes.get_mut(self.len..end) {
            room.copy_from_slice(part);
            self.len = end;
        }
    }

    fn header(&mut self, kind: u16, attributes: usize, transaction: &[u8]) {
        self.put(&kind.to_be_bytes());
        self.put(&u16::try_from(attributes).unwrap_or(u16::MAX).to_be_bytes());
        self.put(&MAGIC_COOKIE);
        self.put(transaction);
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

/// What a datagram is to STUN.
pub(crate) enum Stun {
    /// Not STUN at all.
    No,
    /// STUN, but nothing that is answered.
    Ignored,
    /// A binding request and its answer.
    Answer(Answer),
}

/// Recognises STUN and answers a binding request from `peer`.
pub(crate) fn classify(datagram: &[u8], peer: SocketAddr) -> Stun {
    // RFC 5389 section 6: two zero bits, the cookie, a length in whole words.
    // A SIP message starts with a letter, so one comparison settles most.
    let Some((head, attributes)) = datagram.split_first_chunk::<HEADER>() else {
        return Stun::No;
    };
    let [t0, t1, l0, l1, c0, c1, c2, c3, transaction @ ..] = head;
    if *t0 > 3 || [*c0, *c1, *c2, *c3] != MAGIC_COOKIE {
        return Stun::No;
    }
    let length = usize::from(u16::from_be_bytes([*l0, *l1]));
    if length != attributes.len() || !length.is_multiple_of(4) {
        return Stun::Ignored;
    }
    if u16::from_be_bytes([*t0, *t1]) != BINDING_REQUEST {
        return Stun::Ignored;
    }
    let Some(unknown) = unknown_attributes(attributes) else {
        return Stun::Ignored;
    };
    let mut answer = Answer::new();
    if unknown.is_empty() {
        success(&mut answer, transaction, peer);
    } else {
        refusal(&mut answer, transaction, &unknown);
    }
    Stun::Answer(answer)
}

/// The attributes that the sender demands us to understand (RFC 5389 section
/// 15: those below 0x8000) and we do not; `None` if the list is ill-formed.
fn unknown_attributes(mut rest: &[u8]) -> Option<smallvec::SmallVec<[u16; MAX_UNKNOWN]>> {
    let mut unknown = smallvec::SmallVec::new();
    while let Some(([k0, k1, l0, l1], value)) = rest.split_first_chunk::<4>() {
        let kind = u16::from_be_bytes([*k0, *k1]);
        let padded = usize::from(u16::from_be_bytes([*l0, *l1])).next_multiple_of(4);
        rest = value.get(padded..)?;
        if kind < 0x8000 && !TOLERATED.contains(&kind) && unknown.len() < MAX_UNKNOWN {
            unknown.push(kind);
        }
    }
    rest.is_empty().then_some(unknown)
}

/// RFC 5389 section 15.2: the address is masked so that meddling NATs leave it.
fn success(answer: &mut Answer, transaction: &[u8], peer: SocketAddr) {
    let [m0, m1, ..] = MAGIC_COOKIE;
    let port = (peer.port() ^ u16::from_be_bytes([m0, m1])).to_be_bytes();
    // An IPv4 peer of an IPv6 socket would come in mapped form.
    let (family, length) = match peer.ip().to_canonical() {
        IpAddr::V4(_) => (1u8, 8u16),
        IpAddr::V6(_) => (2, 20),
    };
    answer.header(BINDING_SUCCESS, usize::from(length) + 4, transaction);
    answer.put(&XOR_MAPPED_ADDRESS.to_be_bytes());
    answer.put(&length.to_be_bytes());
    answer.put(&[0, family]);
    answer.put(&port);
    let mask = MAGIC_COOKIE.iter().chain(transaction);
    match peer.ip().to_canonical() {
        IpAddr::V4(v4) => v4
            .octets()
            .iter()
            .zip(mask)
            .for_each(|(a, m)| answer.put(&[a ^ m])),
        IpAddr::V6(v6) => v6
            .octets()
            .iter()
            .zip(mask)
            .for_each(|(a, m)| answer.put(&[a ^ m])),
    }
}

/// RFC 5389 section 7.3.1: 420 with the attributes named.
fn refusal(answer: &mut Answer, transaction: &[u8], unknown: &[u16]) {
    const REASON: &[u8; 8] = b"Unknown ";
    let named = unknown.len() * 2;
    let error = 4 + 4 + REASON.len();
    answer.header(
        BINDING_ERROR,
        error + 4 + named.next_multiple_of(4),
        transaction,
    );
    answer.put(&ERROR_CODE.to_be_bytes());
    answer.put(&(4 + 7u16).to_be_bytes());
    answer.put(&[0, 0, 4, 20]);
    // Seven letters and a byte of padding.
    answer.put(REASON);
    answer.put(&UNKNOWN_ATTRIBUTES.to_be_bytes());
    answer.put(&u16::try_from(named).unwrap_or(u16::MAX).to_be_bytes());
    for kind in unknown {
        answer.put(&kind.to_be_bytes());
    }
    if !named.is_multiple_of(4) {
        answer.put(&[0, 0]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 5769 section 2.1's transaction id.
    const TRANSACTION: [u8; 12] = [
        0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae,
    ];

    fn request(attributes: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0, 1];
        bytes.extend((attributes.len() as u16).to_be_bytes());
        bytes.extend(MAGIC_COOKIE);
        bytes.extend(TRANSACTION);
        bytes.extend(attributes);
        bytes
    }

    fn answer(bytes: &[u8], peer: &str) -> Option<Vec<u8>> {
        match classify(bytes, peer.parse().unwrap()) {
            Stun::Answer(answer) => Some(answer.as_bytes().to_vec()),
            Stun::No | Stun::Ignored => None,
        }
    }

    #[test]
    fn tells_the_outside_address_as_rfc_5769_encodes_it() {
        // The addresses and their masked forms are those of RFC 5769 2.2 and 2.3.
        for (peer, masked) in [
            ("192.0.2.1:32853", "0001a147e112a643"),
            (
                "[2001:db8:1234:5678:11:2233:4455:6677]:32853",
                "0002a1470113a9faa5d3f179bc25f4b5bed2b9d9",
            ),
        ] {
            let answer = answer(&request(&[]), peer).unwrap();
            let hex: String = answer[24..].iter().map(|b| format!("{b:02x}")).collect();
            assert_eq!(hex, masked, "{peer}");
            assert_eq!(answer[..2], BINDING_SUCCESS.to_be_bytes());
            assert_eq!(answer[8..20], TRANSACTION);
            assert_eq!(usize::from(answer[3]), answer.len() - 20);
        }
    }

    #[test]
    fn names_attributes_that_it_must_understand_and_does_not() {
        // CHANGE-REQUEST of RFC 3489, and a SOFTWARE attribute that may be ignored.
        let attributes = [
            0, 3, 0, 4, 0, 0, 0, 6, 0x80, 0x22, 0, 3, b'a', b'b', b'c', 0,
        ];
        let answer = answer(&request(&attributes), "192.0.2.1:5060").unwrap();
        assert_eq!(answer[..2], BINDING_ERROR.to_be_bytes());
        assert_eq!(answer[20..36], *b"\0\x09\0\x0b\0\0\x04\x14Unknown ");
        assert_eq!(answer[36..], [0, 0x0a, 0, 2, 0, 3, 0, 0]);
        assert_eq!(usize::from(answer[3]), answer.len() - 20);
    }

    #[test]
    fn many_unknown_attributes_still_fit() {
        let attributes: Vec<u8> = (0..40u8).flat_map(|n| [0x10, n, 0, 0]).collect();
        let answer = answer(&request(&attributes), "192.0.2.1:5060").unwrap();
        assert_eq!(usize::from(answer[3]), answer.len() - 20);
    }

    #[test]
    fn leaves_what_is_no_binding_request() {
        let ok = request(&[]);
        let mut cases: Vec<(&str, Vec<u8>)> = vec![
            ("sip", b"OPTIONS sip:a@b SIP/2.0\r\n\r\n".to_vec()),
            ("too short", ok[..19].to_vec()),
            ("longer than it says", [&ok[..], &[0, 0, 0, 0]].concat()),
            (
                "attribute past the end",
                request(&[0x80, 0x22, 0, 9, 1, 2, 3, 4]),
            ),
        ];
        let mut indication = ok.clone();
        indication[1] = 0x11;
        cases.push(("indication", indication));
        let mut response = ok.clone();
        response[0] = 1;
        cases.push(("response", response));
        let mut cookie = ok;
        cookie[4] = 0;
        cases.push(("old cookie", cookie));
        for (name, bytes) in cases {
            assert!(answer(&bytes, "192.0.2.1:5060").is_none(), "{name}");
        }
    }
}
