//! The quick reader against the grammars, and what it must read.

use super::*;

#[test]
fn ordinary_values_need_no_grammar() {
    for text in [
        "sip:bob@example.org",
        "sips:bob@example.org:5061;transport=tls;lr",
        "sip:192.0.2.1:5060",
        "sip:[2001:db8::1]:5060;lr",
        "sip:+4930123@10.0.0.1;user=phone",
        "sip:example.org.",
    ] {
        let read = uri(text.as_bytes()).unwrap_or_else(|| panic!("{text}"));
        assert_eq!(Ok(read), Uri::by_grammar(text.as_bytes()), "{text}");
    }
    for text in [
        "<sip:bob@example.org>",
        "sipp <sip:bob@example.org>;tag=1",
        "Bob B. <sip:bob@example.org>",
        "\"Alice A.\" <sip:alice@example.org>;tag=9fxced76sl",
        "<sip:a@b>;expires=60;+sip.instance=\"<urn:uuid:0C67446E>\";tag=x;TAG=y",
    ] {
        let read = address(text.as_bytes()).unwrap_or_else(|| panic!("{text}"));
        assert_eq!(Ok(read), NameAddr::by_grammar(text.as_bytes()), "{text}");
    }
    for text in [
        "SIP/2.0/UDP pc33.atlanta.com;branch=z9hG4bKnashds8",
        "SIP/2.0/TCP 192.0.2.1:5060;branch=z9hG4bK77ef4c;rport;received=192.0.2.207",
        "SIP/2.0/UDP [2001:db8::9:1]:5060;received=2001:db8::1;branch=z9hG4bK-1",
    ] {
        let read = via(text.as_bytes()).unwrap_or_else(|| panic!("{text}"));
        assert_eq!(Ok(read), Via::by_grammar(text.as_bytes()), "{text}");
    }
}

#[test]
fn an_address_of_record_is_a_user_and_a_host() {
    for (text, is) in [
        ("bob@example.org", true),
        ("b.o-b+1@192.0.2.1", true),
        ("bob@[::1]", true),
        ("bob@example.org;x", false),
        ("bob@example.org:5060", false),
        ("@example.org", false),
        ("example.org", false),
        ("a@b@c", false),
        ("a%41@b", false),
    ] {
        assert_eq!(is_user_at_host(text.as_bytes()), is, "{text}");
    }
}

#[test]
fn addresses_are_read_as_the_library_reads_them() {
    let mut texts = Texts(0x5151);
    for _ in 0..20_000 {
        let mut text = String::new();
        for _ in 0..9 {
            text.push_str(texts.pick(&["1", ".", ".", "0", "25", "255", "256", "9", "", "a"]));
        }
        assert_eq!(ipv4(text.as_bytes()), text.parse().ok(), "{text}");
    }
}

/// Texts put together from pieces at random: ordinary ones and broken ones.
struct Texts(u64);

