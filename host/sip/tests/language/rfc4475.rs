//! Each message of RFC 4475 against the table that the end-to-end test reads too.

use std::fs;
use std::path::PathBuf;

use sipbox_sip::validate::{Limits, check};
use sipbox_sip::{EditList, HeaderId, Index, Message, ParseError};

#[derive(serde::Deserialize)]
struct Table {
    message: Vec<Row>,
}

#[derive(serde::Deserialize)]
struct Row {
    file: String,
    section: String,
    kind: String,
    outcome: Outcome,
    layer: String,
    registrar: Option<u16>,
    note: String,
}

#[derive(serde::Deserialize, PartialEq, Debug)]
#[serde(untagged)]
enum Outcome {
    Status(u16),
    Word(String),
}

fn corpus() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/corpus"))
}

fn table() -> Vec<Row> {
    let text = fs::read_to_string(corpus().join("rfc4475.toml")).unwrap();
    toml::from_str::<Table>(&text).unwrap().message
}

fn bytes(row: &Row) -> Vec<u8> {
    fs::read(corpus().join("rfc4475").join(&row.file)).unwrap()
}

fn judge(bytes: &[u8]) -> Outcome {
    let mut index = Index::new();
    let Ok(message) = Message::parse(bytes, &mut index) else {
        return Outcome::Word("drop".into());
    };
    match check(message, &Limits::default()) {
        Ok(_) => Outcome::Word("forward".into()),
        Err(fault) if fault.answerable => Outcome::Status(fault.status),
        Err(_) => Outcome::Word("drop".into()),
    }
}

