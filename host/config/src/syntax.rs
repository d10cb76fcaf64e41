//! The little languages inside values: times, hosts, next hops, settings as JSON.

use std::net::IpAddr;
use std::time::Duration;

use serde_json::{Map, Number, Value};
use sipbox_sip::{Hop, HostPort, Transport, Uri};
use toml::Spanned;
use toml::de::DeValue;

use crate::diagnostic::Diagnostic;

/// Transports that a listener or next hop can have.
pub(crate) const TRANSPORTS: &[(&str, Transport)] =
    &[("udp", Transport::Udp), ("tcp", Transport::Tcp)];

/// `500ms`, `1.5s`, `3m`, `1h`
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(unit_at);
    let number: f64 = number.trim().parse().ok()?;
    let seconds = match unit {
        "ms" => number / 1000.0,
        "s" => number,
        "m" | "min" => number * 60.0,
        "h" => number * 3600.0,
        "d" => number * 86_400.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(seconds).ok()
}

/// A host name or address; brackets of IPv6 are taken off.
pub(crate) fn host(text: &str) -> Option<String> {
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(text);
    if bare.parse::<IpAddr>().is_ok() {
        return Some(bare.to_ascii_lowercase());
    }
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    // It will stand in a Via or a URI, whose grammar is narrower than that of names.
    let fits = Uri::parse(format!("sip:{name}").as_bytes()).is_ok();
    (fits && name.len() <= 253 && name.split('.').all(label)).then(|| name.to_ascii_lowercase())
}

pub(crate) fn host_port(text: &str) -> Option<HostPort> {
    if let Some(host) = host(text) {
        return Some(HostPort { host, port: None });
    }
    let (name, port) = text.rsplit_once(':')?;
    let port: u16 = port.parse().ok().filter(|port| *port != 0)?;
    Some(HostPort {
        host: host(name)?,
        port: Some(port),
    })
}

pub(crate) fn hop(text: &str) -> Option<Hop> {
    let text = text.strip_prefix("sip:").unwrap_or(text);
    let (place, transport) = match text.split_once(';') {
        None => (text, None),
        Some((place, parameter)) => {
            let name = parameter.strip_prefix("transport=")?;
            let (_, transport) = TRANSPORTS.iter().find(|(known, _)| *known == name)?;
            (place, Some(*transport))
        }
    };
    let HostPort { host, port } = host_port(place)?;
    Some(Hop {
        host,
        port,
        transport,
    })
}

/// A policy's settings as JSON. What JSON cannot say is refused, not bent.
pub(crate) fn json(value: &Spanned<DeValue<'_>>) -> Result<Value, Diagnostic> {
    let refused = |what: &str, expected: &str| {
        Diagnostic::error(
            format!("settings cannot hold {what}"),
            value.span(),
            expected,
        )
    };
    Ok(match value.get_ref() {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Boolean(value) => Value::Bool(*value),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map(Value::from)
            .map_err(|_| refused("so large a number", "expected a number of 64 bits"))?,
        DeValue::Float(number) => {
            let number = number
                .as_str()
                .parse::<f64>()
                .ok()
                .and_then(Number::from_f64);
            Value::Number(number.ok_or_else(|| refused("`nan` or `inf`", "expected a number"))?)
        }
        DeValue::Datetime(_) => {
            return Err(refused(
                "a date or time",
                "expected a text with quotes around it",
            ));
        }
        DeValue::Array(values) => Value::Array(values.iter().map(json).collect::<Result<_, _>>()?),
        DeValue::Table(table) => {
            let mut object = Map::new();
            for (key, value) in table {
                object.insert(key.get_ref().to_string(), json(value)?);
            }
            Value::Object(object)
        }
    })
}
