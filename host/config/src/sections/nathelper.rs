//! `[nathelper]`: pings of bindings.

use std::time::Duration;

use sipbox_sip::{Uri, lex};
use toml::de::DeTable;

use super::will_not_do;
use crate::model::{Datagram, Nathelper};
use crate::read::{Diagnostics, Table};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

const DATAGRAMS: &[(&str, Datagram)] = &[
    ("zeros", Datagram::Zeros),
    ("crlf", Datagram::Crlf),
    ("stun", Datagram::Stun),
];

pub(super) fn nathelper(table: &mut Table<'_, '_>, out: &mut Diagnostics) -> Nathelper {
    const CODES: &str = "statuses with commas between, such as `404,501`";
    const METHOD: &str = "a method, such as `OPTIONS`";
    const FROM: &str = "a SIP URI, such as `sip:pinger@example.com`";
    let empty = DeTable::new();
    let mut table = table
        .table("nathelper", "`[nathelper]`", out)
        .unwrap_or_else(|| Table::new(&empty, "`[nathelper]`", 0..0));
    let interval = table
        .duration("natping_interval", Duration::ZERO..=HOUR, out)
        .unwrap_or(Duration::ZERO);
    let method = table.text("sipping_method", METHOD, out);
    if let Some(method) = &method
        && !is_method(method.value)
    {
        will_not_do(method, METHOD, out);
    }
    let from = table.text("sipping_from", FROM, out);
    if let Some(from) = &from
        && !from.value.is_empty()
        && !is_sip(from.value)
    {
        will_not_do(from, FROM, out);
    }
    let nathelper = Nathelper {
        natping_interval: interval,
        ping_nated_only: table.flag("ping_nated_only", out).unwrap_or(true),
        natping_tcp: table.flag("natping_tcp", out).unwrap_or(false),
        natping_datagram: table
            .choice("natping_datagram", DATAGRAMS, out)
            .map_or(Datagram::Zeros, |at| at.value),
        sipping_method: method.map_or("OPTIONS", |at| at.value).to_owned(),
        sipping_from: from.map_or("", |at| at.value).to_owned(),
        sipping_ignore_rpl_codes: table
            .parsed("sipping_ignore_rpl_codes", CODES, out, codes)
            .map(|at| at.value)
            .unwrap_or_default(),
        ping_threshold: table
            .duration("ping_threshold", SECOND / 10..=60 * SECOND, out)
            .unwrap_or(3 * SECOND),
        max_pings_lost: table
            .number("max_pings_lost", 0..=1000, out)
            .and_then(|number| u32::try_from(number).ok())
            .unwrap_or(3),
    };
    if !interval.is_zero() && interval < SECOND {
        out.error(
            "`natping_interval` of `[nathelper]` is shorter than a second",
            table.place("natping_interval"),
            "expected at least \"1s\", or \"0s\" for none",
        );
    }
    table.finish(out);
    nathelper
}

/// An INVITE would ring, and an ACK or CANCEL has no answer.
fn is_method(text: &str) -> bool {
    lex::is_token(text.as_bytes()) && !matches!(text, "INVITE" | "ACK" | "CANCEL")
}

fn is_sip(text: &str) -> bool {
    let plain = !text.contains(|c: char| c.is_whitespace() || c.is_control() || "<>\"".contains(c));
    plain && Uri::parse(text.as_bytes()).is_ok_and(|uri| uri.is_sip())
}

fn codes(text: &str) -> Option<Vec<u16>> {
    let code = |word: &str| word.trim().parse().ok().filter(|c| (100..700).contains(c));
    text.split(',').map(code).collect()
}