impl Texts {
    fn pick<'a>(&mut self, pieces: &[&'a str]) -> &'a str {
        // Xorshift: the same texts in every run.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        // The first is the ordinary one; half of the time it is taken.
        let at = (self.0 >> 33) as usize % (2 * pieces.len());
        pieces
            .get(at)
            .or(pieces.first())
            .copied()
            .unwrap_or_default()
    }

    fn uri(&mut self) -> String {
        let scheme = self.pick(&["sip:", "sip:", "sip:", "sips:", "SIP:", "tel:", ""]);
        let user = self.pick(&[
            "",
            "bob@",
            "b.o-b@",
            "+49(30)1@",
            "a%41@",
            "a:b@",
            "@",
            "a@b@",
            "a;b@",
            "a?b@",
            "a=1@",
            "\u{e4}@",
        ]);
        let host = self.pick(&[
            "example.org",
            "a",
            "a.",
            ".",
            "a..b",
            ".a",
            "-",
            "_x.y",
            "192.0.2.1",
            "1.2.3",
            "256.1.1.1",
            "1.2.3.4.",
            "[::1]",
            "",
            "01.2.3.4",
            "ex%61mple.org",
        ]);
        let port = self.pick(&["", "", ":5060", ":0", ":65536", ":", ":00005060", ":5a"]);
        let tail = self.pick(&[
            "",
            "",
            ";lr",
            ";transport=tcp;lr",
            ";",
            ";;lr",
            ";=x",
            ";a==b",
            ";x=%41",
            "?a=b",
            ";m=a@b",
            " ",
            ";a=<b>",
            ";a=\"b\"",
        ]);
        format!("{scheme}{user}{host}{port}{tail}")
    }

    fn address(&mut self) -> String {
        let display = self.pick(&[
            "",
            "",
            "\"Alice A.\" ",
            "\"\"",
            "\"a\"  ",
            "Bob ",
            "\"a\\\"b\" ",
            "\"open ",
            "\"<a>\"",
            "\"t\"\t",
        ]);
        let uri = self.uri();
        let (open, close) = if self.pick(&["y", "y", "y", "n"]) == "y" {
            ("<", ">")
        } else {
            ("", "")
        };
        let mut text = format!("{display}{open}{uri}{close}");
        for _ in 0..2 {
            text.push_str(self.pick(&[
                "",
                "",
                ";tag=1x",
                ";TAG=y",
                ";tag",
                ";tag=",
                ";a=\"b;c\"",
                ";a=\"b\\\"c\"",
                ";=x",
                ";",
                " ;tag=z",
                ";tag = z",
                ";a=[::1]",
                ";a=b,c",
                ",<sip:x@y>",
                "x",
                ";tag=\"q\"",
            ]));
        }
        text
    }

    fn via(&mut self) -> String {
        let sent = self.pick(&[
            "SIP/2.0/UDP ",
            "SIP/2.0/UDP ",
            "SIP/2.0/TCP  ",
            "SIP / 2.0 / UDP ",
            "sip/2.0/x-y ",
            "SIP/2.0/UDP",
            "SIP//UDP ",
            "/2.0/UDP ",
            "SIP/2.0 ",
        ]);
        let host = self.pick(&[
            "example.org",
            "192.0.2.1",
            "a..b",
            "[2001:db8::1]",
            "[::",
            "1.2.3",
            "a_b",
            "",
            "h\u{e4}",
        ]);
        let port = self.pick(&["", ":5060", ":0", " : 5060", ":", ":70000", ":000005060"]);
        let mut text = format!("{sent}{host}{port}");
        for _ in 0..3 {
            text.push_str(self.pick(&[
                "",
                ";branch=z9hG4bK1",
                ";rport",
                ";received=2001:db8::1",
                ";a=\"b;c\"",
                "; rport",
                ";",
                ";=x",
                ";a=",
                ";a=b/c?d",
                ";a=\"",
                ",",
                ";a b",
            ]));
        }
        text
    }
}

/// Whatever is read here, the grammar reads in the same way; and most of what is
/// ordinary is read here.
#[test]
fn both_ways_say_the_same() {
    let mut texts = Texts(0x9e37_79b9_7f4a_7c15);
    let mut ordinary = [0; 3];
    for _ in 0..50_000 {
        let text = texts.uri();
        if let Some(read) = uri(text.as_bytes()) {
            assert_eq!(Ok(read), Uri::by_grammar(text.as_bytes()), "{text}");
            ordinary[0] += 1;
        }
        let text = texts.address();
        if let Some(read) = address(text.as_bytes()) {
            assert_eq!(Ok(read), NameAddr::by_grammar(text.as_bytes()), "{text}");
            assert_eq!(Ok(read.uri), Uri::by_grammar(read.uri.raw), "{text}");
            ordinary[1] += 1;
        }
        let text = texts.via();
        if let Some(read) = via(text.as_bytes()) {
            assert_eq!(Ok(read), Via::by_grammar(text.as_bytes()), "{text}");
            ordinary[2] += 1;
        }
    }
    assert!(ordinary.iter().all(|n| *n > 2_000), "{ordinary:?}");
}

/// One byte of an ordinary value replaced by any other: the readers agree on
/// each byte's class.
#[test]
fn both_ways_agree_on_every_byte() {
    for text in [
        "sip:b@c.d:5;e=f",
        "\"a b\" <sip:c@d.e;f=g>;h=i;j",
        "ab c <sip:d@1.2.3.4>;e=\"f\"",
        "SIP/2.0/UDP a.b:5060;branch=c;d",
        "SIP/2.0/TCP [::1];e=\"f\"",
    ] {
        for at in 0..text.len() {
            for byte in 0..=255u8 {
                let mut bytes = text.as_bytes().to_vec();
                bytes[at] = byte;
                let shown = String::from_utf8_lossy(&bytes);
                if let Some(read) = uri(&bytes) {
                    assert_eq!(Ok(read), Uri::by_grammar(&bytes), "{shown}");
                }
                let value = lex::trim(&bytes);
                if let Some(read) = address(value) {
                    assert_eq!(Ok(read), NameAddr::by_grammar(value), "{shown}");
                    assert_eq!(Ok(read.uri), Uri::by_grammar(read.uri.raw), "{shown}");
                }
                if let Some(read) = via(value) {
                    assert_eq!(Ok(read), Via::by_grammar(value), "{shown}");
                }
            }
        }
    }
}
