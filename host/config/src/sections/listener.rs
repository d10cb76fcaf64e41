//! `[[listener]]`

use std::net::SocketAddr;

use sipbox_sip::{Method, Transport};

use super::HOST_PORT;
use crate::diagnostic::Diagnostic;
use crate::model::{Listener, Span, Tenant};
use crate::read::{Diagnostics, Table, one_of, suggest};
use crate::syntax::{TRANSPORTS, host_port};

pub(super) fn listeners(
    table: &mut Table<'_, '_>,
    tenants: &[(Tenant, Span)],
    out: &mut Diagnostics,
) -> Vec<Listener> {
    let mut listeners: Vec<Listener> = Vec::new();
    let tables = table.tables("listener", "a listener", out);
    if tables.is_empty() {
        let help =
            "[[listener]]\nname = \"udp\"\ntransport = \"udp\"\naddress = \"192.0.2.1:5060\"";
        out.push(
            Diagnostic::error(
                "there is no listener",
                table.span(),
                "expected at least one `[[listener]]`",
            )
            .help(help),
        );
    }
    for mut table in tables {
        const ADDRESS: &str = "an address with port, such as `0.0.0.0:5060` or `[::1]:5060`";
        let name = table.required_text("name", "its name in logs and commands", out);
        let transport = table.choice("transport", TRANSPORTS, out);
        let address = match table.required_text("address", ADDRESS, out) {
            Some(_) => table.parsed("address", ADDRESS, out, |text| {
                text.parse::<SocketAddr>().ok()
            }),
            None => None,
        };
        let advertised = table.parsed("advertised", HOST_PORT, out, host_port);
        let tenant = table.text("tenant", "a tenant's name", out);
        let stateless = methods(&mut table, out);
        let span = table.span();
        table.finish(out);
        let tenant = tenant.and_then(|text| {
            let names: Vec<&str> = tenants.iter().map(|(t, _)| t.name.as_str()).collect();
            let found = names.iter().position(|name| *name == text.value);
            if found.is_none() {
                let message = format!("there is no tenant `{}`", text.value);
                let expected = format!("expected {}", one_of(&names));
                out.push(suggest(
                    Diagnostic::error(message, text.span, expected),
                    text.value,
                    &names,
                ));
            }
            found
        });
        let (Some(name), Some(address)) = (name, address) else {
            continue;
        };
        if listeners.iter().any(|other| other.name == name.value) {
            let message = format!("two listeners are called `{}`", name.value);
            out.error(message, name.span, "expected another name");
            continue;
        }
        let transport = transport.map_or(Transport::Udp, |at| at.value);
        let taken =
            |other: &Listener| other.transport == transport && other.address == address.value;
        if address.value.port() != 0 && listeners.iter().any(taken) {
            let message = format!("two listeners have the address {}", address.value);
            out.error(
                message,
                address.span.clone(),
                "expected another address or transport",
            );
            continue;
        }
        if address.value.ip().is_unspecified() && advertised.is_none() {
            out.push(
                Diagnostic::error(
                    format!(
                        "listener `{}` is bound to every address and advertises none",
                        name.value
                    ),
                    span.clone(),
                    "expected `advertised = \"host\"`: what Via and Record-Route say",
                )
                .help("peers send their answers to the advertised address"),
            );
            continue;
        }
        listeners.push(Listener {
            name: name.value.to_owned(),
            transport,
            address: address.value,
            advertised: advertised.map(|at| at.value),
            tenant,
            stateless,
            span,
            address_span: address.span,
        });
    }
    listeners
}

pub(super) fn methods(table: &mut Table<'_, '_>, out: &mut Diagnostics) -> Vec<Method> {
    const EXPECTED: &str =
        "a method that can be forwarded without a transaction, such as `MESSAGE`";
    let mut methods = Vec::new();
    for text in table.texts("stateless", EXPECTED, out) {
        match Method::from_token(text.value.as_bytes()) {
            // RFC 3261 16.11: a CANCEL or ACK follows its INVITE, and a call without
            // transactions cannot be cancelled, billed or failed over.
            Method::Invite | Method::Ack | Method::Cancel | Method::Register | Method::Other => {
                let message = format!("`{}` will not do", text.value);
                let diagnostic =
                    Diagnostic::error(message, text.span, format!("expected {EXPECTED}"));
                // Methods are case-sensitive (RFC 3261 section 7.1).
                let known: Vec<_> = Method::ALL.iter().map(|method| method.token()).collect();
                let mistyped = !known.contains(&text.value);
                out.push(if mistyped {
                    suggest(diagnostic, text.value, &known)
                } else {
                    diagnostic
                });
            }
            method => methods.push(method),
        }
    }
    methods
}