#[test]
fn the_table_names_every_file_once() {
    let mut files: Vec<_> = fs::read_dir(corpus().join("rfc4475"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    let mut rows: Vec<_> = table().into_iter().map(|row| row.file).collect();
    rows.sort();
    assert_eq!(files.len(), 50);
    assert_eq!(files, rows);
    for row in table() {
        assert!(
            !row.note.is_empty() && !row.section.is_empty(),
            "{}",
            row.file
        );
        assert!(
            row.registrar.is_none() || row.kind == "request",
            "{}",
            row.file
        );
    }
}

#[test]
fn every_message_has_the_outcome_of_the_table() {
    for row in table() {
        let found = judge(&bytes(&row));
        if row.layer == "core" {
            // The parser has nothing against it; the proxy reads its reason here.
            assert_eq!(
                found,
                Outcome::Word("forward".into()),
                "{} {}",
                row.file,
                row.section
            );
        } else {
            assert_eq!(found, row.outcome, "{} {}", row.file, row.section);
        }
    }
}

#[test]
fn what_the_proxy_itself_judges_is_readable() {
    for row in table().into_iter().filter(|row| row.layer == "core") {
        let bytes = bytes(&row);
        let message = super::parse(&bytes);
        match row.outcome {
            Outcome::Status(420) => {
                let tags: Vec<_> = message
                    .values(HeaderId::ProxyRequire)
                    .map(|v| v.as_bytes())
                    .collect();
                assert_eq!(
                    tags,
                    [&b"noProxiesSupportThis"[..], b"norDoAnyProxiesSupportThis"]
                );
            }
            Outcome::Status(483) => assert_eq!(message.max_forwards(), Ok(Some(0))),
            other => panic!("{}: no fact known for {other:?}", row.file),
        }
    }
}

#[test]
fn the_kind_is_told_right() {
    for row in table() {
        let bytes = bytes(&row);
        assert_eq!(
            super::parse(&bytes).is_request(),
            row.kind == "request",
            "{}",
            row.file
        );
    }
}

/// What a proxy adds comes out again, and all else is as it was, byte for byte.
#[test]
fn valid_messages_are_forwarded_intact() {
    for row in table()
        .into_iter()
        .filter(|row| row.outcome == Outcome::Word("forward".into()))
    {
        let bytes = bytes(&row);
        let message = super::parse(&bytes);
        let mut plain = Vec::new();
        EditList::new().write(message, &mut plain).unwrap();
        assert_eq!(plain, message.bytes(), "{}", row.file);
        if row.file != "dblreq.dat" {
            assert_eq!(plain, bytes, "{}", row.file);
        }

        let mut edits = EditList::new();
        edits
            .prepend_header(message, HeaderId::Via, b"SIP/2.0/UDP p;branch=z9hG4bKp")
            .unwrap();
        edits
            .prepend_header(message, HeaderId::RecordRoute, b"<sip:p;lr>")
            .unwrap();
        let mut out = Vec::new();
        edits.write(message, &mut out).unwrap();
        let sent = super::parse(&out);
        let limits = Limits::default();
        assert_eq!(check(sent, &limits).err(), None, "{}", row.file);
        assert_eq!(
            sent.via_top().unwrap().branch(),
            Some(&b"z9hG4bKp"[..]),
            "{}",
            row.file
        );

        let mut undo = EditList::new();
        for id in [HeaderId::Via, HeaderId::RecordRoute] {
            undo.remove_field(sent.field(id).unwrap()).unwrap();
        }
        let mut back = Vec::new();
        undo.write(sent, &mut back).unwrap();
        assert_eq!(back, plain, "{}", row.file);
    }
}

#[test]
fn a_second_request_in_a_datagram_is_cut_off() {
    let bytes = fs::read(corpus().join("rfc4475/dblreq.dat")).unwrap();
    let message = super::parse(&bytes);
    assert!(message.bytes().ends_with(b"Content-Length: 0\r\n\r\n"));
    assert!(message.trailing().starts_with(b"\r\nINVITE"));
    assert_eq!(message.body(), b"");
}

#[test]
fn the_torture_values_read_as_the_rfc_says() {
    let bytes = |file: &str| fs::read(corpus().join("rfc4475").join(file)).unwrap();

    let wsinv = bytes("wsinv.dat");
    let message = super::parse(&wsinv);
    let cseq = message.cseq().unwrap();
    assert_eq!((cseq.number, cseq.method), (9, &b"INVITE"[..]));
    assert_eq!(message.max_forwards(), Ok(Some(68)));
    assert_eq!(message.to().unwrap().tag(), Some(&b"1918181833n"[..]));
    assert_eq!(message.from().unwrap().tag(), Some(&b"98asjd8"[..]));
    assert_eq!(
        message.from().unwrap().display_name().unwrap(),
        &b"J Rosenberg \\\""[..]
    );
    let vias: Vec<_> = message
        .vias()
        .map(|via| via.unwrap().branch().unwrap())
        .collect();
    assert_eq!(vias, [&b"390skdjuw"[..], b"z9hG4bK9ikj8", b"z9hG4bK30239"]);
    let contact = message.contacts().next().unwrap().unwrap();
    assert_eq!(contact.addr().unwrap().q(), Some(330));
    assert!(message.routes().next().unwrap().unwrap().uri.lr());
    assert_eq!(message.body().len(), 150);

    let longreq = bytes("longreq.dat");
    let message = super::parse(&longreq);
    assert_eq!(message.vias().filter(Result::is_ok).count(), 34);
    assert!(!message.via_top().unwrap().has_cookie());

    let intmeth = bytes("intmeth.dat");
    let message = super::parse(&intmeth);
    let to = message.to().unwrap();
    assert_eq!(to.display_name().unwrap(), &b"BEL:\x07 NUL:\0 DEL:\x7f"[..]);
    assert_eq!(
        message.from().unwrap().display,
        Some(&b"token1~` token2'+_ token3*%!.-"[..])
    );

    let esc02 = bytes("esc02.dat");
    let message = super::parse(&esc02);
    assert_eq!(message.contacts().count(), 2);
    assert_eq!(message.by_name(b"c%6fNTACT").count(), 1);

    let scalarlg = bytes("scalarlg.dat");
    assert!(super::parse(&scalarlg).cseq().is_err());
}

#[test]
fn bytes_without_a_message_have_no_outcome() {
    let mut index = Index::new();
    for (bytes, error) in [
        (&b""[..], ParseError::Empty),
        (b"\r\n\r\n", ParseError::Empty),
        (b"hello\r\nVia: x\r\n\r\n", ParseError::StartLine),
        (
            b" INVITE sip:a SIP/2.0\r\nVia: x\r\n\r\n",
            ParseError::StartLine,
        ),
        (b"INVITE \r\nVia: x\r\n\r\n", ParseError::StartLine),
        (b"INVITE sip:a@b SIP/2.0\r\n\r\n", ParseError::NoHeaders),
        (b"INVITE sip:a@b SIP/2.0", ParseError::NoHeaders),
    ] {
        assert_eq!(index.parse(bytes), Err(error), "{bytes:?}");
    }
}
